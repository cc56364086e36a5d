"""Boxes and grids: where a model's voxels lie on the scan.

A grid divides the scan's extent evenly, edges aligned: along an axis of ``n`` grid and ``m`` scan
voxels, grid voxel ``p`` has its centre at scan coordinate ``(p + 0.5) * m / n - 0.5``. The same
formula with the two swapped leads back, so a grid needs no stored inverse. Positions are counted in
whole numbers, so that no rounding decides in which voxel a centre lies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from operator import add, sub

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Resample, Shape3

# In voxels: float32 headers and quaternions err by some 1e-7 of up to a few thousand voxels.
_HEADER_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of voxels, (z, y, x)."""

    start: Shape3
    stop: Shape3

    @property
    def shape(self) -> Shape3:
        """The voxels along each axis; 0 where the box is empty."""
        z, y, x = (max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def empty(self) -> bool:
        """Whether no voxel lies in the box."""
        return 0 in self.shape

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def within(self, other: "Box") -> "Box":
        """The part of this box that lies in another."""
        return Box(_each(max, self.start, other.start), _each(min, self.stop, other.stop))

    def around(self, other: "Box") -> "Box":
        """The smallest box that holds this one and another."""
        return Box(_each(min, self.start, other.start), _each(max, self.stop, other.stop))

    def moved_by(self, offset: Shape3) -> "Box":
        """The box moved by so many voxels."""
        return Box(_each(add, self.start, offset), _each(add, self.stop, offset))

    def wider_by(self, voxels: int | Shape3) -> "Box":
        """The box with so many voxels more at every side, or at both ends of each axis."""
        margin = (voxels, voxels, voxels) if isinstance(voxels, int) else voxels
        return Box(_each(sub, self.start, margin), _each(add, self.stop, margin))

    def seen_from(self, outer: "Box") -> "Box":
        """The same voxels counted from another box's start."""
        return Box(_each(sub, self.start, outer.start), _each(sub, self.stop, outer.start))


def _each(combine: Callable[[int, int], int], left: Shape3, right: Shape3) -> Shape3:
    return _shape3([combine(a, b) for a, b in zip(left, right, strict=True)])


def _shape3(values: Sequence[int]) -> Shape3:
    z, y, x = values
    return z, y, x


def box_of(shape: Shape3) -> Box:
    """The box of a whole array."""
    return Box((0, 0, 0), shape)


def bounding_box(mask: NDArray[np.bool_ | np.uint8]) -> Box | None:
    """The smallest box around the voxels that are not zero; None when there are none."""
    start, stop = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not hit.size:
            return None
        start.append(int(hit[0]))
        stop.append(int(hit[-1]) + 1)
    return Box(_shape3(start), _shape3(stop))


def nearest_count(length: float) -> int:
    """The nearest whole number; a half goes down, and so does what the rounding of a header adds.

    163 slices of 3 mm make 244.5 of 2 mm: the same scan must not get another grid because one file
    says 3.0 and another 3.0000002.
    """
    return ceil(length - 0.5 - _HEADER_ROUNDING)


@dataclass(frozen=True, slots=True)
class Taps:
    """Along one axis, the two source voxels of each target voxel and the weight of the second."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]

    def part(self, start: int, stop: int) -> "Taps":
        """The taps of target voxels start to stop."""
        return Taps(self.lower[start:stop], self.upper[start:stop], self.weight[start:stop])

    def counted_from(self, first: int) -> "Taps":
        """The same taps into a source whose first voxel is ``first``."""
        return Taps(self.lower - first, self.upper - first, self.weight)

    @property
    def identity(self) -> bool:
        """Whether target and source voxels are the same, one by one."""
        steps = np.arange(len(self.lower))
        return not self.weight.any() and bool(np.array_equal(self.lower, steps))


def linear_taps(target: int, source: int, *, start: int, stop: int, first: int, last: int) -> Taps:
    """The taps of target voxels start to stop, edges aligned, held inside source first to last.

    Args:
        target: Voxels along the whole target axis.
        source: Voxels along the whole source axis.
        start: First target voxel asked for.
        stop: One past the last target voxel.
        first: First source voxel that may be read.
        last: Last source voxel that may be read.
    """
    whole = 2 * target
    centres = (2 * np.arange(start, stop) + 1) * source - target
    lower, rest = np.divmod(np.clip(centres, first * whole, last * whole), whole)
    return Taps(lower, lower + (rest > 0), (rest / whole).astype(np.float32))


def nearest_voxels(target: int, source: int, *, start: int, stop: int) -> NDArray[np.intp]:
    """For each target voxel the source voxel in which its centre lies."""
    inside: NDArray[np.intp] = (2 * np.arange(start, stop) + 1) * source // (2 * target)
    return inside


@dataclass(frozen=True, slots=True)
class Grid:
    """A model's grid over a scan."""

    shape: Shape3
    scan_shape: Shape3
    spacing_mm: tuple[float, float, float]

    @property
    def middle_x(self) -> int:
        """The first voxel along x that belongs to the patient's left half."""
        return self.shape[2] // 2

    def scan_box(self, box: Box) -> Box:
        """The scan voxels whose centres lie in a box of this grid."""
        ratios = list(zip(self.shape, self.scan_shape, strict=True))
        starts = [_first_inside(a, n, m) for a, (n, m) in zip(box.start, ratios, strict=True)]
        stops = [_first_inside(b, n, m) for b, (n, m) in zip(box.stop, ratios, strict=True)]
        return Box(_shape3(starts), _shape3(stops)).within(box_of(self.scan_shape))

    def source_box(self, box: Box) -> Box:
        """The scan voxels needed to interpolate a box of this grid."""
        starts, stops = [], []
        for axis in range(3):
            taps = self.taps(axis, box)
            starts.append(int(taps.lower[0]))
            stops.append(int(taps.upper[-1]) + 1)
        return Box(_shape3(starts), _shape3(stops))

    def taps(self, axis: int, box: Box) -> Taps:
        """Along one axis, the scan voxels from which a box of this grid is interpolated."""
        n, m = self.shape[axis], self.scan_shape[axis]
        start, stop = box.start[axis], box.stop[axis]
        return linear_taps(n, m, start=start, stop=stop, first=0, last=m - 1)

    def taps_back(self, axis: int, box: Box) -> Taps:
        """Along one axis, the voxels of a box (counted from its start) that make the scan's voxels.

        Beyond the centres of the box's outermost voxels their values are held.
        """
        n, m = self.shape[axis], self.scan_shape[axis]
        scan = self.scan_box(box)
        first, last = box.start[axis], box.stop[axis] - 1
        start, stop = scan.start[axis], scan.stop[axis]
        taps = linear_taps(m, n, start=start, stop=stop, first=first, last=last)
        return taps.counted_from(first)

    def box_from(self, other: "Grid", box: Box) -> Box:
        """The smallest box of this grid that covers a box of another grid over the same scan."""
        ratios = list(zip(self.shape, other.shape, strict=True))
        starts = [a * n // o for a, (n, o) in zip(box.start, ratios, strict=True)]
        stops = [-(-b * n // o) for b, (n, o) in zip(box.stop, ratios, strict=True)]
        return Box(_shape3(starts), _shape3(stops)).within(box_of(self.shape))


def _first_inside(edge: int, grid: int, scan: int) -> int:
    """The first scan voxel whose centre does not lie before an edge of the grid."""
    return -((grid - 2 * edge * scan) // (2 * grid))


def grid_over(
    scan_shape: Shape3, spacing_mm: tuple[float, float, float], resample: Resample | None
) -> Grid:
    """The grid that a resample step puts over a scan; the scan's own grid without one."""
    if resample is None:
        return Grid(scan_shape, scan_shape, spacing_mm)
    shape = []
    for axis in range(3):
        wanted_mm, size = resample.spacing_mm[axis], resample.size_vox[axis]
        count = scan_shape[axis]
        if size is not None:
            count = size
        elif wanted_mm is not None:
            count = max(1, nearest_count(count * spacing_mm[axis] / wanted_mm))
        shape.append(count)
    new_mm = [mm * m / n for mm, m, n in zip(spacing_mm, scan_shape, shape, strict=True)]
    return Grid(_shape3(shape), scan_shape, (new_mm[0], new_mm[1], new_mm[2]))
