"""Where a stage looks: boxes of its own grid, in the patient's frame."""

from collections.abc import Mapping, Sequence
from math import floor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kits_runtime.grid import Box, Grid, box_of, nearest_count
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
    Shape3,
    Slices,
    Stage,
    Tight,
    Voxels,
)
from kits_runtime.outcome import Outcome, Outcomes
from kits_runtime.volume import Volume

# The slices of a box that 2.5D windows ask about; None for all.
Kept = NDArray[np.bool_] | None

_PLANES_AT_ONCE = 32
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

    None is empty, and none is there twice. ``cut_halves`` cuts boxes per side at the scan's middle.
    """
    boxes: tuple[Box, ...]
    match look:
        case Foreground(above_hu=above_hu):
            boxes = (_foreground(volume, grid, above_hu),)
        case Part(half=half):
            boxes = (half_of(grid, half),)
        case Boxes():
            boxes = _around_finds(look, outcomes[look.of], grid, cut_halves=cut_halves)
        case _:
            boxes = (box_of(grid.shape),)
    return tuple(box for box in dict.fromkeys(boxes) if not box.empty)


def largest_box(look: Look, grid: Grid) -> Shape3:
    """The most voxels that a box can have along each axis, whatever earlier stages find."""
    whole = grid.shape
    match look:
        case Part(half=half):
            return half_of(grid, half).shape
        case Boxes(size=sizes, otherwise=otherwise):
            fixed = [_fixed(size, grid, axis) for axis, size in enumerate(sizes)]
            if otherwise == "half" and look.per == "side":
                fallen_back = half_of(grid, "left").shape  # the larger of the two
            else:
                fallen_back = (1, 1, 1) if otherwise == "empty" else whole
            z, y, x = (max(n, m) for n, m in zip(fixed, fallen_back, strict=True))
            return z, y, x
        case _:
            return whole


def _fixed(size: AxisSize, grid: Grid, axis: int) -> int:
    most = grid.shape[axis]
    if isinstance(size, Full | Tight):
        return most
    first, last = _extent(size, (0, 0), 0.0, grid, axis)
    return min(most, last - first)


def asked_about(
    boxes: Sequence[Box], stage: Stage, grid: Grid, outcomes: Outcomes
) -> Mapping[Box, Kept]:
    """The boxes cut, along z, to the slices that 2.5D windows ask about and their neighbours.

    Beside each stands which of its slices are asked about, or None for all. One slice more stays at
    least: scores must fall off towards a slice that nobody asked about.
    """
    windows = stage.windows
    if not isinstance(windows, Slices) or windows.only is None:
        return dict.fromkeys(boxes)
    margin = max(1, windows.depth // 2)
    asked: dict[Box, Kept] = {}
    for box in boxes:
        kept = np.asarray(outcomes[windows.only].mask_on(grid, box).any(axis=(1, 2)))
        where = np.flatnonzero(kept)
        if where.size:
            first, last = max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin
            cut = Box((first, 0, 0), (last, *box.shape[1:])).moved_by(box.start).within(box)
            asked[cut] = kept[first:last]
    return asked


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
    data = volume.data
    value = floor(above_hu) if data.dtype.kind == "i" else above_hu
    memory = sorted(range(3), key=lambda axis: -abs(data.strides[axis]))
    start, stop = [0, 0, 0], [0, 0, 0]
    for place, axis in enumerate(memory):
        extent = _extent_above(data.transpose(memory), place, value)
        if extent is None:
            return box_of(grid.shape)
        start[axis], stop[axis] = extent
    scan = Grid(grid.scan_shape, grid.scan_shape, volume.spacing_mm)
    found = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return grid.box_from(scan, found)


def _extent_above(
    stored: NDArray[np.int16 | np.float32], axis: int, value: float
) -> tuple[int, int] | None:
    """The first plane along an axis with a voxel above a value, and one past the last."""
    others = tuple(other for other in range(3) if other != axis)

    def hit(start: int) -> list[int]:
        planes = (*[slice(None)] * axis, slice(start, start + _PLANES_AT_ONCE))
        found = np.flatnonzero((stored[planes] > value).any(axis=others))
        return [start + int(plane) for plane in found]

    parts = range(0, stored.shape[axis], _PLANES_AT_ONCE)
    first = next((found[0] for part in parts if (found := hit(part))), None)
    if first is None:
        return None
    return first, next(found[-1] for part in parts[::-1] if (found := hit(part))) + 1


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
        chosen = _or_otherwise(box, look, own, grid)
        boxes.extend(box.within(own) if cut_halves else box for box in chosen)
    return tuple(boxes)


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
            margin = nearest_count(margin_mm / grid.spacing_mm[axis])
            return tight[0] - margin, tight[1] + margin
        case Millimetres(length_mm=length_mm):
            count = max(1, nearest_count(length_mm / grid.spacing_mm[axis]))
        case Voxels(count=count):
            pass
    start = nearest_count(centre - count / 2)
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
    axial = _filtered(np.asarray(mask.any(axis=0)), centre.axial_window_vox)
    coronal = _filtered(np.asarray(mask.any(axis=1)), centre.coronal_window_vox)
    z = _middle_along(coronal, 0, found.start[0])
    y = _middle_along(axial, 0, found.start[1])
    x = _middle_along(axial, 1, found.start[2])
    return [z, y, x]


def _filtered(hit: NDArray[np.bool_], window: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the median of a projection over a window, with nothing around it, is above 0.

    That is where the mask is hit in at least half of the window; counting takes a hundredth of the
    time of sorting. The projection itself where nothing is left.
    """
    counts = np.pad(hit.astype(np.intp), [(size // 2, (size - 1) // 2) for size in window])
    for axis, size in enumerate(window):
        counts = sliding_window_view(counts, size, axis=axis).sum(axis=-1)
    kept: NDArray[np.bool_] = 2 * counts >= window[0] * window[1]
    return kept if kept.any() else hit


def _middle_along(projection: NDArray[np.bool_], axis: int, first: int) -> float:
    where = np.flatnonzero(projection.any(axis=1 - axis))
    return first + (int(where[0]) + int(where[-1]) + 1) / 2
