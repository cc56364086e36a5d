"""V-Net, which the cascade uses three times: for the box, for the kidney, for the tumour.

Four levels with 1, 2, 3, 3 convolutions of 5x5x5 down and 3, 3, 2, 1 up, PReLU, learned strides,
two classes. Between the two sides lies V-Net's bottom level with three convolutions, which the
paper's count leaves out and its figure (V-Net's own) shows. Widths are V-Net's: 16 channels at the
top, doubled at every halving; on the way up each level keeps what it concatenates, 32 to 256
channels, and adds it to its last convolution.

Neither this paper nor V-Net's mentions normalisation, and ``paper`` has none. ``small`` has batch
normalisation, which is ours, so that it can be trained briefly. The He-normal draw is ours too.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_trt.nets.blocks import (
    BlockKind,
    ResidualConvs,
    SegmentationNet,
    double,
    halve,
    map_head,
    require_multiples,
)
from kits_trt.nets.initialise import draw_he_normal

LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class VNetConfig:
    """Size of a V-Net; convolutions are counted in the order in which data meets the levels."""

    base: int
    window: tuple[int, int, int]
    normalised: bool
    classes: int = 2
    kernel: int = 5
    encoder_convs: tuple[int, int, int, int] = (1, 2, 3, 3)
    bottom_convs: int = 3
    decoder_convs: tuple[int, int, int, int] = (3, 3, 2, 1)

    def __post_init__(self) -> None:
        """Refuse windows that four halvings do not divide."""
        require_multiples("window", self.window, of=2**LEVELS)

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (channel, z, y, x)."""
        return (1, *self.window)

    def build(self) -> "VNet":
        """Return the network with freshly drawn weights."""
        return VNet(self)


class VNet(SegmentationNet):
    """V-Net: windows of a scan in, scores of background and one structure out."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        kind = BlockKind(
            ndim=3, kernel=config.kernel, activation="prelu", normalised=config.normalised
        )
        widths = tuple(config.base * 2**level for level in range(LEVELS + 1))
        entries = (1, *widths[1:LEVELS])
        self.encoders = nn.ModuleList(
            ResidualConvs(kind, (entry, width), convs=convs)
            for entry, width, convs in zip(entries, widths, config.encoder_convs, strict=False)
        )
        self.downs = nn.ModuleList(halve(kind, pair) for pair in itertools.pairwise(widths))
        self.bottom = ResidualConvs(kind, (widths[-1], widths[-1]), convs=config.bottom_convs)
        rising = widths[LEVELS - 1 :: -1]
        below = (widths[-1], *(2 * width for width in rising[:-1]))
        self.ups = nn.ModuleList(double(kind, pair) for pair in zip(below, rising, strict=True))
        self.decoders = nn.ModuleList(
            ResidualConvs(kind, (2 * width, 2 * width), convs=convs)
            for width, convs in zip(rising, config.decoder_convs, strict=True)
        )
        self.head = map_head(kind, 2 * rising[-1], config.classes)
        draw_he_normal(self)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, z, y, x) logits."""
        features = patches
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features, features))
            features = down(skips[-1])
        features = self.bottom(features, features)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            merged = torch.cat((up(features), skip), dim=1)
            features = decoder(merged, merged)
        return self.head(features)  # type: ignore[no-any-return]
