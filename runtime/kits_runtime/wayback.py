"""The way back: scores to labels on the scan's own grid, slice by slice as slabs arrive.

A scan slice needs two slices of scores, so only the last slice of a slab is kept for the next one
and a full-resolution float volume never exists. Within a slice only the rectangle is interpolated
whose surroundings hold any foreground on the model's grid: linear interpolation cannot make
foreground of scores that all say background, so nothing is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kits_runtime.decide import background_scores, labels_from_scores
from kits_runtime.grid import Box, Grid, Taps
from kits_runtime.infer import Slab
from kits_runtime.manifest.schema import Decide
from kits_runtime.resample import interpolate

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]
Rectangle: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sure:
    """Further labels of a box on the model's grid, written in place, and how they are decided."""

    decide: Decide
    placed: Labels


class WayBack:
    """Takes the slabs of one box in order; writes its labels on the model's grid and on the scan's.

    ``placed`` fills the box, ``on_scan`` the scan's voxels in it, or is None where nobody needs
    them. Both start as background and are written in place, as are the labels of ``sure``.
    """

    def __init__(
        self,
        grid: Grid,
        box: Box,
        *,
        decide: Decide,
        placed: Labels,
        on_scan: Labels | None,
        sure: Sure | None = None,
    ) -> None:
        self._decide = decide
        self._sure = sure
        self._placed = placed
        self._on_scan = on_scan
        self._taps = [grid.taps_back(axis, box) for axis in range(3)]
        background = background_scores((len(decide.labels), 1, 1), decide)
        self._background = np.broadcast_to(background, (len(background), *placed.shape[1:]))
        self._last_plane: Scores = self._background
        self._received = 0
        self._written = 0

    def push(self, slab: Slab) -> None:
        """Takes the next slab and writes every scan slice that it completes."""
        first = self._received
        self._received += slab.depth
        if slab.scores is not None:
            placed = self._placed[first : self._received]
            for row, plane in enumerate(placed):  # a plane stays in the cache, a slab does not
                plane[...] = labels_from_scores(slab.scores[:, row], self._decide)
            if self._sure is not None:
                sure = labels_from_scores(slab.scores, self._sure.decide)
                self._sure.placed[first : self._received] = sure
        if self._on_scan is not None:
            self._write_completed(slab, first, self._on_scan)
        self._last_plane = self._background if slab.scores is None else slab.scores[:, -1].copy()

    def _write_completed(self, slab: Slab, first: int, on_scan: Labels) -> None:
        upper = self._taps[0].upper
        completed = int(np.searchsorted(upper, self._received, side="left"))
        rows = range(self._written, completed)
        self._written = completed
        for row in rows:
            self._write_slice(row, slab, first, on_scan)

    def _write_slice(self, row: int, slab: Slab, first: int, on_scan: Labels) -> None:
        rectangle = near_foreground(self._placed, self._taps, row)
        if rectangle is None:
            return
        z = self._taps[0]
        lower, upper = int(z.lower[row]), int(z.upper[row])
        y_from, y_to, x_from, x_to = rectangle
        y_taps, y_rows = _local(self._taps[1].part(y_from, y_to))
        x_taps, x_rows = _local(self._taps[2].part(x_from, x_to))
        near = self._plane(lower, slab, first)[:, y_rows, x_rows]
        plane = near
        if z.weight[row]:
            far = self._plane(upper, slab, first)[:, y_rows, x_rows]
            plane = near + z.weight[row] * (far - near)
        scores = interpolate(interpolate(plane, 1, y_taps), 2, x_taps)
        on_scan[row, y_from:y_to, x_from:x_to] = labels_from_scores(scores, self._decide)

    def _plane(self, index: int, slab: Slab, first: int) -> Scores:
        if index < first:
            return self._last_plane
        return self._background if slab.scores is None else slab.scores[:, index - first]


def near_foreground(placed: Labels, taps: Sequence[Taps], row: int) -> Rectangle | None:
    """The rectangle of a scan slice that is interpolated from any foreground: y and x, from and to.

    ``taps`` lead from the scan to ``placed``, the labels on the model's grid.
    """
    z, y, x = taps
    hit = placed[int(z.lower[row])] | placed[int(z.upper[row])]
    y_hit = np.flatnonzero(hit.any(axis=1))
    if not y_hit.size:
        return None
    x_hit = np.flatnonzero(hit.any(axis=0))
    y_range = touching(y, int(y_hit[0]), int(y_hit[-1]))
    x_range = touching(x, int(x_hit[0]), int(x_hit[-1]))
    return (*y_range, *x_range)


def touching(taps: Taps, first: int, last: int) -> tuple[int, int]:
    """The range of target voxels that read any source voxel from first to last."""
    start = int(np.searchsorted(taps.upper, first, side="left"))
    stop = int(np.searchsorted(taps.lower, last, side="right"))
    return start, max(start, stop)


def _local(taps: Taps) -> tuple[Taps, slice]:
    if not len(taps.lower):
        return taps, slice(0, 0)
    first, last = int(taps.lower[0]), int(taps.upper[-1])
    return taps.counted_from(first), slice(first, last + 1)
