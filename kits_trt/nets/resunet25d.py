"""The Res-UNet of the multi-stage system: five slices in, the classes of the middle one out.

Four levels of pre-activated residual blocks of two convolutions with 1x1 linear shortcuts; the
blocks two to four have stride 2; on the way up a transposed convolution of stride 2 and a
concatenation stand before every block; weights from a truncated normal of 0.1.

Ours, since the text leaves it to a figure: the widths, 32 channels at the top and twice as many at
each level. With 64, what training on 32 stacks of 256 x 256 must keep (some 12 maps of 537 MB at
the top, half as much at each level) is more than the paper's card of 11 GB holds. Ours as well: the
coarsest of the four levels has no decoding block of its own; the first block begins with its
convolution, as activating the scan itself would blank everything below its mean; normalisation and
activation stand before the head, as in the work on pre-activation that the paper cites; transposed
kernels of 2.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_trt.nets.blocks import (
    BlockKind,
    SegmentationNet,
    activation,
    convolution,
    map_head,
    normalisation,
    raising,
    require_multiples,
)
from kits_trt.nets.initialise import draw_truncated_normal
from kits_trt.nets.preactivated import Residual, pre_activated

LEVELS = 4
INITIAL_STD = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResUNet25dConfig:
    """Size of a Res-UNet; ``slices`` is odd, ``crop`` the in-plane size (y, x)."""

    base: int
    crop: tuple[int, int]
    slices: int = 5
    classes: int = 3

    def __post_init__(self) -> None:
        """Refuse stacks without a centre slice and crops that three halvings do not divide."""
        if self.slices % 2 == 0:
            raise ValueError(f"slices is {self.slices}, must be odd; take one more or one fewer")
        require_multiples("crop", self.crop, of=2 ** (LEVELS - 1))

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (slice, y, x), the slices standing as channels."""
        return (self.slices, *self.crop)

    def build(self) -> "ResUNet25d":
        """Return the network with freshly drawn weights."""
        return ResUNet25d(self)


class ResUNet25d(SegmentationNet):
    """2.5D Res-UNet: slice stacks in, scores of background, kidney and tumour out."""

    def __init__(self, config: ResUNet25dConfig) -> None:
        super().__init__()
        kind = BlockKind(ndim=2, kernel=3, activation="relu")
        widths = tuple(config.base * 2**level for level in range(LEVELS))
        self.encoders = nn.ModuleList([_opening(kind, (config.slices, widths[0]))])
        self.encoders.extend(_block(kind, pair, stride=2) for pair in itertools.pairwise(widths))
        rising = widths[LEVELS - 2 :: -1]
        self.ups = nn.ModuleList(raising(kind, (2 * width, width)) for width in rising)
        self.decoders = nn.ModuleList(
            _block(kind, (2 * width, width), stride=1) for width in rising
        )
        self.head = nn.Sequential(
            normalisation(kind, widths[0]),
            activation(kind, widths[0]),
            map_head(kind, widths[0], config.classes),
        )
        draw_truncated_normal(self, std=INITIAL_STD)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, y, x) logits of the stack's centre slice."""
        features = patches
        skips: list[Tensor] = []
        for encoder in self.encoders:
            features = encoder(features)
            skips.append(features)
        for up, decoder, skip in zip(self.ups, self.decoders, skips[-2::-1], strict=True):
            features = decoder(torch.cat((up(features), skip), dim=1))
        return self.head(features)  # type: ignore[no-any-return]


def _block(kind: BlockKind, channels: tuple[int, int], *, stride: int) -> Residual:
    layers = nn.Sequential(
        pre_activated(kind, channels, stride=stride),
        pre_activated(kind, (channels[1], channels[1])),
    )
    return Residual(kind, channels, layers=layers, stride=stride)


def _opening(kind: BlockKind, channels: tuple[int, int]) -> Residual:
    layers = nn.Sequential(
        convolution(kind, channels, kernel=kind.kernel),
        pre_activated(kind, (channels[1], channels[1])),
    )
    return Residual(kind, channels, layers=layers)
