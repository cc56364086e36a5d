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
)
from kits_runtime.grid import Box, Grid, bounding_box, box_of
from kits_runtime.manifest.schema import (
    Clean,
    DropSmall,
    EigenvalueRatio,
    FillHoles,
    KeepLargest,
    Overlap,
)
from kits_runtime.resample import nearest_index

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
MaskOf = Callable[[str], Mask]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What a clean-up must know of the array it works on.

    ``middle_x`` is the first column of the patient's left half; ``mask_of`` gives an earlier
    stage's mask on the same voxels.
    """

    spacing_mm: tuple[float, float, float]
    middle_x: int
    mask_of: MaskOf


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

    Interpolated borders reach up to a voxel beyond the model's own, so a scan voxel goes when the
    model voxel it lies in was dropped, or lies beside what was dropped, unless it touches what
    stayed.
    """
    _drop_on_scan(on_scan, change)
    added = change.after & ~change.before
    extent = bounding_box(added)
    if extent is not None:
        own = extent.moved_by(change.box.start)
        target = on_scan[change.grid.scan_box(own).slices]
        target[_seen_by_scan(added, own, change) & (target == 0)] = change.fill


def _drop_on_scan(on_scan: Labels, change: Tidied) -> None:
    after = change.after
    extent = bounding_box(change.before & ~after)
    if extent is None:
        return
    whole = box_of(change.box.shape)
    wide = extent.wider_by(2).within(whole)
    near = np.zeros_like(after)
    near[wide.slices] = _grown(after[wide.slices])
    own = extent.wider_by(1).within(whole).moved_by(change.box.start)
    target = on_scan[change.grid.scan_box(own).slices]
    target[~_seen_by_scan(near, own, change)] = 0


def _grown(mask: Mask) -> Mask:
    """The mask and every voxel that touches it by a face, an edge or a corner."""
    grown = mask.copy()
    for axis in range(3):
        before = np.moveaxis(grown.copy(), axis, 0)
        after = np.moveaxis(grown, axis, 0)
        after[1:] |= before[:-1]
        after[:-1] |= before[1:]
    return grown


def _seen_by_scan(mask: Mask, own: Box, change: Tidied) -> Mask:
    """A mask on the box as the scan voxels of a part of it see it, by nearest voxel."""
    grid = change.grid
    index = nearest_index(grid.scan_shape, grid.shape, grid.scan_box(own))
    local = tuple(rows - start for rows, start in zip(index, change.box.start, strict=True))
    seen: Mask = mask[local]
    return seen


def _keep_largest(mask: Mask, item: KeepLargest, frame: Frame) -> Mask:
    if item.per == "all":
        return keep_largest(mask, count=item.count)
    kept = mask.copy()
    for half in (slice(None, frame.middle_x), slice(frame.middle_x, None)):
        kept[:, :, half] = keep_largest(mask[:, :, half], count=item.count)
    return kept


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
    DropSmall: _drop_small,
    FillHoles: _fill_holes,
    EigenvalueRatio: _eigenvalue_ratio,
    Overlap: _overlap,
}
