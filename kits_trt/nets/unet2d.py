"""The 2D U-Net that is used twice: for kidney with tumour, and for tumour alone.

The original U-Net: five levels of 64 to 1024 channels, two 3x3 convolutions with ReLU in each,
maximum pooling, up-convolutions of 2x2, concatenation, no normalisation. As the paper changes it:
one channel with a sigmoid in place of two with a softmax, weights from a Gaussian, biases zero.

Ours: convolutions are padded, so that scores have the size of what comes in (the original's lose
92 pixels a side, and the paper's sizes leave no room for that); the Gaussian's variance, of which
the paper says nothing, is 2 / fan-in, the original's; the original's dropout at the bottom, of
which the paper says nothing either, is left out.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_trt.nets.blocks import (
    BlockKind,
    SegmentationNet,
    conv_norm_act,
    map_head,
    require_multiples,
)
from kits_trt.nets.initialise import draw_he_normal

LEVELS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class UNet2dConfig:
    """Size of a 2D U-Net; ``crop`` is the in-plane size (y, x)."""

    base: int
    crop: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse crops that four halvings do not divide."""
        require_multiples("crop", self.crop, of=2 ** (LEVELS - 1))

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (channel, y, x)."""
        return (1, *self.crop)

    @property
    def classes(self) -> int:
        """Output channels: the score of the one structure that the net knows."""
        return 1

    def build(self) -> "UNet2d":
        """Return the network with freshly drawn weights."""
        return UNet2d(self)


class UNet2d(SegmentationNet):
    """2D U-Net: slices in, scores of one structure out."""

    def __init__(self, config: UNet2dConfig) -> None:
        super().__init__()
        kind = BlockKind(ndim=2, kernel=3, activation="relu", normalised=False)
        widths = tuple(config.base * 2**level for level in range(LEVELS))
        entries = itertools.pairwise((1, *widths))
        self.encoders = nn.ModuleList(_pair(kind, channels) for channels in entries)
        self.pool = nn.MaxPool2d(2)
        rising = widths[LEVELS - 2 :: -1]
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in rising)
        self.decoders = nn.ModuleList(_pair(kind, (2 * width, width)) for width in rising)
        self.head = map_head(kind, widths[0], 1)
        draw_he_normal(self)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, 1, y, x) logits of the structure."""
        features = self.encoders[0](patches)
        skips: list[Tensor] = []
        for encoder in self.encoders[1:]:
            skips.append(features)
            features = encoder(self.pool(features))
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            features = decoder(torch.cat((skip, up(features)), dim=1))
        return self.head(features)  # type: ignore[no-any-return]

    def forward(self, patches: Tensor) -> Tensor:
        """Return scores: the sigmoid of the one channel."""
        return torch.sigmoid(self.final_logits(patches))


def _pair(kind: BlockKind, channels: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        conv_norm_act(kind, channels), conv_norm_act(kind, (channels[1], channels[1]))
    )
