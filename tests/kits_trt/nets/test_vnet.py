"""V-Net against its published widths, counted by hand, and with silent convolutions."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kits_trt.nets import net_config
from kits_trt.nets.cost import net_cost
from kits_trt.nets.initialise import convolutions
from kits_trt.nets.vnet import VNetConfig

# (channels in, channels out) of every convolution of the published net, level by level.
FIVES = {
    1: [(1, 16), (32, 32)],
    2: [(32, 32)] * 2 + [(64, 64)] * 2,
    4: [(64, 64)] * 3 + [(128, 128)] * 3,
    8: [(128, 128)] * 3 + [(256, 256)] * 3,
    16: [(256, 256)] * 3,
}
"""5x5x5 convolutions on the way down and then on the way up, by how often the edge is halved."""
DOWN = {2: (16, 32), 4: (32, 64), 8: (64, 128), 16: (128, 256)}
UP = {1: (64, 16), 2: (128, 32), 4: (256, 64), 8: (256, 128)}


def test_the_paper_preset_has_the_parameters_and_operations_of_the_published_widths() -> None:
    parameters, flop = 2 * 32 + 2, 2 * 2 * 32 * 128**3  # the head
    for shrink, pairs in FIVES.items():
        for entry, leaving in pairs:
            parameters += 125 * entry * leaving + 2 * leaving  # bias and slope
            flop += 2 * 125 * entry * leaving * (128 // shrink) ** 3
    for shrink, (entry, leaving) in DOWN.items():
        parameters += 8 * entry * leaving + 2 * leaving
        flop += 2 * 8 * entry * leaving * (128 // shrink) ** 3
    for shrink, (entry, leaving) in UP.items():
        parameters += 8 * entry * leaving + 2 * leaving
        flop += 2 * entry * leaving * (128 // shrink) ** 3  # one of the 8 taps makes each voxel
    config = net_config("kidney-vnet", "paper")
    with torch.device("meta"):
        net = config.build()
    cost = net_cost(net, config.patch_shape)
    assert (cost.parameters, cost.flop) == (parameters, flop)
    assert (round(cost.parameters / 1e6), round(cost.gflop)) == (65, 2009)


def test_levels_have_1_2_3_3_convolutions_down_3_at_the_bottom_and_3_3_2_1_up() -> None:
    net = VNetConfig(base=2, window=(16, 16, 16), normalised=True).build()
    counts = [
        [sum(layer.kernel_size == (5, 5, 5) for layer in convolutions(level)) for level in levels]
        for levels in (net.encoders, [net.bottom], net.decoders)
    ]
    assert counts == [[1, 2, 3, 3], [3], [3, 3, 2, 1]]
    strided = [layer for layer in convolutions(net) if layer.stride == (2, 2, 2)]
    assert [layer.kernel_size for layer in strided] == [(2, 2, 2)] * 8


def test_with_silent_convolutions_the_scan_passes_every_residual_link_of_its_level() -> None:
    net = VNetConfig(base=1, window=(16, 16, 16), normalised=False).build()
    for layer in convolutions(net):
        nn.init.zeros_(layer.weight)
    # The head reads what was concatenated: the risen features (zero), then the encoder's.
    net.head.weight.data[:] = torch.tensor([[5.0, 0.0], [0.0, 2.0]]).reshape(2, 2, 1, 1, 1)
    patches = torch.full((1, 1, 16, 16, 16), -3.0)
    patches[..., 0] = 4.0
    logits = net.final_logits(patches)[0].detach()
    assert float(logits[0].abs().max()) == 0.0
    # PReLU's first slope is 0.25; the scan meets it at the end of both its levels.
    np.testing.assert_allclose(logits[1, :, :, 0], 2.0 * 4.0)
    np.testing.assert_allclose(logits[1, :, :, 1:], 2.0 * 0.25 * 0.25 * -3.0)


def test_an_upward_level_adds_what_it_concatenated_to_its_last_convolution() -> None:
    torch.manual_seed(2)
    net = VNetConfig(base=1, window=(16, 16, 16), normalised=False).build()
    merged = torch.randn(1, 2, 6, 6, 6)
    layer = net.decoders[-1].convs[0][0]
    sums = functional.conv3d(merged, layer.weight, layer.bias, padding=2) + merged
    expected = torch.where(sums >= 0, sums, 0.25 * sums)
    torch.testing.assert_close(net.decoders[-1](merged, merged), expected)


def test_only_the_small_preset_is_normalised() -> None:
    with torch.device("meta"):
        paper = net_config("roi-vnet", "paper").build()
        small = net_config("roi-vnet", "small").build()
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in paper.modules())
    normed = sum(isinstance(layer, nn.BatchNorm3d) for layer in small.modules())
    assert normed == len(convolutions(small)) - 1  # all but the head
