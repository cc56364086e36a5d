"""Building blocks that several networks share, in two and in three dimensions.

Every convolution that is followed by a batch normalisation has no bias of its own: the
normalisation's shift does its work, and export folds both into one convolution. In a kind that is
not normalised the same layers have a bias instead.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "prelu"]

_CONVOLUTIONS: Mapping[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Mapping[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_NORMALISATIONS: Mapping[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
_MIRRORS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))  # of (batch, channel, y, x)
_ACTIVATIONS: Mapping[Activation, Callable[[int], nn.Module]] = {
    "relu": lambda _channels: nn.ReLU(inplace=True),
    "prelu": lambda channels: nn.PReLU(channels),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockKind:
    """What the layers of one network have in common."""

    ndim: Literal[2, 3]
    kernel: int
    activation: Activation
    normalised: bool = True

    def __post_init__(self) -> None:
        """Refuse kernels that have no centre."""
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}, must be odd and positive; choose 3 or 5")


def require_multiples(what: str, sizes: tuple[int, ...], *, of: int) -> None:
    """Refuse a window or crop that the halvings of a net do not divide.

    Raises:
        ValueError: An axis is no multiple.
    """
    if any(size % of for size in sizes):
        raise ValueError(f"{what} is {sizes}, every axis must be a multiple of {of}; pad it")


class SegmentationNet(nn.Module):
    """A network that scores classes: ``logits`` for losses, calling it for scores.

    Training needs the raw outputs of every head, export and inference need the scores of one.
    They are two functions, so that neither result depends on ``train()`` or ``eval()``.
    """

    def logits(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Return (batch, class, ...) logits of every head on the patch's grid, final head last."""
        return (self.final_logits(patches),)

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return the logits of the final head alone, without computing the other heads."""
        raise NotImplementedError

    def forward(self, patches: Tensor) -> Tensor:
        """Return scores: the softmax over classes of the final head."""
        return torch.softmax(self.final_logits(patches), dim=1)


def mirrored_scores(score: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """Return the mean of the scores of patches and of their three mirror images in plane.

    All four are scored at once, as four patches. A mirror is written as a choice of rows or
    columns, which every engine has, and not as a slice with a negative step.
    """
    views = torch.stack([_mirrored(patches, axes) for axes in _MIRRORS], dim=1)
    scores = score(views.flatten(0, 1))
    scores = scores.reshape(-1, len(_MIRRORS), *scores.shape[1:])
    total = scores[:, 0]
    for place, axes in enumerate(_MIRRORS[1:], start=1):
        total = total + _mirrored(scores[:, place], axes)
    return total * (1 / len(_MIRRORS))


def _mirrored(values: Tensor, axes: Sequence[int]) -> Tensor:
    for axis in axes:
        backwards = torch.arange(values.shape[axis] - 1, -1, -1, device=values.device)
        values = values.index_select(axis, backwards)
    return values


def activation(kind: BlockKind, channels: int) -> nn.Module:
    """Return the activation of this kind; PReLU has one slope a channel, starting at 0.25."""
    return _ACTIVATIONS[kind.activation](channels)


def normalisation(kind: BlockKind, channels: int) -> nn.Module:
    """Return the batch normalisation of this kind, whether or not the kind is normalised."""
    return _NORMALISATIONS[kind.ndim](channels)


def convolution(
    kind: BlockKind, channels: tuple[int, int], *, kernel: int, stride: int = 1, dilation: int = 1
) -> nn.Module:
    """Return a bare convolution without bias that keeps the size, or divides it by the stride."""
    return _CONVOLUTIONS[kind.ndim](
        *channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        bias=False,
    )


def raising(kind: BlockKind, channels: tuple[int, int]) -> nn.Module:
    """Return a bare transposed convolution without bias: kernel 2, stride 2 on every axis."""
    return _TRANSPOSED[kind.ndim](*channels, 2, stride=2, bias=False)


def conv_norm(
    kind: BlockKind, channels: tuple[int, int], *, kernel: int | None = None, dilation: int = 1
) -> nn.Sequential:
    """Return a convolution from ``channels[0]`` to ``channels[1]`` that keeps the size, and BN."""
    size = kind.kernel if kernel is None else kernel
    layer = _CONVOLUTIONS[kind.ndim](
        *channels,
        size,
        padding=dilation * (size // 2),
        dilation=dilation,
        bias=not kind.normalised,
    )
    return _normed(kind, layer, channels[1])


def conv_norm_act(
    kind: BlockKind, channels: tuple[int, int], *, kernel: int | None = None, dilation: int = 1
) -> nn.Sequential:
    """Return ``conv_norm`` followed by the activation."""
    layers = conv_norm(kind, channels, kernel=kernel, dilation=dilation)
    return layers.append(activation(kind, channels[1]))


def halve(kind: BlockKind, channels: tuple[int, int]) -> nn.Sequential:
    """Return a learned down-sampling: kernel 2, stride 2 on every axis, BN, activation."""
    layer = _CONVOLUTIONS[kind.ndim](*channels, 2, stride=2, bias=not kind.normalised)
    return _normed(kind, layer, channels[1]).append(activation(kind, channels[1]))


def double(kind: BlockKind, channels: tuple[int, int]) -> nn.Sequential:
    """Return a learned up-sampling: transposed kernel 2, stride 2 on every axis, BN, activation."""
    layer = _TRANSPOSED[kind.ndim](*channels, 2, stride=2, bias=not kind.normalised)
    return _normed(kind, layer, channels[1]).append(activation(kind, channels[1]))


def _normed(kind: BlockKind, layer: nn.Module, channels: int) -> nn.Sequential:
    layers = nn.Sequential(layer)
    return layers.append(normalisation(kind, channels)) if kind.normalised else layers


def map_head(kind: BlockKind, channels: int, classes: int) -> nn.Module:
    """Return the 1x1 convolution that maps features to one logit a class."""
    return _CONVOLUTIONS[kind.ndim](channels, classes, 1)


class ResidualConvs(nn.Module):
    """A run of convolutions whose result is added to a shortcut before the last activation.

    The shortcut is what entered the layer once it has the layer's resolution, as in V-Net: the
    output of the down-sampling on the way down, of the up-sampling on the way up.
    """

    def __init__(self, kind: BlockKind, channels: tuple[int, int], *, convs: int) -> None:
        super().__init__()
        inner = [conv_norm_act(kind, channels)] if convs > 1 else []
        inner += [conv_norm_act(kind, (channels[1], channels[1])) for _ in range(convs - 2)]
        last = conv_norm(kind, (channels[1] if convs > 1 else channels[0], channels[1]))
        self.convs = nn.Sequential(*inner, last)
        self.activation = activation(kind, channels[1])

    def forward(self, features: Tensor, shortcut: Tensor) -> Tensor:
        """Return ``activation(convs(features) + shortcut)``; one channel is added to all."""
        return self.activation(self.convs(features) + shortcut)  # type: ignore[no-any-return]


class HybridDilation(nn.Module):
    """3x3 convolutions of growing dilation, one after the other, inside one residual link.

    The rates share no factor, so that each fills the holes which the one before leaves
    (hybrid dilated convolution, Wang et al., WACV 2018).
    """

    def __init__(self, kind: BlockKind, channels: int, *, dilations: tuple[int, ...]) -> None:
        super().__init__()
        pair = (channels, channels)
        inner = [conv_norm_act(kind, pair, kernel=3, dilation=rate) for rate in dilations[:-1]]
        self.convs = nn.Sequential(*inner, conv_norm(kind, pair, kernel=3, dilation=dilations[-1]))
        self.activation = activation(kind, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``activation(convs(features) + features)``."""
        return self.activation(self.convs(features) + features)  # type: ignore[no-any-return]
