"""The way back on a device: scores to labels by one kernel, slab by slab.

Only labels leave the device: those of the model's grid, and of the scan's slices the rectangle
around all foreground, for many slices at once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import Arrays
from kits_runtime.decide import background_scores
from kits_runtime.grid import Taps
from kits_runtime.infer import Slab
from kits_runtime.kernels.calls import Planes, labelled
from kits_runtime.place import LabelsOf
from kits_runtime.wayback import Labels, Rectangle, near_foreground


class DeviceWayBack:
    """``WayBack`` for slabs that lie on a device."""

    def __init__(self, labels: LabelsOf, *, arrays: Arrays, rows_at_once: int) -> None:
        self._arrays = arrays
        self._decide = decide = labels.decide
        self._placed = labels.placed
        self._on_scan = labels.on_scan
        self._sure = labels.sure
        self._rows_at_once = rows_at_once
        self._taps = [labels.grid.taps_back(axis, labels.box) for axis in range(3)]
        background = arrays.put(background_scores((len(decide.labels), 1, 1, 1), decide))
        self._background = background
        self._before: Any = background[:, 0]
        self._received = 0
        self._written = 0

    def push(self, slab: Slab) -> None:
        """Takes the next slab and writes every scan slice that it completes."""
        first = self._received
        self._received += slab.depth
        scores: Any = self._background if slab.scores is None else slab.scores
        planes = Planes(scores=scores, before=self._before)
        if slab.scores is not None:
            same = [_same(length) for length in scores.shape[1:]]
            labels = labelled(planes, same, self._decide, self._arrays)
            self._placed[first : self._received] = self._arrays.get(labels)
            if self._sure is not None:
                sure = labelled(planes, same, self._sure.decide, self._arrays)
                self._sure.placed[first : self._received] = self._arrays.get(sure)
        if self._on_scan is not None:
            self._write_completed(planes, first, self._on_scan)
        self._before = scores[:, -1].copy()

    def _write_completed(self, planes: Planes, first: int, on_scan: Labels) -> None:
        completed = int(np.searchsorted(self._taps[0].upper, self._received, side="left"))
        rows = range(self._written, completed)
        self._written = completed
        found = [(row, near_foreground(self._placed, self._taps, row)) for row in rows]
        wanted = [(row, rectangle) for row, rectangle in found if rectangle is not None]
        for start in range(0, len(wanted), self._rows_at_once):
            self._write_group(wanted[start : start + self._rows_at_once], planes, first, on_scan)

    def _write_group(
        self,
        group: Sequence[tuple[int, Rectangle]],
        planes: Planes,
        first: int,
        on_scan: Labels,
    ) -> None:
        sides = np.array([rectangle for _, rectangle in group])
        y_start, x_start = (int(sides[:, side].min()) for side in (0, 2))
        y_stop, x_stop = (int(sides[:, side].max()) for side in (1, 3))
        z, y, x = self._taps
        rows = _chosen(z, [row for row, _ in group]).counted_from(first)
        taps = (rows, y.part(y_start, y_stop), x.part(x_start, x_stop))
        labels = self._arrays.get(labelled(planes, taps, self._decide, self._arrays))
        for plane, (row, (y_from, y_to, x_from, x_to)) in zip(labels, group, strict=True):
            inside = plane[y_from - y_start : y_to - y_start, x_from - x_start : x_to - x_start]
            on_scan[row, y_from:y_to, x_from:x_to] = inside


def _chosen(taps: Taps, rows: Sequence[int]) -> Taps:
    index: NDArray[np.intp] = np.array(rows)
    return Taps(taps.lower[index], taps.upper[index], taps.weight[index])


def _same(length: int) -> Taps:
    voxels = np.arange(length)
    return Taps(voxels, voxels, np.zeros(length, np.float32))
