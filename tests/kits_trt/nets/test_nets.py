"""Whole networks: scores, deep supervision, reach, gradients, sizes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kits_trt.nets import NETS, SYSTEM_NETS, SegmentationNet, build_net
from kits_trt.nets.cost import net_cost
from kits_trt.nets.msvnet import MsVNetConfig
from kits_trt.nets.resnet25d import ResNet25dConfig
from kits_trt.nets.resunet3d import ResUNet3dConfig
from kits_trt.nets.resunet25d import ResUNet25dConfig
from kits_trt.nets.unet2d import UNet2dConfig
from kits_trt.nets.unet3d import UNet3dConfig
from kits_trt.nets.vnet import VNetConfig

TINY = {
    "resunet3d": ResUNet3dConfig(base=2, window=(16, 32, 16)),
    "msvnet": MsVNetConfig(base=4, crop=(32, 16)),
    "vnet": VNetConfig(base=2, window=(16, 32, 16), normalised=False),
    "vnet-normalised": VNetConfig(base=2, window=(16, 32, 16), normalised=True),
    "unet3d": UNet3dConfig(window=(8, 16, 8), channels=(4, 8, 16)),
    "resunet25d": ResUNet25dConfig(base=4, crop=(32, 16)),
    "resnet25d": ResNet25dConfig(width=8, crop=(32, 16)),
    "unet2d": UNet2dConfig(base=4, crop=(32, 16)),
}
CLASSES = {"unet3d": 3, "resunet25d": 3, "resnet25d": 3, "unet2d": 1}
SOFTMAX = [name for name in TINY if name != "unet2d"]
# (taps, channels in, channels out, sixteenths of the edge) of every convolution at base 1.
RESUNET_LAYERS = [
    *[(27, 1, 1, 16), (27, 2, 2, 8), (27, 4, 4, 4), (27, 8, 8, 2), (27, 16, 16, 1)] * 2,
    *[(8, 1, 2, 8), (8, 2, 4, 4), (8, 4, 8, 2), (8, 8, 16, 1)],
    *[(1, 16, 8, 2), (1, 8, 4, 4), (1, 4, 2, 8), (1, 2, 1, 16)],
    *[(27, 16, 8, 2), (27, 8, 4, 4), (27, 4, 2, 8), (27, 2, 1, 16)],
    *[(27, 8, 8, 2), (27, 4, 4, 4), (27, 2, 2, 8)],
]


def tiny_net(name: str) -> tuple[SegmentationNet, Tensor]:
    torch.manual_seed(3)
    config = TINY[name]
    return config.build(), torch.randn(2, *config.patch_shape)


@pytest.mark.parametrize("name", SOFTMAX)
def test_scores_of_all_classes_sum_to_one_at_every_place(name: str) -> None:
    net, patches = tiny_net(name)
    scores = net.eval()(patches).detach()
    assert scores.shape[:2] == (2, CLASSES.get(name, 2))
    assert scores.shape[-2:] == patches.shape[-2:]
    torch.testing.assert_close(scores.sum(dim=1), torch.ones_like(scores[:, 0]))
    assert float(scores.min()) >= 0.0
    assert float(scores.std()) > 0.0


@pytest.mark.parametrize("name", SOFTMAX)
def test_scores_are_the_softmax_of_the_last_heads_logits(name: str) -> None:
    net, patches = tiny_net(name)
    net.eval()
    last = net.logits(patches)[-1].detach().numpy().astype(np.float64)
    powers = np.exp(last - last.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net(patches).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_gradients_reach_every_parameter(name: str) -> None:
    net, patches = tiny_net(name)
    net.train()
    loss = sum((logits * torch.randn_like(logits)).sum() for logits in net.logits(patches))
    loss.backward()
    dead = [
        label
        for label, weights in net.named_parameters()
        if weights.grad is None or not bool(weights.grad.abs().sum() > 0)
    ]
    assert dead == []


@pytest.mark.parametrize("name", TINY)
def test_the_same_seed_draws_the_same_net_and_another_seed_another(name: str) -> None:
    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([weights.flatten() for weights in TINY[name].build().parameters()])

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))


@pytest.mark.parametrize("name", TINY)
def test_each_patch_of_a_batch_is_scored_by_itself(name: str) -> None:
    net, patches = tiny_net(name)
    net.eval()
    together = net(patches).detach()
    torch.testing.assert_close(net(patches[1:]).detach(), together[1:], atol=1e-4, rtol=0)


def linear_upsampling(coarse: np.ndarray, factor: int) -> np.ndarray:
    """Return the array enlarged by linear interpolation between voxel centres, axis by axis."""
    for axis in range(coarse.ndim):
        size = coarse.shape[axis]
        places = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
        coarse = np.apply_along_axis(
            lambda line, at=places, n=size: np.interp(at, np.arange(n), line), axis, coarse
        )
    return coarse


def test_deep_supervision_brings_four_maps_to_the_patchs_grid() -> None:
    net, patches = tiny_net("resunet3d")
    net.eval()
    layers = net.decoded(patches)
    maps = net.logits(patches)
    assert len(maps) == 4
    for head, layer, found, factor in zip(net.heads, layers, maps, (8, 4, 2, 1), strict=True):
        assert found.shape == (2, 2, 16, 32, 16)
        coarse = head(layer)[1, 0].detach().numpy().astype(np.float64)
        expected = linear_upsampling(coarse, factor)
        np.testing.assert_allclose(found[1, 0].detach().numpy(), expected, atol=1e-5)


def test_only_the_final_head_takes_part_in_scoring() -> None:
    net, patches = tiny_net("resunet3d")
    net.eval()
    before = net(patches).detach()
    for head in net.heads[:-1]:
        nn.init.constant_(head.weight, float("nan"))
    torch.testing.assert_close(net(patches).detach(), before)


def test_the_tumour_net_looks_at_all_five_slices_and_adds_the_centre_one() -> None:
    net, patches = tiny_net("msvnet")
    net.eval()
    before = net(patches).detach()
    for index in range(5):
        changed = patches.clone()
        changed[:, index] += 1.0
        assert float((net(changed).detach() - before).abs().max()) > 1e-4
    # With silent convolutions the first level returns its shortcut: the centre slice, as PReLU.
    nn.init.zeros_(net.encoders[0].convs[-1][0].weight)
    first = net.encoders[0](patches, patches[:, 2:3])
    torch.testing.assert_close(first[:, 1], nn.functional.leaky_relu(patches[:, 2], 0.25))


def test_a_mirrored_net_means_its_scores_over_four_views_and_learns_by_one() -> None:
    torch.manual_seed(5)
    plain = MsVNetConfig(base=4, crop=(32, 16)).build().eval()
    mirrored = MsVNetConfig(base=4, crop=(32, 16), mirrored=True).build().eval()
    mirrored.load_state_dict(plain.state_dict())
    patches = torch.randn(3, 5, 32, 16)
    views = [plain(patches.flip(axes)).flip(axes) for axes in ((), (3,), (2,), (2, 3))]
    assert float((views[0] - views[1]).detach().abs().max()) > 1e-3
    scores = mirrored(patches)
    torch.testing.assert_close(scores, torch.stack(views).mean(dim=0))
    torch.testing.assert_close(mirrored(patches.flip((2,))), scores.flip((2,)))
    torch.testing.assert_close(mirrored.logits(patches), plain.logits(patches))


def test_one_voxel_is_felt_across_the_whole_coarse_window() -> None:
    torch.manual_seed(0)
    net = ResUNet3dConfig(base=2, window=(64, 64, 64)).build().eval()
    patches = torch.randn(1, 1, 64, 64, 64, requires_grad=True)
    net.final_logits(patches)[0, 1, 32, 32, 32].backward()
    felt = patches.grad[0, 0] != 0
    reach = [int(felt.any(dim=tuple({0, 1, 2} - {axis})).sum()) for axis in range(3)]
    assert reach == [64, 64, 64]


def test_the_kidney_net_has_the_parameters_and_operations_derived_by_hand() -> None:
    for preset, base in (("paper", 16), ("small", 8)):
        config = NETS["resunet3d"][preset]
        window = config.patch_shape[1:]
        parameters = sum(2 * (base * width + 1) for width in (8, 4, 2, 1))  # heads
        flop = 2 * base * 2 * int(np.prod(window))  # the final head, over the full window
        for index, (taps, entry, leaving, scale) in enumerate(RESUNET_LAYERS):
            before = 1 if index == 0 else base * entry
            # A doubling convolution has 8 taps of weights, one of which makes each voxel.
            weights = 8 if taps == 1 else taps
            parameters += weights * before * base * leaving + 2 * base * leaving
            voxels = int(np.prod([size * scale // 16 for size in window]))
            flop += 2 * taps * before * base * leaving * voxels
        cost = net_cost(config.build(), config.patch_shape)
        assert cost.parameters == parameters
        assert cost.flop == flop


def test_costs_of_a_single_convolution_are_counted_by_hand() -> None:
    cost = net_cost(nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
    assert cost.parameters == 2 * 9 + 2
    assert cost.flop == 2 * 9 * 2 * 16
    assert cost.gflop == pytest.approx(5.76e-7)


def test_paper_presets_cost_455_and_78_gflop_and_small_ones_fit_10_mb_in_half() -> None:
    cost = {
        (name, preset): net_cost(config.build(), config.patch_shape)
        for name, presets in SYSTEM_NETS["resunet-msvnet"].items()
        for preset, config in presets.items()
    }
    assert cost["resunet3d", "paper"].gflop == pytest.approx(455, abs=1)
    assert cost["msvnet", "paper"].gflop == pytest.approx(78, abs=1)
    # Both small nets together stay under 10 MB when each weight takes two bytes.
    small = [weighed.parameters for key, weighed in cost.items() if key[1] == "small"]
    assert 2 * sum(small) < 10e6


def test_unknown_names_are_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match=r"net is 'u-net'.*'msvnet', 'res-net'"):
        build_net("u-net", "small")
    with pytest.raises(ValueError, match=r"preset of msvnet is 'huge'.*'paper', 'small'"):
        build_net("msvnet", "huge")


def test_sizes_that_four_halvings_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"window is \(64, 100, 96\), every axis must be"):
        ResUNet3dConfig(base=8, window=(64, 100, 96))
    with pytest.raises(ValueError, match=r"crop is \(90, 96\), every axis must be"):
        MsVNetConfig(base=8, crop=(90, 96))
    with pytest.raises(ValueError, match=r"window is \(64, 64, 72\), .* a multiple of 16"):
        VNetConfig(base=4, window=(64, 64, 72), normalised=True)
    with pytest.raises(ValueError, match=r"window is \(32, 64, 72\), .* a multiple of 16"):
        UNet3dConfig(window=(32, 64, 72))
    with pytest.raises(ValueError, match=r"crop is \(90, 96\), every axis must be a multiple of 8"):
        ResUNet25dConfig(base=8, crop=(90, 96))
    with pytest.raises(ValueError, match=r"crop is \(96, 72\), .* a multiple of 16"):
        UNet2dConfig(base=8, crop=(96, 72))


def test_settings_that_make_no_net_are_refused() -> None:
    with pytest.raises(ValueError, match="slices is 4, must be odd"):
        MsVNetConfig(base=8, crop=(96, 96), slices=4)
    with pytest.raises(ValueError, match="slices is 2, must be odd"):
        ResUNet25dConfig(base=8, crop=(96, 96), slices=2)
    with pytest.raises(ValueError, match="slices is 6, must be odd"):
        ResNet25dConfig(width=8, crop=(96, 96), slices=6)
    with pytest.raises(ValueError, match=r"dropout is 1\.0, must be in \[0, 1\)"):
        ResNet25dConfig(width=8, crop=(96, 96), dropout=1.0)
    with pytest.raises(ValueError, match=r"channels are \(16,\), must be of two levels"):
        UNet3dConfig(window=(32, 64, 64), channels=(16,))
