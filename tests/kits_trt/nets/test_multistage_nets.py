"""The Res-UNet and the Res-Net: pre-activation by hand, wiring by a plain second definition."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from kits_trt.nets import net_config
from kits_trt.nets.blocks import BlockKind
from kits_trt.nets.cost import net_cost
from kits_trt.nets.initialise import convolutions
from kits_trt.nets.preactivated import Residual, pre_activated
from kits_trt.nets.resnet25d import ResNet25dConfig
from kits_trt.nets.resunet25d import ResUNet25dConfig

FLAT = BlockKind(ndim=2, kernel=3, activation="relu")
BN_EPS = 1e-5


def make_norms_neutral(net: nn.Module) -> None:
    """Let every normalisation return its input: mean 0, variance + eps exactly 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1.0 - BN_EPS)
    net.eval()


def set_centre(layer: nn.Module, value: float) -> None:
    """Let a convolution of one channel multiply by a value."""
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        middle = layer.kernel_size[0] // 2
        layer.weight[0, 0, middle, middle] = value


def test_a_pre_activated_layer_activates_before_it_convolves() -> None:
    layers = pre_activated(FLAT, (1, 1))
    make_norms_neutral(layers)
    set_centre(layers[-1], -2.0)
    row = torch.tensor([-3.0, 1.0, 4.0]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(layers(row).flatten(), torch.tensor([0.0, -2.0, -8.0]))


def test_a_block_of_equal_channels_adds_what_came_in_untouched() -> None:
    block = Residual(FLAT, (1, 1), layers=pre_activated(FLAT, (1, 1)))
    make_norms_neutral(block)
    set_centre(block.layers[-1], 2.0)
    row = torch.tensor([-3.0, 1.0, 4.0]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(block(row).flatten(), torch.tensor([-3.0, 3.0, 12.0]))


def test_a_block_of_stride_2_adds_every_other_pixel_through_a_linear_1x1_convolution() -> None:
    block = Residual(FLAT, (1, 1), layers=pre_activated(FLAT, (1, 1), stride=2), stride=2)
    make_norms_neutral(block)
    set_centre(block.layers[-1], 0.5)
    set_centre(block.shortcut, -1.0)
    square = torch.tensor([[-2.0, 9.0], [9.0, 9.0]]).repeat(1, 2).reshape(1, 1, 2, 4)
    square[0, 0, 0, 2] = 6.0
    # -(-2) + 0.5 * relu(-2) and -6 + 0.5 * 6: the shortcut has no activation.
    torch.testing.assert_close(block(square).flatten(), torch.tensor([2.0, -3.0]))


def normed(layers: nn.Module, features: Tensor) -> Tensor:
    """Return batch normalisation with stored statistics and ReLU, written out."""
    norm = layers[0]
    shape = (1, -1, 1, 1)
    scale = norm.weight / torch.sqrt(norm.running_var + BN_EPS)
    result = (features - norm.running_mean.reshape(shape)) * scale.reshape(shape)
    return functional.relu(result + norm.bias.reshape(shape))


def lively(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, std=0.3)
    return net.eval()


def plain_block(block: Residual, features: Tensor, *, stride: int) -> Tensor:
    first, second = block.layers
    inner = functional.conv2d(normed(first, features), first[-1].weight, stride=stride, padding=1)
    inner = functional.conv2d(normed(second, inner), second[-1].weight, padding=1)
    return inner + functional.conv2d(features, block.shortcut.weight, stride=stride)


def test_the_res_unet_is_the_published_graph_written_out_a_second_time() -> None:
    torch.manual_seed(3)
    net = lively(ResUNet25dConfig(base=2, crop=(16, 24)).build())
    patches = torch.randn(2, 5, 16, 24)
    opening = net.encoders[0]
    inner = functional.conv2d(patches, opening.layers[0].weight, padding=1)
    second = opening.layers[1]
    inner = functional.conv2d(normed(second, inner), second[-1].weight, padding=1)
    skips = [inner + functional.conv2d(patches, opening.shortcut.weight)]
    for block in net.encoders[1:]:
        skips.append(plain_block(block, skips[-1], stride=2))
    features = skips.pop()
    assert features.shape == (2, 16, 2, 3)
    for up, block in zip(net.ups, net.decoders, strict=True):
        risen = functional.conv_transpose2d(features, up.weight, stride=2)
        features = plain_block(block, torch.cat((risen, skips.pop()), dim=1), stride=1)
    head = net.head[-1]
    expected = functional.conv2d(normed(net.head, features), head.weight, head.bias)
    assert float(expected.detach().std()) > 0.01
    torch.testing.assert_close(net.final_logits(patches), expected, atol=1e-5, rtol=1e-5)


def test_the_res_unet_halves_in_blocks_two_to_four_and_has_1x1_shortcuts_in_all() -> None:
    net = ResUNet25dConfig(base=2, crop=(16, 16)).build()
    blocks = [*net.encoders, *net.decoders]
    assert [block.shortcut.stride[0] for block in blocks] == [1, 2, 2, 2, 1, 1, 1]
    assert {block.shortcut.kernel_size for block in blocks} == {(1, 1)}
    assert [len(convolutions(block.layers)) for block in blocks] == [2] * 7
    assert [up.stride for up in net.ups] == [(2, 2)] * 3


def test_the_res_unet_costs_what_is_counted_by_hand() -> None:
    for preset, base in (("paper", 32), ("small", 16)):
        config = net_config("res-unet-1", preset)
        plane = int(np.prod(config.patch_shape[1:]))
        parameters, flop = 3 * (base + 1) + 2 * base, 2 * 3 * base * plane  # head with its BN
        entries = [(5, 1), (1, 2), (2, 4), (4, 8), (8, 4), (4, 2), (2, 1)]
        for index, (before, after) in enumerate(entries):
            entry, leaving = (before if index == 0 else before * base), after * base
            weights = 10 * entry * leaving + 9 * leaving**2  # 3x3 and 1x1 in, 3x3 after
            parameters += weights + 2 * leaving + (2 * entry if index > 0 else 0)
            flop += 2 * weights * plane // after**2
            if index > 3:  # the transposed convolution in front of it: one tap makes each pixel
                parameters += 4 * entry * leaving
                flop += 2 * entry * leaving * plane // after**2
        with torch.device("meta"):
            net = config.build()
        cost = net_cost(net, config.patch_shape)
        assert (cost.parameters, cost.flop) == (parameters, flop)


def test_the_res_net_sees_131_by_131_pixels_and_every_one_of_them() -> None:
    net = ResNet25dConfig(width=1, crop=(141, 141)).build()
    make_norms_neutral(net)
    for layer in convolutions(net):
        nn.init.constant_(layer.weight, 0.1)
    patches = torch.rand(1, 5, 141, 141, dtype=torch.float64, requires_grad=True)
    net.double().final_logits(patches)[0, 0, 70, 70].backward()
    felt = (patches.grad[0, 2] != 0).numpy()
    expected = np.zeros((141, 141), bool)
    expected[70 - 65 : 70 + 66, 70 - 65 : 70 + 66] = True
    np.testing.assert_array_equal(felt, expected)


def test_the_res_net_costs_what_is_counted_by_hand() -> None:
    for preset, width in (("paper", 32), ("small", 16)):
        config = net_config("res-net", preset)
        weights = 9 * 5 * width + 12 * 9 * width**2 + 3 * width
        with torch.device("meta"):
            net = config.build()
        cost = net_cost(net, config.patch_shape)
        assert cost.parameters == weights + 3 + 13 * 2 * width  # head's bias, 13 normalisations
        assert cost.flop == 2 * weights * int(np.prod(config.patch_shape[1:]))


def test_the_res_net_drops_half_of_what_it_convolves_and_only_in_training() -> None:
    torch.manual_seed(0)
    net = ResNet25dConfig(width=4, crop=(16, 16)).build()
    rates = [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.5] * 12
    patches = torch.randn(2, 5, 16, 16)
    assert torch.equal(net.eval()(patches), net(patches))
    net.train()
    assert not torch.equal(net(patches), net(patches))
    first = net.blocks[0].layers[0]
    dropped = first[:-1](torch.ones(1, 4, 64, 64) * torch.randn(1, 4, 64, 64).abs())
    before = first[:-2](torch.ones(1, 4, 64, 64) * torch.randn(1, 4, 64, 64).abs())
    share = (dropped == 0).float().mean().item() - 0.5 * (before == 0).float().mean().item()
    np.testing.assert_allclose(share, 0.5, atol=0.03)
