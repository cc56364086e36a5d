"""Residual runs, dilations, squeeze-and-excitation and gates against arithmetic by hand."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from kits_trt.nets.attention import AttentionGate, SqueezeExcite
from kits_trt.nets.blocks import BlockKind, HybridDilation, ResidualConvs, double, halve
from kits_trt.nets.msvnet import MultiScaleDown

FLAT = BlockKind(ndim=2, kernel=3, activation="prelu")
SOLID = BlockKind(ndim=3, kernel=3, activation="relu")
BN_EPS = 1e-5


def make_norms_neutral(net: nn.Module) -> None:
    """Let every normalisation return its input: mean 0, variance + eps exactly 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_var.fill_(1.0 - BN_EPS)
    net.eval()


def set_weights(layer: nn.Module, weights: list[float], bias: list[float] | None = None) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).reshape(layer.weight.shape))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))


def test_a_kernel_without_a_centre_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel is 4, must be odd"):
        BlockKind(ndim=2, kernel=4, activation="relu")


def test_a_residual_run_adds_the_shortcut_before_its_last_activation() -> None:
    torch.manual_seed(1)
    run = ResidualConvs(SOLID, (1, 2), convs=1)
    convolution, norm = run.convs[0][0], run.convs[0][1]
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5]))
        norm.bias.copy_(torch.tensor([0.25, 0.75]))
        norm.running_mean.copy_(torch.tensor([0.1, -0.2]))
        norm.running_var.copy_(torch.tensor([2.0, 0.5]))
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    features = torch.from_numpy(volume)[None, None]
    scores = run.eval()(features, features)[0].detach().numpy()
    for channel in range(2):
        kernel = convolution.weight[channel, 0].detach().numpy()
        linear = ndimage.correlate(volume, kernel, mode="constant")
        mean, variance = norm.running_mean[channel].item(), norm.running_var[channel].item()
        scale = norm.weight[channel].item() / np.sqrt(variance + BN_EPS)
        normed = (linear - mean) * scale + norm.bias[channel].item()
        np.testing.assert_allclose(scores[channel], np.maximum(normed + volume, 0), atol=2e-6)


def test_a_residual_run_of_zero_weights_passes_its_shortcut_through_the_activation() -> None:
    run = ResidualConvs(FLAT, (4, 2), convs=3)
    with torch.no_grad():
        run.convs[-1][0].weight.zero_()
    make_norms_neutral(run)
    shortcut = torch.tensor([2.0, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3)
    result = run(torch.randn(1, 4, 3, 3), shortcut)
    # PReLU starts with a slope of 0.25 below zero.
    expected = torch.tensor([2.0, -0.5]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3)
    torch.testing.assert_close(result, expected)


def test_a_residual_run_has_the_convolutions_it_was_asked_for() -> None:
    run = ResidualConvs(SOLID, (6, 2), convs=3)
    layers = [layer for layer in run.modules() if isinstance(layer, nn.Conv3d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [(6, 2), (2, 2), (2, 2)]


def test_halving_weighs_each_2x2x2_cube_and_doubling_spreads_one_voxel_over_it() -> None:
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    down, up = halve(SOLID, (1, 1)), double(SOLID, (1, 1))
    set_weights(down[0], weights)
    set_weights(up[0], weights)
    make_norms_neutral(down)
    make_norms_neutral(up)
    cube = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0]).reshape(1, 1, 2, 2, 2)
    torch.testing.assert_close(down(cube), torch.full((1, 1, 1, 1, 1), 1.0 + 4.0 + 16.0))
    spread = up(torch.full((1, 1, 1, 1, 1), 3.0))
    torch.testing.assert_close(spread.flatten(), 3.0 * torch.tensor(weights))


def test_dilations_2_3_5_see_every_pixel_up_to_10_away_except_those_9_away() -> None:
    bottom = HybridDilation(FLAT, 1, dilations=(2, 3, 5))
    for module in bottom.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
    make_norms_neutral(bottom)
    impulse = torch.zeros(1, 1, 25, 25)
    impulse[0, 0, 12, 12] = 1.0
    response = bottom(impulse)[0, 0].detach().numpy()
    # Ways to reach an offset along one axis with a step from each of {0, +-2}, {0, +-3}, {0, +-5}
    ways = {0: 3, 1: 1, 2: 2, 3: 2, 4: 1, 5: 2, 6: 1, 7: 1, 8: 1, 9: 0, 10: 1}
    line = np.array([ways.get(abs(offset), 0) for offset in range(-12, 13)], dtype=np.float32)
    expected = np.outer(line, line)
    expected[12, 12] += 1.0  # the residual link
    np.testing.assert_allclose(response, expected, atol=1e-4)


def test_squeeze_and_excitation_weighs_channels_by_their_means() -> None:
    module = SqueezeExcite(FLAT, 2, reduction=2)
    set_weights(module.squeeze, [0.5, 0.25], [-0.25])
    set_weights(module.excite, [2.0, -1.0], [0.0, 1.0])
    features = torch.tensor([[0.0, 2.0], [2.0, 4.0]]).reshape(1, 2, 1, 2)
    # Means 1 and 3: hidden 0.5 + 0.75 - 0.25 = 1; outputs 2 and 0; sigmoids 0.880797 and 0.5.
    expected = torch.tensor([[0.0, 1.761594], [1.0, 2.0]]).reshape(1, 2, 1, 2)
    torch.testing.assert_close(module(features), expected)


def test_squeeze_and_excitation_ignores_a_negative_hidden_value() -> None:
    module = SqueezeExcite(FLAT, 2, reduction=2)
    set_weights(module.squeeze, [-1.0, -1.0], [0.0])
    set_weights(module.excite, [5.0, 5.0], [0.0, 0.0])
    features = torch.full((1, 2, 3, 3), 4.0)
    torch.testing.assert_close(module(features), torch.full((1, 2, 3, 3), 2.0))


def test_an_attention_gate_concatenates_and_gives_each_place_its_own_weight() -> None:
    gate = AttentionGate(FLAT, (1, 1))
    set_weights(gate.mix[0], [1.0, 2.0])
    set_weights(gate.weigh, [1.0], [0.0])
    make_norms_neutral(gate)
    encoded = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    decoded = torch.tensor([-1.0, 0.5]).reshape(1, 1, 1, 2)
    # 1 - 2 = -1, PReLU -0.25, sigmoid 0.437823; 2 + 1 = 3, sigmoid 0.952574, times 2.
    expected = torch.tensor([0.437823, 1.905148]).reshape(1, 1, 1, 2)
    torch.testing.assert_close(gate(encoded, decoded), expected, atol=1e-5, rtol=0)


def test_a_multi_scale_down_sampling_appends_the_averaged_input() -> None:
    down = MultiScaleDown(FLAT, (1, 2), slices=1, branch=1, factor=2)
    set_weights(down.halve[0], [0.0, 0.0, 0.0, 1.0])
    set_weights(down.look[0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    make_norms_neutral(down)
    features = torch.arange(4.0).reshape(1, 1, 2, 2)
    patches = torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2)
    result = down(features, patches)
    torch.testing.assert_close(result, torch.tensor([3.0, 3.0]).reshape(1, 2, 1, 1))
