"""The Res-Net of the multi-stage system, the second opinion on the same slice stacks.

From the paper: residual blocks with dropout of 0.5 and batch normalisation with pre-activation,
five slices in, three classes by softmax, He-uniform weights.

Inferred, since the paper leaves the rest to a figure and to the work it takes the net from, 2D
networks of dilated convolutions for organs in CT: the net never leaves the input's resolution, and
its view grows by dilation. Six blocks of two 3x3 convolutions with the rates 1, 2, 4, 8, 16, 1 see
131 x 131 pixels, as such networks customarily do, and have 32 channels throughout. Dropout stands
between activation and convolution, in front of both convolutions of every block.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from kits_trt.nets.blocks import (
    BlockKind,
    SegmentationNet,
    activation,
    convolution,
    map_head,
    normalisation,
)
from kits_trt.nets.initialise import draw_he_uniform
from kits_trt.nets.preactivated import Residual, pre_activated


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet25dConfig:
    """Size of a Res-Net; ``slices`` is odd, ``crop`` the in-plane size (y, x)."""

    width: int
    crop: tuple[int, int]
    slices: int = 5
    classes: int = 3
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 1)
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse stacks without a centre slice and dropout that leaves nothing."""
        if self.slices % 2 == 0:
            raise ValueError(f"slices is {self.slices}, must be odd; take one more or one fewer")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}, must be in [0, 1); choose 0 for none")

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch: (slice, y, x), the slices standing as channels."""
        return (self.slices, *self.crop)

    def build(self) -> "ResNet25d":
        """Return the network with freshly drawn weights."""
        return ResNet25d(self)


class ResNet25d(SegmentationNet):
    """2.5D Res-Net: slice stacks in, scores of background, kidney and tumour out."""

    def __init__(self, config: ResNet25dConfig) -> None:
        super().__init__()
        kind = BlockKind(ndim=2, kernel=3, activation="relu")
        pair = (config.width, config.width)
        self.opening = convolution(kind, (config.slices, config.width), kernel=3)
        self.blocks = nn.Sequential(
            *(
                Residual(
                    kind,
                    pair,
                    layers=nn.Sequential(
                        pre_activated(kind, pair, dilation=rate, dropout=config.dropout),
                        pre_activated(kind, pair, dilation=rate, dropout=config.dropout),
                    ),
                )
                for rate in config.dilations
            )
        )
        self.head = nn.Sequential(
            normalisation(kind, config.width),
            activation(kind, config.width),
            map_head(kind, config.width, config.classes),
        )
        draw_he_uniform(self)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return (batch, class, y, x) logits of the stack's centre slice."""
        return self.head(self.blocks(self.opening(patches)))  # type: ignore[no-any-return]
