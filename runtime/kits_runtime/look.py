"""Where a stage looks: boxes of its own grid, in the patient's frame."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Box, Grid, box_of
from kits_runtime.manifest.schema import (
    AxisSize,
    Boxes,
    Centre,
    Foreground,
    Full,
    Look,
    MiddleOfBox,
    Millimetres,
    Part,
    Tight,
    Voxels,
)
from kits_runtime.outcome import Outcome, Outcomes
from kits_runtime.volume import Volume

_HALVES = {
    "superior": (0, 0),
    "inferior": (0, 1),
    "anterior": (1, 0),
    "posterior": (1, 1),
    "right": (2, 0),
    "left": (2, 1),
}


def boxes_to_look_at(
    look: Look, volume: Volume, grid: Grid, *, outcomes: Outcomes, cut_halves: bool
) -> tuple[Box, ...]:
    """The boxes that a stage is asked about; none where an earlier stage found nothing to look at.

    ``cut_halves`` cuts boxes per side at the scan's middle.
    """
    match look:
        case Foreground(above_hu=above_hu):
            return (_foreground(volume, grid, above_hu),)
        case Part(half=half):
            return (half_of(grid, half),)
        case Boxes():
            return _around_finds(look, outcomes[look.of], grid, cut_halves=cut_halves)
        case _:
            return (box_of(grid.shape),)


def half_of(grid: Grid, half: str) -> Box:
    """One half of a grid: z runs to inferior, y to posterior, x to the patient's left."""
    axis, second = _HALVES[half]
    start, stop = [0, 0, 0], list(grid.shape)
    middle = grid.shape[axis] // 2
    if second:
        start[axis] = middle
    else:
        stop[axis] = middle
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _foreground(volume: Volume, grid: Grid, above_hu: float) -> Box:
    """The box around all voxels above a value; planes are read from outside in until one hits."""
    start, stop = [], []
    for axis in range(3):
        planes = np.moveaxis(volume.data, axis, 0)
        first = next((i for i in range(len(planes)) if (planes[i] > above_hu).any()), None)
        if first is None:
            return box_of(grid.shape)
        start.append(first)
        stop.append(next(i for i in range(len(planes), 0, -1) if (planes[i - 1] > above_hu).any()))
    scan = Grid(grid.scan_shape, grid.scan_shape, volume.spacing_mm)
    found = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return grid.box_from(scan, found)


def _around_finds(
    look: Boxes, outcome: Outcome, grid: Grid, *, cut_halves: bool
) -> tuple[Box, ...]:
    if look.per == "all":
        box = _around_find(look, outcome, box_of(outcome.grid.shape), grid)
        return _or_otherwise(box, look, box_of(grid.shape), grid)
    boxes: list[Box] = []
    for half in ("right", "left"):
        own = half_of(grid, half)
        box = _around_find(look, outcome, half_of(outcome.grid, half), grid)
        if box is not None and cut_halves:
            box = box.within(own)
            box = None if box.empty else box
        boxes.extend(_or_otherwise(box, look, own, grid))
    return tuple(dict.fromkeys(boxes))


def _or_otherwise(box: Box | None, look: Boxes, half: Box, grid: Grid) -> tuple[Box, ...]:
    if box is not None:
        return (box,)
    if look.otherwise == "empty":
        return ()
    return (half,) if look.otherwise == "half" else (box_of(grid.shape),)


def _around_find(look: Boxes, outcome: Outcome, within: Box, grid: Grid) -> Box | None:
    found = outcome.found(within)
    if found is None:
        return None
    ratios = [n / o for n, o in zip(grid.shape, outcome.grid.shape, strict=True)]
    centre = [c * r for c, r in zip(_middle(look.centre, outcome, found), ratios, strict=True)]
    tight = grid.box_from(outcome.grid, found)
    start, stop = [], []
    for axis in range(3):
        edges = (tight.start[axis], tight.stop[axis])
        a, b = _extent(look.size[axis], edges, centre[axis], grid, axis)
        if look.border == "shift":
            a, b = _shifted(a, b, grid.shape[axis])
        start.append(a)
        stop.append(b)
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return box.within(box_of(grid.shape))


def _extent(
    size: AxisSize, tight: tuple[int, int], centre: float, grid: Grid, axis: int
) -> tuple[int, int]:
    match size:
        case Full():
            return 0, grid.shape[axis]
        case Tight(margin_mm=margin_mm):
            margin = round(margin_mm / grid.spacing_mm[axis])
            return tight[0] - margin, tight[1] + margin
        case Millimetres(length_mm=length_mm):
            count = max(1, round(length_mm / grid.spacing_mm[axis]))
        case Voxels(count=count):
            pass
    start = round(centre - count / 2)
    return start, start + count


def _shifted(start: int, stop: int, length: int) -> tuple[int, int]:
    if start < 0:
        start, stop = 0, stop - start
    if stop > length:
        start, stop = max(0, start - (stop - length)), length
    return start, stop


def _middle(centre: Centre, outcome: Outcome, found: Box) -> Sequence[float]:
    """The middle of what was found, as edges are counted: voxel i reaches from i to i + 1."""
    middles = [(a + b) / 2 for a, b in zip(found.start, found.stop, strict=True)]
    if isinstance(centre, MiddleOfBox):
        return middles
    mask = outcome.placed[found.seen_from(outcome.box).slices] > 0
    axial = _filtered(mask.sum(axis=0), centre.axial_window_vox)
    coronal = _filtered(mask.sum(axis=1), centre.coronal_window_vox)
    z = _middle_along(coronal, 0, found.start[0])
    y = _middle_along(axial, 0, found.start[1])
    x = _middle_along(axial, 1, found.start[2])
    return [z, y, x]


def _filtered(projection: NDArray[np.int_], window: tuple[int, int]) -> NDArray[np.bool_]:
    from scipy import ndimage  # a fifth of a second to import: only where it is needed

    sides = [(size, size) for size in window]
    wide = np.pad(projection, sides)
    filtered = ndimage.median_filter(wide, size=window)[
        tuple(slice(size, -size) for size in window)
    ]
    kept: NDArray[np.bool_] = (filtered if filtered.any() else projection) > 0
    return kept


def _middle_along(projection: NDArray[np.bool_], axis: int, first: int) -> float:
    where = np.flatnonzero(projection.any(axis=1 - axis))
    return first + (int(where[0]) + int(where[-1]) + 1) / 2
