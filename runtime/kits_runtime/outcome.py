"""What a finished stage leaves to later ones: labels on its own grid and, if needed, the scan's."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Box, Grid, bounding_box
from kits_runtime.resample import nearest_index

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The labels of one stage.

    ``placed`` fills ``box`` of ``grid``; outside it all is background. ``on_scan`` covers the whole
    scan, and is None for stages whose labels nobody needs there.
    """

    grid: Grid
    box: Box
    placed: Labels
    on_scan: Labels | None

    def found(self, within: Box) -> Box | None:
        """The smallest box of the grid around the foreground inside ``within``; None if none."""
        seen = within.within(self.box)
        if seen.empty:
            return None
        inner = bounding_box(self.placed[seen.seen_from(self.box).slices] > 0)
        if inner is None:
            return None
        return inner.moved_by(seen.start)

    def mask_on_scan(self, box: Box) -> NDArray[np.bool_]:
        """The foreground in a box of the scan."""
        assert self.on_scan is not None
        return self.on_scan[box.slices] > 0

    def mask_on(self, grid: Grid, box: Box) -> NDArray[np.bool_]:
        """The foreground on a box of another grid over the same scan, by nearest voxel."""
        if self.on_scan is not None:
            return self.on_scan[nearest_index(grid.shape, grid.scan_shape, box)] > 0
        whole = np.zeros(box.shape, np.bool_)
        rows = nearest_index(grid.shape, self.grid.shape, box)
        keep, read = [], []
        for axis, (start, stop) in enumerate(zip(self.box.start, self.box.stop, strict=True)):
            own = rows[axis].ravel()
            inside = (own >= start) & (own < stop)
            keep.append(np.flatnonzero(inside))
            read.append(own[inside] - start)
        whole[np.ix_(*keep)] = self.placed[np.ix_(*read)] > 0
        return whole


Outcomes = Mapping[str, Outcome]
