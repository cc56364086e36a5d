"""The 2.5D V-Net that finds tumours: neighbouring slices in, the centre slice's classes out.

On V-Net's skeleton (1, 2, 3, 3 convolutions down; 3, 3, 2, 1 up; PReLU; residual levels) sit the
published additions: at every down-sampling a branch from the down-sampled input itself, a
squeeze-and-excitation module per encoder level, an attention gate in every short connection and
three dilated convolutions at the bottom of the encoder.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kits_trt.nets.attention import AttentionGate, SqueezeExcite
from kits_trt.nets.blocks import (
    BlockKind,
    HybridDilation,
    ResidualConvs,
    SegmentationNet,
    conv_norm_act,
    double,
    halve,
    map_head,
    mirrored_scores,
    require_multiples,
)

LEVELS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MsVNetConfig:
    """Size of a multi-scale V-Net; ``slices`` is odd, ``crop`` the in-plane size (y, x).

    One that is ``mirrored`` gives the mean of the scores of a stack and of its mirror images. Its
    logits, by which it learns, are those of the stack alone.
    """

    base: int
    crop: tuple[int, int]
    slices: int = 5
    classes: int = 2
    kernel: int = 5
    encoder_convs: tuple[int, int, int, int] = (1, 2, 3, 3)
    decoder_convs: tuple[int, int, int, int] = (3, 3, 2, 1)
    dilations: tuple[int, ...] = (2, 3, 5)
    se_reduction: int = 4
    mirrored: bool = False

    def __post_init__(self) -> None:
        """Refuse stacks without a centre slice and crops that four halvings do not divide."""
        if self.slices % 2 == 0:
            raise ValueError(f"slices is {self.slices}, must be odd; take one more or one fewer")
        require_multiples("crop", self.crop, of=2**LEVELS)

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (slice, y, x), the slices standing as channels."""
        return (self.slices, *self.crop)

    def build(self) -> "MsVNet":
        """Return the network with freshly drawn weights."""
        return MsVNet(self)


class MultiScaleDown(nn.Module):
    """A down-sampling that also looks at the input at its own scale.

    The input is averaged over squares to this scale, convolved once, and concatenated with the
    learned down-sampling of the features. The branch fills ``branch`` of the level's channels.
    """

    def __init__(
        self, kind: BlockKind, channels: tuple[int, int], *, slices: int, branch: int, factor: int
    ) -> None:
        super().__init__()
        self.halve = halve(kind, (channels[0], channels[1] - branch))
        self.shrink = nn.AvgPool2d(factor)
        self.look = conv_norm_act(kind, (slices, branch), kernel=3)

    def forward(self, features: Tensor, patches: Tensor) -> Tensor:
        """Return the level's first features, the learned ones before the branch's."""
        return torch.cat((self.halve(features), self.look(self.shrink(patches))), dim=1)


class MsVNet(SegmentationNet):
    """Multi-scale 2.5D V-Net: slice stacks in, scores of background and tumour out."""

    def __init__(self, config: MsVNetConfig) -> None:
        super().__init__()
        kind = BlockKind(ndim=2, kernel=config.kernel, activation="prelu")
        widths = tuple(config.base * 2**level for level in range(LEVELS + 1))
        self.centre = config.slices // 2
        self.mirrored = config.mirrored
        self._build_encoder(kind, widths, config)
        self.bottom = HybridDilation(kind, widths[-1], dilations=config.dilations)
        self._build_decoder(kind, widths[LEVELS - 1 :: -1], config)

    def _build_encoder(
        self, kind: BlockKind, widths: tuple[int, ...], config: MsVNetConfig
    ) -> None:
        entries = (config.slices, *widths[1:LEVELS])
        self.encoders = nn.ModuleList(
            ResidualConvs(kind, (entry, width), convs=convs)
            for entry, width, convs in zip(entries, widths, config.encoder_convs, strict=False)
        )
        self.excites = nn.ModuleList(
            SqueezeExcite(kind, width, reduction=config.se_reduction) for width in widths[:LEVELS]
        )
        self.downs = nn.ModuleList(
            MultiScaleDown(
                kind,
                (widths[level], widths[level + 1]),
                slices=config.slices,
                branch=config.base // 2,
                factor=2 ** (level + 1),
            )
            for level in range(LEVELS)
        )

    def _build_decoder(
        self, kind: BlockKind, rising: tuple[int, ...], config: MsVNetConfig
    ) -> None:
        self.ups = nn.ModuleList(double(kind, (2 * width, width)) for width in rising)
        self.gates = nn.ModuleList(AttentionGate(kind, (width, width)) for width in rising)
        self.decoders = nn.ModuleList(
            ResidualConvs(kind, (2 * width, width), convs=convs)
            for width, convs in zip(rising, config.decoder_convs, strict=True)
        )
        self.head = map_head(kind, rising[-1], config.classes)

    def _encoded(self, patches: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = patches
        shortcut = patches[:, self.centre : self.centre + 1]
        skips: list[Tensor] = []
        for encoder, excite, down in zip(self.encoders, self.excites, self.downs, strict=True):
            skips.append(excite(encoder(features, shortcut)))
            features = shortcut = down(skips[-1], patches)
        return self.bottom(features), skips

    def forward(self, patches: Tensor) -> Tensor:
        """Return scores of the centre slice, of mirror images as well where they are wanted."""
        score = super().forward
        return mirrored_scores(score, patches) if self.mirrored else score(patches)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, y, x) logits of the stack's centre slice."""
        features, skips = self._encoded(patches)
        for up, gate, decoder, skip in zip(
            self.ups, self.gates, self.decoders, reversed(skips), strict=True
        ):
            risen = up(features)
            features = decoder(torch.cat((risen, gate(skip, risen)), dim=1), risen)
        return self.head(features)  # type: ignore[no-any-return]
