"""The 3D ResUNet that finds the kidneys: residual encoder and decoder, one map head a level.

All strides are 2 on every axis. On the grids this network sees the voxels are nearly cubes
(2 x 1.6 x 1.6 mm as published: 2 mm slices, 512 pixels of 0.8 mm brought to 256), so there is no
axis to spare. Four halvings turn 64 slices into 4, which is why windows are multiples of 16.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from kits_trt.nets.blocks import (
    BlockKind,
    ResidualConvs,
    SegmentationNet,
    double,
    halve,
    map_head,
    require_multiples,
)

LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ResUNet3dConfig:
    """Size of a 3D ResUNet.

    ``encoder_convs`` and ``decoder_convs`` count the convolutions of the four layers in the order
    in which data meets them; the bridge lies between, at a sixteenth of the resolution.
    """

    base: int
    window: tuple[int, int, int]
    classes: int = 2
    encoder_convs: tuple[int, int, int, int] = (2, 2, 2, 2)
    bridge_convs: int = 2
    decoder_convs: tuple[int, int, int, int] = (2, 2, 2, 1)

    def __post_init__(self) -> None:
        """Refuse windows that four halvings do not divide."""
        require_multiples("window", self.window, of=2**LEVELS)

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (channel, z, y, x)."""
        return (1, *self.window)

    def build(self) -> "ResUNet3d":
        """Return the network with freshly drawn weights."""
        return ResUNet3d(self)


class ResUNet3d(SegmentationNet):
    """3D ResUNet: windows of a scan in, scores of background and kidney out."""

    def __init__(self, config: ResUNet3dConfig) -> None:
        super().__init__()
        kind = BlockKind(ndim=3, kernel=3, activation="relu")
        widths = tuple(config.base * 2**level for level in range(LEVELS + 1))
        entries = (1, *widths[1:LEVELS])
        self.encoders = nn.ModuleList(
            ResidualConvs(kind, (entry, width), convs=convs)
            for entry, width, convs in zip(entries, widths, config.encoder_convs, strict=False)
        )
        self.downs = nn.ModuleList(halve(kind, pair) for pair in itertools.pairwise(widths))
        self.bridge = ResidualConvs(kind, (widths[-1], widths[-1]), convs=config.bridge_convs)
        rising = widths[LEVELS - 1 :: -1]
        self.ups = nn.ModuleList(double(kind, (2 * width, width)) for width in rising)
        self.decoders = nn.ModuleList(
            ResidualConvs(kind, (2 * width, width), convs=convs)
            for width, convs in zip(rising, config.decoder_convs, strict=True)
        )
        self.heads = nn.ModuleList(map_head(kind, width, config.classes) for width in rising)

    def decoded(self, patches: Tensor) -> list[Tensor]:
        """Return the features of the four decoder layers, coarsest first."""
        features = patches
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features, features))
            features = down(skips[-1])
        features = self.bridge(features, features)
        outputs: list[Tensor] = []
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            risen = up(features)
            features = decoder(torch.cat((risen, skip), dim=1), risen)
            outputs.append(features)
        return outputs

    def logits(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Return four logit maps on the patch's grid, from the coarsest layer to the finest."""
        maps = [head(layer) for head, layer in zip(self.heads, self.decoded(patches), strict=True)]
        risen = [
            functional.interpolate(
                coarse, scale_factor=float(2**steps), mode="trilinear", align_corners=False
            )
            for coarse, steps in zip(maps[:-1], range(LEVELS - 1, 0, -1), strict=True)
        ]
        return (*risen, maps[-1])

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return the logits of the finest layer's head."""
        return self.heads[-1](self.decoded(patches)[-1])  # type: ignore[no-any-return]
