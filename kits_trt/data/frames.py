"""The part of a piece that becomes one sample, taken straight or through another view in plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Grid, box_of
from kits_runtime.outcome import Outcome
from kits_runtime.steps import AIR_HU, Region, applied
from kits_trt.data.stage_pieces import Labels, Piece

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a sample lies in a piece: its slices, and a rectangle in plane that may leave it.

    ``asked`` are the slices whose labels are wanted, counted within ``rows``.
    """

    rows: NDArray[np.intp]
    corner: tuple[int, int]
    size: tuple[int, int]
    asked: slice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A sample on its way, before the steps that are left.

    ``hu`` is (slice, y, x), masks by stage are as in the piece; ``labels`` are those of the slices
    that were asked for. Outside the piece is air and background.
    """

    hu: Floats
    labels: Labels
    shares: Mapping[str, Floats]
    insides: Mapping[str, NDArray[np.bool_]]


def straight_frame(piece: Piece, cut: Cut) -> Frame:
    """The frame of a cut as it lies in the piece."""
    return Frame(
        hu=_taken(piece, piece.hu, cut, fill=AIR_HU).astype(np.float32),
        labels=_taken(piece, piece.labels, _asked(cut), fill=0),
        shares={
            name: _taken(piece, mask.share, cut, fill=0).astype(np.float32)
            for name, mask in piece.masks.items()
        },
        insides={
            name: _taken(piece, mask.inside, cut, fill=0) for name, mask in piece.masks.items()
        },
    )


def placed_frame(piece: Piece, cut: Cut, source_from_frame: Matrix) -> Frame:
    """The frame of a cut through another view.

    ``source_from_frame`` (3 x 3) leads from the view's (y, x, 1), counted from the frame's middle,
    to where it looks, counted likewise. HU and shares are interpolated linearly, the rest is that
    of the nearest voxel.
    """
    y, x = _looked_at(cut, source_from_frame)
    first = (int(np.floor(y.min())), int(np.floor(x.min())))
    last = (int(np.floor(y.max())) + 1, int(np.floor(x.max())) + 1)
    size = (last[0] - first[0] + 1, last[1] - first[1] + 1)
    source = straight_frame(piece, replace(cut, corner=first, size=size))
    y, x = y - first[0], x - first[1]
    nearest = np.rint(y).astype(np.intp) * size[1] + np.rint(x).astype(np.intp)
    taps = _Taps.at(y, x, width=size[1])
    return Frame(
        hu=taps.interpolated(source.hu),
        labels=_gathered(source.labels, nearest),
        shares={name: taps.interpolated(share) for name, share in source.shares.items()},
        insides={name: _gathered(inside, nearest) for name, inside in source.insides.items()},
    )


def mirrored_frame(frame: Frame, axes: Sequence[int]) -> Frame:
    """The frame mirrored along axes of (z, y, x), as views."""
    turn = tuple(slice(None, None, -1 if axis in axes else 1) for axis in range(3))
    return Frame(
        hu=frame.hu[turn],
        labels=frame.labels[turn],
        shares={name: share[turn] for name, share in frame.shares.items()},
        insides={name: inside[turn] for name, inside in frame.insides.items()},
    )


def read_values(frame: Frame, piece: Piece) -> Floats:
    """What nets read of a frame: its HU after the mask and the steps that are left for it."""
    values = np.array(frame.hu, np.float32, order="C")
    if piece.masked is not None:
        values *= frame.shares[piece.masked]
    depth, height, width = values.shape
    grid = Grid((depth, height, width), (depth, height, width), piece.spacing_mm)
    box = box_of(grid.shape)
    outcomes = {
        name: Outcome(grid=grid, box=box, placed=inside.view(np.uint8), on_scan=None, reach=box)
        for name, inside in frame.insides.items()
    }
    region = Region(
        values=values, grid=grid, box=box, source=box, on_scan=False, air=AIR_HU, own=True
    )
    return np.asarray(applied(region, piece.steps, outcomes).values, np.float32)


def _asked(cut: Cut) -> Cut:
    return replace(cut, rows=cut.rows[cut.asked])


def _taken(piece: Piece, stored: NDArray[Any], cut: Cut, *, fill: float) -> NDArray[Any]:
    """A cut of one of the piece's arrays."""
    taken = np.full((len(cut.rows), *cut.size), fill, stored.dtype)
    there = np.flatnonzero((cut.rows >= 0) & (cut.rows < len(stored)))
    source, target = [], []
    for start, length, begin, count in zip(
        cut.corner, cut.size, piece.corner, stored.shape[1:], strict=True
    ):
        low, high = max(start, begin), min(start + length, begin + count)
        source.append(slice(low - begin, max(low, high) - begin))
        target.append(slice(low - start, max(low, high) - start))
    if there.size:
        rows = cut.rows[there]
        near = stored[int(rows.min()) : int(rows.max()) + 1, source[0], source[1]]
        taken[there, target[0], target[1]] = near[rows - rows.min()]
    return taken


def _looked_at(cut: Cut, source_from_frame: Matrix) -> tuple[Matrix, Matrix]:
    """Where each pixel of a view looks in the piece's plane, as (y, x) in voxels."""
    middle = [corner + (size - 1) / 2 for corner, size in zip(cut.corner, cut.size, strict=True)]
    y = (np.arange(cut.size[0]) - (cut.size[0] - 1) / 2)[:, None]
    x = (np.arange(cut.size[1]) - (cut.size[1] - 1) / 2)[None, :]
    to_y, to_x = source_from_frame[0], source_from_frame[1]
    return (
        to_y[0] * y + to_y[1] * x + (to_y[2] + middle[0]),
        to_x[0] * y + to_x[1] * x + (to_x[2] + middle[1]),
    )


def _gathered(source: NDArray[Any], index: NDArray[np.intp]) -> NDArray[Any]:
    seen: NDArray[Any] = np.take(source.reshape(len(source), -1), index, axis=1)
    return seen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taps:
    """For each pixel of a view the flat index of its upper left neighbour, and both weights."""

    first: NDArray[np.intp]
    width: int
    along_y: Floats
    along_x: Floats

    @classmethod
    def at(cls, y: Matrix, x: Matrix, *, width: int) -> "_Taps":
        top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
        return cls(
            first=top * width + left,
            width=width,
            along_y=(y - top).astype(np.float32),
            along_x=(x - left).astype(np.float32),
        )

    def interpolated(self, source: Floats) -> Floats:
        """Each slice of the source, seen linearly."""
        seen = np.empty((len(source), *self.first.shape), np.float32)
        below = self.first + self.width
        for plane, target in zip(source.reshape(len(source), -1), seen, strict=True):
            upper = self._along_x(plane, self.first)
            lower = self._along_x(plane, below)
            lower -= upper
            lower *= self.along_y
            np.add(upper, lower, out=target)
        return seen

    def _along_x(self, plane: Floats, left: NDArray[np.intp]) -> Floats:
        values, right = plane.take(left), plane.take(left + 1)
        right -= values
        right *= self.along_x
        values += right
        return values
