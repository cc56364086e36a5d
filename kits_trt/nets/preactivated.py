"""Pre-activated residual blocks (He et al., ECCV 2016): normalise and activate, then convolve.

Nothing here has a bias: what a bias would add travels along the linear shortcuts as a constant and
is removed by the normalisation in front of the network's head.
"""

from torch import Tensor, nn

from kits_trt.nets.blocks import BlockKind, activation, convolution, normalisation


def pre_activated(
    kind: BlockKind,
    channels: tuple[int, int],
    *,
    stride: int = 1,
    dilation: int = 1,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return BN, activation, dropout (if any) and a convolution, in this order."""
    layers = nn.Sequential(normalisation(kind, channels[0]), activation(kind, channels[0]))
    if dropout > 0.0:
        layers.append(nn.Dropout(dropout))
    return layers.append(
        convolution(kind, channels, kernel=kind.kernel, stride=stride, dilation=dilation)
    )


class Residual(nn.Module):
    """Layers whose result is added to what came in.

    Where channels or size change, a linear 1x1 convolution with the stride makes what came in fit.
    """

    def __init__(
        self, kind: BlockKind, channels: tuple[int, int], *, layers: nn.Module, stride: int = 1
    ) -> None:
        super().__init__()
        self.layers = layers
        fits = channels[0] == channels[1] and stride == 1
        self.shortcut = (
            nn.Identity() if fits else convolution(kind, channels, kernel=1, stride=stride)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both ways; nothing follows it."""
        return self.layers(features) + self.shortcut(features)  # type: ignore[no-any-return]
