"""Connected components of a mask, found by its runs: stretches of true voxels along x.

A kidney has some hundred thousand voxels but ten thousand runs. Two sorted searches tell which runs
of neighbouring rows touch, and a few rounds of joining make components of them. That takes a sixth
of the time that labelling every voxel does, and no more than numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Which voxels touch: those of the rows ``(z, y)`` before one, and how far aside along x."""

    rows: tuple[tuple[int, int], ...]
    aside: int


# Voxels that share a face, an edge or a corner.
NEIGHBOURS_26 = Neighbours(((0, -1), (-1, -1), (-1, 0), (-1, 1)), 1)
# Voxels that share a face.
NEIGHBOURS_6 = Neighbours(((0, -1), (-1, 0)), 0)
# The same within a slice.
NEIGHBOURS_4 = Neighbours(((0, -1),), 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Components:
    """The runs of a mask in (z, y, x) order and the component of each.

    Components are numbered from 0 by their first voxel. ``z`` and ``y`` say in which row a run
    lies, ``start`` and ``stop`` which of its voxels it holds.
    """

    z: Index
    y: Index
    start: Index
    stop: Index
    owner: Index
    count: int

    @property
    def sizes(self) -> Index:
        """The voxels of each component."""
        sums = np.bincount(self.owner, self.stop - self.start, self.count)
        return sums.astype(np.intp)  # sums of whole numbers, exact as float64

    @property
    def owner_of_voxels(self) -> Index:
        """The component of each true voxel in (z, y, x) order."""
        return np.repeat(self.owner, self.stop - self.start)

    def chosen_of_voxels(self, chosen: Mask) -> Mask:
        """Whether each true voxel, in (z, y, x) order, lies in one of the chosen components."""
        return np.repeat(chosen[self.owner], self.stop - self.start)


def components_of(mask: Mask, neighbours: Neighbours) -> Components:
    """The components of the true voxels of a mask on (z, y, x)."""
    depth, height, width = mask.shape
    # A row behind every plane and a voxel behind every row keep neighbours apart that are none.
    apart = np.zeros((depth, height + 1, width + 1), np.bool_)
    apart[:, :height, :width] = mask
    flat = apart.reshape(-1)
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    start, stop = edges[::2], edges[1::2]
    owner, count = _joined(len(start), _touching(start, stop, neighbours, apart.shape[1:]))
    row, first = np.divmod(start, width + 1)
    z, y = np.divmod(row, height + 1)
    return Components(z=z, y=y, start=first, stop=first + (stop - start), owner=owner, count=count)


def _touching(
    start: Index, stop: Index, neighbours: Neighbours, plane: tuple[int, ...]
) -> tuple[Index, Index]:
    """Pairs of runs that touch, as the runs' numbers."""
    height, width = plane
    ours, theirs = [], []
    for z, y in neighbours.rows:
        row = (z * height + y) * width
        first = np.searchsorted(stop, start + (row - neighbours.aside), side="right")
        last = np.searchsorted(start, stop + (row + neighbours.aside), side="left")
        count = last - first  # what ends before a run begins has begun before it ends: never < 0
        before = np.cumsum(count) - count
        ours.append(np.repeat(np.arange(len(start)), count))
        theirs.append(np.arange(len(ours[-1])) + np.repeat(first - before, count))
    return np.concatenate(ours), np.concatenate(theirs)


def _joined(runs: int, pairs: tuple[Index, Index]) -> tuple[Index, int]:
    """The component of each run, numbered by their first runs, and how many there are.

    Every run points at an earlier one of its component, or at itself. Each round lets the later of
    two touching components point at the earlier one and follows all pointers to their ends; the
    number of components that still touch another at least halves.
    """
    root = np.arange(runs)
    ours, theirs = pairs
    while len(ours):
        root[np.maximum(ours, theirs)] = np.minimum(ours, theirs)
        while not np.array_equal(further := root[root], root):
            root = further
        ours, theirs = root[ours], root[theirs]
        apart = ours != theirs
        ours, theirs = ours[apart], theirs[apart]
    first = root == np.arange(runs)
    number = np.cumsum(first) - 1
    return number[root], int(first.sum())
