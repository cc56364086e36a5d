"""What a finished stage leaves to later ones: labels on its own grid and, if needed, the scan's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kits_runtime.grid import Box, Grid, bounding_box
from kits_runtime.resample import nearest_index

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The labels of one stage.

    ``placed`` fills ``box`` of ``grid``; outside it all is background. ``on_scan`` fills
    ``window``, a box of the scan, and is None for stages whose labels nobody needs there; outside
    ``reach``, a box inside the window, all of it is background. ``sure`` fills the box as well, 1
    where the nets were sure, where a clean-up asks for it.
    """

    grid: Grid
    box: Box
    placed: Labels
    on_scan: Labels | None
    window: Box
    reach: Box
    sure: Labels | None = None

    def found(self, within: Box) -> Box | None:
        """The smallest box of the grid around the foreground inside ``within``; None if none."""
        seen = within.within(self.box)
        if seen.empty:
            return None
        inner = bounding_box(self.placed[seen.seen_from(self.box).slices] > 0)
        if inner is None:
            return None
        return inner.moved_by(seen.start)

    def labels_on_scan(self, box: Box) -> Labels:
        """A view of the labels in a box of the scan that lies in the window."""
        assert self.on_scan is not None
        return self.on_scan[box.seen_from(self.window).slices]

    def mask_on_scan(self, box: Box) -> NDArray[np.bool_]:
        """The foreground in a box of the scan."""
        assert self.on_scan is not None
        mask = zeros_stored_as(self.on_scan, box.shape, np.bool_)
        near = self.reach.within(box)
        if not near.empty:
            mask[near.seen_from(box).slices] = self.labels_on_scan(near) > 0
        return mask

    def mask_on(self, grid: Grid, box: Box) -> NDArray[np.bool_]:
        """The foreground on a box of another grid over the same scan, by nearest voxel."""
        if self.on_scan is None:
            labels, source = self.placed, self.grid.shape
            inside = self.box
        else:
            labels, source = self.labels_on_scan(self.reach), grid.scan_shape
            inside = self.reach
        mask = np.zeros(box.shape, np.bool_)
        keep, read = [], []
        for rows, start, stop in zip(
            nearest_index(grid.shape, source, box), inside.start, inside.stop, strict=True
        ):
            seen = rows.ravel()
            kept = np.flatnonzero((seen >= start) & (seen < stop))
            keep.append(kept)
            read.append(seen[kept] - start)
        mask[np.ix_(*keep)] = labels[np.ix_(*read)] > 0
        return mask


Outcomes = Mapping[str, Outcome]


def zeros_stored_as(array: NDArray[Any], shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros whose axes lie in memory in the order of another array's.

    Unlike ``np.zeros_like`` it leaves pages untouched until they are written.
    """
    memory = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    zeros = np.zeros([shape[axis] for axis in memory], dtype)
    return zeros.transpose(np.argsort(memory))
