"""Initial weights as papers prescribe them: convolutions are drawn, their biases are zero."""

import math
from collections.abc import Callable

from torch import Tensor, nn

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d


def convolutions(net: nn.Module) -> list[Convolution]:
    """Return the network's convolutions, transposed ones among them, in the order of building."""
    return [layer for layer in net.modules() if isinstance(layer, Convolution)]


def fan_in(layer: Convolution) -> int:
    """Return how many products are summed into one voxel of the layer's output.

    A transposed convolution spreads its taps: with stride s each voxel gets 1 in s of them on
    every axis (on average, where the kernel is no multiple of the stride).
    """
    taps = math.prod(layer.kernel_size)
    if layer.transposed:
        taps = math.ceil(taps / math.prod(layer.stride))
    return layer.in_channels // layer.groups * taps


def draw_he_normal(net: nn.Module) -> None:
    """Draw from a Gaussian of zero mean and variance 2 / fan-in (He et al., ICCV 2015)."""
    _draw(net, lambda weights, fan: nn.init.normal_(weights, std=math.sqrt(2 / fan)))


def draw_he_uniform(net: nn.Module) -> None:
    """Draw uniformly with variance 2 / fan-in (He et al., ICCV 2015)."""
    _draw(
        net,
        lambda weights, fan: nn.init.uniform_(weights, -math.sqrt(6 / fan), math.sqrt(6 / fan)),
    )


def draw_truncated_normal(net: nn.Module, *, std: float) -> None:
    """Draw from a Gaussian of zero mean, again and again until within two ``std``.

    ``std`` is that of the Gaussian before it is cut, as TensorFlow counts it; what is left has
    0.88 of it.
    """
    _draw(
        net,
        lambda weights, _fan: nn.init.trunc_normal_(weights, std=std, a=-2 * std, b=2 * std),
    )


def _draw(net: nn.Module, draw: Callable[[Tensor, int], Tensor]) -> None:
    for layer in convolutions(net):
        draw(layer.weight, fan_in(layer))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
