"""Draws of initial weights: their spread and their limits, and the nets that use them."""

import math

import pytest
import torch
from torch import Tensor, nn

from kits_trt.nets import net_config
from kits_trt.nets.initialise import (
    convolutions,
    draw_he_normal,
    draw_he_uniform,
    draw_truncated_normal,
    fan_in,
)


def drawn_weights(name: str) -> list[tuple[int, Tensor]]:
    """Return fan-in and weights of the small net's convolutions that have 2000 weights or more."""
    torch.manual_seed(0)
    net = net_config(name, "small").build()
    return [
        (fan_in(layer), layer.weight.detach())
        for layer in convolutions(net)
        if layer.weight.numel() >= 2000
    ]


@pytest.mark.parametrize(
    ("layer", "products"),
    [
        (nn.Conv2d(3, 5, 3), 27),
        (nn.Conv3d(2, 5, 5, stride=2), 250),
        (nn.Conv2d(4, 6, 1), 4),
        (nn.ConvTranspose2d(6, 2, 2, stride=2), 6),
        (nn.ConvTranspose3d(4, 2, 3, stride=2), 16),
    ],
)
def test_fan_in_counts_the_products_behind_one_voxel(layer: nn.Module, products: int) -> None:
    assert fan_in(layer) == products


@pytest.mark.parametrize("draw", [draw_he_normal, draw_he_uniform])
def test_he_draws_double_the_variance_of_what_comes_in(draw: object) -> None:
    torch.manual_seed(0)
    flat, rising = nn.Conv2d(64, 64, 3), nn.ConvTranspose2d(64, 64, 2, stride=2)
    net = nn.Sequential(flat, rising)
    draw(net)
    noise = torch.randn(4, 64, 40, 40)
    with torch.no_grad():
        assert flat(noise).var().item() == pytest.approx(2.0, rel=0.05)
        assert rising(noise).var().item() == pytest.approx(2.0, rel=0.05)


def test_drawn_biases_are_zero_and_normalisations_stay_as_they_were() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    nn.init.constant_(net[0].bias, 1.0)
    nn.init.constant_(net[1].weight, 3.0)
    draw_truncated_normal(net, std=0.1)
    assert net[0].bias.tolist() == [0.0, 0.0, 0.0]
    assert net[1].weight.tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", ["roi-vnet", "kidney-unet", "tumour-unet"])
def test_vnets_and_2d_unets_are_gaussian_of_variance_2_over_fan_in(name: str) -> None:
    for fan, weights in drawn_weights(name):
        scaled = weights.flatten() * math.sqrt(fan / 2)
        error = 4 / math.sqrt(scaled.numel())
        assert scaled.mean().item() == pytest.approx(0.0, abs=error)
        assert scaled.std().item() == pytest.approx(1.0, abs=error)
        # A Gaussian has 4.55 % beyond two deviations.
        assert (scaled.abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=error)


@pytest.mark.parametrize("name", ["res-unet-1", "res-unet-2"])
def test_res_unets_are_gaussian_of_a_tenth_cut_at_two_deviations(name: str) -> None:
    for _, weights in drawn_weights(name):
        error = 0.4 / math.sqrt(weights.numel())
        assert weights.abs().max().item() <= 0.2 + 1e-6
        assert weights.mean().item() == pytest.approx(0.0, abs=error)
        # The variance that is left is 1 - 2 * 2 * phi(2) / (2 * Phi(2) - 1) = 0.7737 of the whole.
        assert weights.std().item() == pytest.approx(0.1 * math.sqrt(0.7737), abs=error)


def test_the_res_net_is_uniform_between_the_roots_of_6_over_fan_in() -> None:
    for fan, weights in drawn_weights("res-net"):
        scaled = weights.flatten() * math.sqrt(fan / 6)
        assert 0.99 < scaled.abs().max().item() <= 1.0 + 1e-6
        assert scaled.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)
