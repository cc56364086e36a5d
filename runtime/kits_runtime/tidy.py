"""Applies a stage's clean-up, on the model's grid or on the scan's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.clean import (
    drop_small,
    fill_holes,
    keep_by_eigenvalue_ratio,
    keep_largest,
    keep_overlapping,
    keep_surest,
)
from kits_runtime.grid import Box, Grid, bounding_box
from kits_runtime.manifest.schema import (
    Clean,
    DropSmall,
    EigenvalueRatio,
    FillHoles,
    KeepLargest,
    KeepSurest,
    Overlap,
)
from kits_runtime.resample import nearest_index

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
MaskOf = Callable[[str], Mask]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a clean-up must know of the array it works on.

    ``middle_x`` is the first column of the patient's left half, which may lie outside the array;
    ``mask_of`` gives an earlier stage's mask on the same voxels; ``sure`` is above 0 where the nets
    were sure, where a clean-up asks for it.
    """

    spacing_mm: tuple[float, float, float]
    middle_x: int
    mask_of: MaskOf
    sure: Labels | None = None


def tidied(mask: Mask, clean: Sequence[Clean], frame: Frame) -> Mask:
    """The mask after all clean-up, in order; the argument is not changed."""
    for item in clean:
        mask = CLEAN[type(item)](mask, item, frame)
    return mask


def tidy_labels(labels: Labels, clean: Sequence[Clean], *, frame: Frame, fill: int) -> None:
    """Cleans labels in place: what is dropped becomes 0, holes become ``fill``."""
    before = labels > 0
    after = tidied(before, clean, frame)
    labels[before & ~after] = 0
    labels[after & ~before] = fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """A clean-up on a box of the model's grid: the masks before and after, and what fills holes."""

    grid: Grid
    box: Box
    before: Mask
    after: Mask
    fill: int


def follow_on_scan(on_scan: Labels, change: Tidied) -> None:
    """Brings the scan's labels in line with a clean-up on the model's grid, in place.

    ``on_scan`` holds those of the scan's voxels that lie in the change's box.

    A scan voxel that was interpolated from nothing that stayed goes. One that was background is
    filled when it was interpolated from a filled hole and lies in what is foreground now: the walls
    of a hole are background on the scan as far as the hole's scores reached.
    """
    dropped = bounding_box(change.before & ~change.after)
    if dropped is not None:
        target = on_scan[_near(dropped, change).slices]
        target[~_reads(change.after, dropped, change)] = 0
    added = change.after & ~change.before
    holes = bounding_box(added)
    if holes is not None:
        target = on_scan[_near(holes, change).slices]
        lies_in = _lies_in(change.after, holes, change)
        target[_reads(added, holes, change) & lies_in & (target == 0)] = change.fill


def _interpolated_from(part: Box, change: Tidied) -> Box:
    """The scan voxels around those that read a part of the box: one model voxel more."""
    wide = part.moved_by(change.box.start).wider_by(1).within(change.box)
    return change.grid.scan_box(wide)


def _near(part: Box, change: Tidied) -> Box:
    """The same voxels, counted from the first one in the change's box."""
    return _interpolated_from(part, change).seen_from(change.grid.scan_box(change.box))


def _reads(mask: Mask, part: Box, change: Tidied) -> Mask:
    """Whether any voxel from which a scan voxel near a part is interpolated is in a mask."""
    near = _near(part, change)
    for axis in range(3):
        taps = change.grid.taps_back(axis, change.box).part(near.start[axis], near.stop[axis])
        mask = np.take(mask, taps.lower, axis=axis) | np.take(mask, taps.upper, axis=axis)
    return mask


def _lies_in(mask: Mask, part: Box, change: Tidied) -> Mask:
    """Whether the model voxel in which a scan voxel near a part lies is in a mask."""
    grid = change.grid
    index = nearest_index(grid.scan_shape, grid.shape, _interpolated_from(part, change))
    local = tuple(rows - start for rows, start in zip(index, change.box.start, strict=True))
    inside: Mask = mask[local]
    return inside


def _keep_largest(mask: Mask, item: KeepLargest, frame: Frame) -> Mask:
    if item.per == "all":
        return keep_largest(mask, count=item.count)
    kept = mask.copy()
    middle_x = min(max(frame.middle_x, 0), mask.shape[2])
    for half in (slice(None, middle_x), slice(middle_x, None)):
        kept[:, :, half] = keep_largest(mask[:, :, half], count=item.count)
    return kept


def _keep_surest(mask: Mask, _: KeepSurest, frame: Frame) -> Mask:
    assert frame.sure is not None
    return keep_surest(mask, frame.sure > 0)


def _drop_small(mask: Mask, item: DropSmall, _: Frame) -> Mask:
    return drop_small(mask, min_voxels=item.min_voxels)


def _fill_holes(mask: Mask, item: FillHoles, _: Frame) -> Mask:
    return fill_holes(mask, per_slice=item.per_slice)


def _eigenvalue_ratio(mask: Mask, item: EigenvalueRatio, frame: Frame) -> Mask:
    return keep_by_eigenvalue_ratio(
        mask, frame.spacing_mm, lowest=item.lowest, highest=item.highest
    )


def _overlap(mask: Mask, item: Overlap, frame: Frame) -> Mask:
    return keep_overlapping(mask, frame.mask_of(item.of), at_least=item.at_least)


CLEAN: Mapping[type[Clean], Callable[..., Mask]] = {
    KeepLargest: _keep_largest,
    KeepSurest: _keep_surest,
    DropSmall: _drop_small,
    FillHoles: _fill_holes,
    EigenvalueRatio: _eigenvalue_ratio,
    Overlap: _overlap,
}
