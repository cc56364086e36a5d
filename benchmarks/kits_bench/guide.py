"""Nets of seeded weights that find something: the system's own net plus a small fitted guide.

How long a cascade takes depends on what its first stage finds, so freely drawn weights, whose masks
are noise, would measure nothing. A guide is a few seeded convolutions on a coarse copy of the
patch, whose last layer alone is fitted by least squares to phantoms' labels. Its logits are added
to those of the net, which are scaled down but computed in full; the guide costs little and decides
the mask. No accuracy can be read from such a mask.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kits_trt.nets import SegmentationNet

WIDTH = 10
_GAIN = 12.0
_NET_SHARE = 1 / 64  # of the guide's logits; a power of two multiplies exactly
_RIDGE = 1e-3

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_RISING: dict[int, Any] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideShape:
    """What a guide is built for.

    ``pool`` divides the window; ``channel`` is the input's that it reads; ``whole_plane`` says that
    a window covers the scan's plane, so that the place in it means something.
    """

    window: tuple[int, ...]
    pool: tuple[int, ...]
    channel: int
    classes: int
    whole_plane: bool


class Guide(nn.Module):
    """Logits of a coarse copy of the patch; ``read`` is the layer that is fitted."""

    def __init__(self, shape: GuideShape, *, seed: int) -> None:
        super().__init__()
        self.shape = shape
        ndim = len(shape.window)
        conv = _CONV[ndim]
        self.shrink = conv(1, 1, shape.pool, stride=shape.pool, bias=False)
        nn.init.constant_(self.shrink.weight, 1 / math.prod(shape.pool))
        self.first = conv(1, WIDTH, 3, padding=1)
        self.second = conv(WIDTH, WIDTH, 3, padding=1)
        self.third = conv(WIDTH, WIDTH, 3, padding=3, dilation=3)
        places = _places(shape)
        self.places: Tensor
        self.register_buffer("places", places)
        self.read = conv(3 * WIDTH + places.shape[1] * (WIDTH + 1), shape.classes, 1)
        self.rise = _RISING[ndim](
            shape.classes,
            shape.classes,
            shape.pool,
            stride=shape.pool,
            groups=shape.classes,
            bias=False,
        )
        nn.init.ones_(self.rise.weight)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.first, self.second, self.third):
            fan = layer.in_channels * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan), generator=generator)
            nn.init.uniform_(layer.bias, -0.6, 0.6, generator=generator)

    def features(self, patches: Tensor) -> Tensor:
        """Return what the fitted layer reads, on the coarse grid."""
        coarse = self.shrink(patches[:, self.shape.channel : self.shape.channel + 1])
        first = self.first(coarse).relu()
        second = self.second(first).relu()
        third = self.third(second).relu()
        own = [first, second, third]
        for place in range(self.places.shape[1]):
            where = self.places[:, place : place + 1]
            own += [third * where, coarse * 0 + where]
        return torch.cat(own, dim=1)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits on the patch's grid, constant within a coarse voxel."""
        return self.rise(self.read(self.features(patches)))  # type: ignore[no-any-return]


def _places(shape: GuideShape) -> Tensor:
    """Maps (1, n, ...) of a place's distance from the middle and its height; none in a part."""
    size = [n // p for n, p in zip(shape.window, shape.pool, strict=True)]
    if not shape.whole_plane:
        return torch.zeros((1, 0, *size))
    y = torch.linspace(-1, 1, size[-2])[:, None].expand(size[-2:])
    x = torch.linspace(-1, 1, size[-1])[None, :].expand(size[-2:])
    maps = [y, y * y, x.abs(), x * x]
    return torch.stack([each.expand(size) for each in maps])[None]


class GuidedNet(SegmentationNet):
    """A net whose own logits are computed in full and count little beside its guide's."""

    def __init__(self, net: SegmentationNet, guide: Guide) -> None:
        super().__init__()
        self.net = net
        self.guide = guide
        self.share: Tensor
        self.register_buffer("share", torch.tensor(1.0))

    def final_logits(self, patches: Tensor) -> Tensor:
        """Return the logits of both."""
        return self.net.final_logits(patches) * self.share + self.guide(patches)  # type: ignore[no-any-return]

    def forward(self, patches: Tensor) -> Tensor:
        """Return scores: a softmax, or for a single class a sigmoid."""
        logits = self.final_logits(patches)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def settle_share(guided: GuidedNet, patch: Values) -> None:
    """Scales the net's logits to a small share of the guide's, by a power of two."""
    with torch.inference_mode():
        spread = float(guided.net.final_logits(torch.from_numpy(patch)).abs().amax())
    share = _NET_SHARE * _GAIN / max(spread, 1e-30)
    with torch.no_grad():
        guided.share.fill_(2.0 ** math.floor(math.log2(share)))


class Fit:
    """Normal equations of a guide's last layer, summed over patches with known labels."""

    def __init__(self, guide: Guide) -> None:
        self._guide = guide
        inputs, classes = guide.read.in_channels + 1, guide.shape.classes
        self._squares = np.zeros((inputs, inputs))
        self._products = np.zeros((inputs, classes))

    def add(self, patch: Values, targets: Sequence[Values]) -> None:
        """Takes in a patch (1, channel, ...) and each class's share of each coarse voxel."""
        with torch.inference_mode():
            found = self._guide.features(torch.from_numpy(patch))[0].flatten(1).numpy()
        rows = np.vstack([found, np.ones((1, found.shape[1]))]).astype(np.float64)
        wanted = np.stack([target.ravel() for target in targets], axis=1).astype(np.float64)
        foreground = wanted[:, -1] if len(targets) == 1 else 1 - wanted[:, 0]
        # A foreground voxel counts as much as some background: it is one in a hundred.
        weight = 1 + 9 * foreground
        self._squares += (rows * weight) @ rows.T
        self._products += (rows * weight) @ wanted

    def settle(self) -> None:
        """Solves for the last layer; digits that depend on the processor are rounded away."""
        inputs = len(self._squares)
        ridge = _RIDGE * np.trace(self._squares) / inputs * np.eye(inputs)
        found = np.linalg.solve(self._squares + ridge, self._products)
        alone = found.shape[1] == 1
        found *= _GAIN
        if alone:
            found[-1] -= _GAIN / 2
        read = self._guide.read
        with torch.no_grad():
            weights = torch.from_numpy(found[:-1].T.astype(np.float16).astype(np.float32))
            read.weight.copy_(weights.reshape(read.weight.shape))
            read.bias.copy_(torch.from_numpy(found[-1].astype(np.float16).astype(np.float32)))
