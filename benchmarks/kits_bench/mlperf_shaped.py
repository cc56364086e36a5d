"""A sixth net, for speed alone, of the shape that the public inference suite runs on KiTS.

A 3D U-Net on windows of 128 x 128 x 128 that overlap by half and are weighted by a Gaussian, with
instance normalisation, some 955 GFLOP a window. Weights are random and nothing is scored: what
comes out is windows a second, **not an MLPerf result**. It is not one of the five systems.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_bench.sixth_net import WINDOW_VOX
from kits_trt.nets import SegmentationNet


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceUNet3dConfig:
    """Size of the net; each level but the finest halves the window."""

    window: tuple[int, int, int] = WINDOW_VOX
    channels: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    classes: int = 3

    def __post_init__(self) -> None:
        """Refuse windows that the halvings do not divide."""
        stride = 2 ** (len(self.channels) - 1)
        if any(size % stride for size in self.window):
            raise ValueError(
                f"window is {self.window}, every axis must be a multiple of {stride}; pad it"
            )

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (channel, z, y, x)."""
        return (1, *self.window)

    def build(self) -> "InstanceUNet3d":
        """Return the network with freshly drawn weights."""
        return InstanceUNet3d(self)


class InstanceNorm(nn.Module):
    """Instance normalisation in plain operators, which every engine has kernels for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return each channel of each window at zero mean and unit variance, scaled, shifted."""
        centred = features - features.mean(dim=(2, 3, 4), keepdim=True)
        variance = (centred * centred).mean(dim=(2, 3, 4), keepdim=True)
        return centred / (variance + 1e-5).sqrt() * self.scale + self.shift


def _conv(channels: tuple[int, int], *, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv3d(*channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, InstanceNorm(channels[1]), nn.ReLU())


class InstanceUNet3d(SegmentationNet):
    """Two convolutions a level, strides down, transposed convolutions up."""

    def __init__(self, config: InstanceUNet3dConfig) -> None:
        super().__init__()
        widths = config.channels
        self.first = nn.Sequential(_conv((1, widths[0])), _conv((widths[0], widths[0])))
        self.downs = nn.ModuleList(
            nn.Sequential(_conv((upper, lower), stride=2), _conv((lower, lower)))
            for upper, lower in itertools.pairwise(widths)
        )
        pairs = list(itertools.pairwise(widths))[::-1]
        self.rises = nn.ModuleList(
            nn.ConvTranspose3d(lower, upper, 2, stride=2, bias=False) for upper, lower in pairs
        )
        self.ups = nn.ModuleList(
            nn.Sequential(_conv((2 * upper, upper)), _conv((upper, upper))) for upper, _ in pairs
        )
        self.head = nn.Conv3d(widths[0], config.classes, 1)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, z, y, x) logits."""
        features = self.first(patches)
        skips = []
        for down in self.downs:
            skips.append(features)
            features = down(features)
        for rise, up, skip in zip(self.rises, self.ups, skips[::-1], strict=True):
            features = up(torch.cat((rise(features), skip), dim=1))
        return self.head(features)  # type: ignore[no-any-return]
