"""The 3D U-Net of MONAI, as the published baseline uses it.

Five levels of 16 to 256 channels; each level on the way down but the last is a residual unit of
two convolutions whose first has stride 2, each level on the way up a transposed convolution and a
residual unit of one; batch normalisation after each convolution, then PReLU with one slope a layer.

Written out here rather than built by MONAI, for two reasons: networks must be importable, and
exportable, where MONAI is not installed; and MONAI gives every convolution a bias, of which those
in front of a normalisation cannot learn anything. Without those biases the function is the same,
which a test holds against MONAI's own network with the same weights. Parameters lie in MONAI's
order. The paper does not give the channels; these are MONAI's customary ones, as are the two
convolutions of a unit. Initial weights are torch's own, as in MONAI.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_trt.nets.blocks import SegmentationNet, require_multiples


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet3dConfig:
    """Size of the 3D U-Net: ``channels`` of its levels, finest first."""

    window: tuple[int, int, int]
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    classes: int = 3

    def __post_init__(self) -> None:
        """Refuse a net of one level and windows that its strides do not divide."""
        if len(self.channels) < 2:
            raise ValueError(
                f"channels are {self.channels}, must be of two levels or more; add a level"
            )
        require_multiples("window", self.window, of=2 ** (len(self.channels) - 1))

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (channel, z, y, x)."""
        return (1, *self.window)

    def build(self) -> "UNet3d":
        """Return the network with freshly drawn weights."""
        return UNet3d(self)


def _norm_act(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm3d(channels), nn.PReLU())


def _conv(channels: tuple[int, int], *, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv3d(*channels, 3, stride=stride, padding=1, bias=False)
    return _norm_act(layer, channels[1])


class ResidualUnit(nn.Module):
    """Two convolutions beside one linear convolution, added after the last activation.

    The linear one has the first one's stride; its kernel is 3 where it strides and 1 where it only
    changes channels.
    """

    def __init__(self, channels: tuple[int, int], *, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _conv(channels, stride=stride), _conv((channels[1], channels[1]))
        )
        kernel = 1 if stride == 1 else 3
        self.shortcut = nn.Conv3d(*channels, kernel, stride=stride, padding=kernel // 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both ways."""
        return self.convs(features) + self.shortcut(features)  # type: ignore[no-any-return]


class Rise(nn.Module):
    """A transposed convolution of stride 2 and one convolution with a residual link.

    At the top of the net, ``last``, that convolution is linear and the sum is the logits.
    """

    def __init__(self, channels: tuple[int, int], *, last: bool) -> None:
        super().__init__()
        rising = nn.ConvTranspose3d(*channels, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.up = _norm_act(rising, channels[1])
        pair = (channels[1], channels[1])
        self.conv = nn.Conv3d(*pair, 3, padding=1) if last else _conv(pair)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features at twice the size."""
        risen = self.up(features)
        return self.conv(risen) + risen  # type: ignore[no-any-return]


class Level(nn.Module):
    """One level around all coarser ones: down, what lies below, both concatenated, up."""

    def __init__(self, entry: int, leaving: int, *, channels: tuple[int, ...], top: bool) -> None:
        super().__init__()
        width = channels[0]
        self.down = ResidualUnit((entry, width), stride=2)
        if len(channels) > 2:
            self.below: nn.Module = Level(width, width, channels=channels[1:], top=False)
            merged = 2 * width
        else:
            self.below = ResidualUnit((width, channels[1]), stride=1)
            merged = width + channels[1]
        self.up = Rise((merged, leaving), last=top)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the size that came in."""
        down = self.down(features)
        return self.up(torch.cat((down, self.below(down)), dim=1))  # type: ignore[no-any-return]


class UNet3d(SegmentationNet):
    """MONAI's 3D U-Net: windows of a scan in, scores of background, kidney and tumour out."""

    def __init__(self, config: UNet3dConfig) -> None:
        super().__init__()
        self.levels = Level(1, config.classes, channels=config.channels, top=True)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, z, y, x) logits."""
        return self.levels(patches)  # type: ignore[no-any-return]
