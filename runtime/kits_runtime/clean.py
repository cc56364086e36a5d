"""Clean-up of masks: which connected components stay, and which holes are filled.

Every function takes a boolean mask on (z, y, x), leaves it as it is and returns a new one. The
work is done inside the box around the foreground, a small part of a CT scan. An empty mask comes
back empty. The results do not depend on the mask's memory order.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from kits_runtime.components import (
    NEIGHBOURS_4,
    NEIGHBOURS_6,
    NEIGHBOURS_26,
    Index,
    components_of,
)

Mask = npt.NDArray[np.bool_]

_FEWEST_VOXELS_OF_A_SHAPE = 3
# A second eigenvalue below this share of the first is rounding: the component lies on a line.
_ZERO_EIGENVALUE = 1e-9


def keep_largest(mask: Mask, *, count: int) -> Mask:
    """Returns the `count` components with the most voxels, or all if there are fewer.

    Of components of one size, the one whose first voxel comes first along (z, y, x) goes first.
    """
    if count < 1:
        raise ValueError(f"count: found {count}; expected 1 or more; say how many to keep")

    def kept(inside: Mask) -> Mask:
        components = components_of(inside, NEIGHBOURS_26)
        # They are numbered by their first voxel, and a stable sort keeps that order.
        keep = np.zeros(components.count, np.bool_)
        keep[np.argsort(-components.sizes, kind="stable")[:count]] = True
        return _selected(inside, components.chosen_of_voxels(keep))

    return _inside_box(kept, mask)


def keep_surest(mask: Mask, sure: Mask) -> Mask:
    """Returns the component with the most voxels that are sure, the larger of two with as many."""

    def kept(inside: Mask, sure_inside: Mask) -> Mask:
        components = components_of(inside, NEIGHBOURS_26)
        owner = components.owner_of_voxels
        counts = np.bincount(owner[sure_inside[inside]], minlength=components.count)
        # Sorted by the last key first, and in the order of their first voxels where all are equal.
        best = np.lexsort((-components.sizes, -counts))[0]
        return _selected(inside, owner == best)

    return _inside_box(kept, mask, sure)


def drop_small(mask: Mask, *, min_voxels: int) -> Mask:
    """Returns the components of at least `min_voxels` voxels."""

    def kept(inside: Mask) -> Mask:
        components = components_of(inside, NEIGHBOURS_26)
        return _selected(inside, components.chosen_of_voxels(components.sizes >= min_voxels))

    return _inside_box(kept, mask)


def fill_holes(mask: Mask, *, per_slice: bool) -> Mask:
    """Returns the mask with the background that it encloses, in the volume or within each z.

    Background that reaches the edge of the volume (with `per_slice`, of its slice) is no hole. It
    leaks through faces only, so a wall of voxels that touch by a corner is closed, as it is one
    component.
    """

    def filled(inside: Mask) -> Mask:
        outside = ~inside
        regions = components_of(outside, NEIGHBOURS_4 if per_slice else NEIGHBOURS_6)
        # What reaches a side of the box is connected to everything outside of it.
        depth, height, width = inside.shape
        open_runs = np.isin(regions.y, (0, height - 1))
        open_runs |= (regions.start == 0) | (regions.stop == width)
        if not per_slice:
            open_runs |= np.isin(regions.z, (0, depth - 1))
        is_hole = np.ones(regions.count, np.bool_)
        is_hole[regions.owner[open_runs]] = False
        if not is_hole.any():
            return inside
        return inside | _selected(outside, regions.chosen_of_voxels(is_hole))

    return _inside_box(filled, mask)


def keep_by_eigenvalue_ratio(
    mask: Mask, spacing_mm: Sequence[float], *, lowest: float, highest: float
) -> Mask:
    """Returns the components whose elongation lies between two bounds, both included.

    The elongation is the ratio of the two largest eigenvalues of the covariance of a component's
    voxel centres in millimetres: 1 for what is as broad as it is long. Components of fewer than 3
    voxels, and those that lie on a line, have none and are dropped.

    Args:
        mask: On (z, y, x).
        spacing_mm: Distance of neighbouring voxels along z, y and x.
        lowest: The smallest elongation that stays.
        highest: The largest elongation that stays.
    """
    if len(spacing_mm) != 3 or not all(step > 0 for step in spacing_mm):
        raise ValueError(
            f"spacing_mm: found {tuple(spacing_mm)}; expected three positive numbers; pass the "
            "volume's spacing"
        )

    def kept(inside: Mask) -> Mask:
        components = components_of(inside, NEIGHBOURS_26)
        owner, sizes = components.owner_of_voxels, components.sizes
        places_mm = np.multiply(np.argwhere(inside), spacing_mm)
        eigenvalues = np.linalg.eigvalsh(_covariances(places_mm.T, owner, sizes))
        second, first = eigenvalues[:, 1], eigenvalues[:, 2]
        has_shape = (sizes >= _FEWEST_VOXELS_OF_A_SHAPE) & (second > _ZERO_EIGENVALUE * first)
        elongation = np.full(len(sizes), np.nan)  # NaN lies between no bounds
        np.divide(first, second, out=elongation, where=has_shape)
        keep = (lowest <= elongation) & (elongation <= highest)
        return _selected(inside, keep[owner])

    return _inside_box(kept, mask)


def keep_overlapping(mask: Mask, other: Mask, *, at_least: float) -> Mask:
    """Returns the components of which at least a share of the voxels lies in another mask.

    Args:
        mask: On (z, y, x).
        other: On the same grid.
        at_least: The share, between 0 (everything stays) and 1.
    """
    if other.shape != mask.shape or other.dtype != np.bool_:
        raise ValueError(
            f"other: found {other.dtype} of shape {other.shape}; expected bool of shape "
            f"{mask.shape}; pass two masks on one grid"
        )
    if not 0 <= at_least <= 1:
        raise ValueError(f"at_least: found {at_least}; expected 0 to 1; pass a share of voxels")

    def kept(inside: Mask, other_inside: Mask) -> Mask:
        components = components_of(inside, NEIGHBOURS_26)
        owner, sizes = components.owner_of_voxels, components.sizes
        shared = np.bincount(owner[other_inside[inside]], minlength=len(sizes))
        return _selected(inside, (shared / sizes >= at_least)[owner])

    return _inside_box(kept, mask, other)


def _inside_box(change: Callable[..., Mask], mask: Mask, *others: Mask) -> Mask:
    """Returns a new mask, changed in the box around the foreground and empty outside of it."""
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(
            f"mask: found {mask.dtype} with {mask.ndim} axes; expected bool with three; compare "
            "labels with the class that is meant"
        )
    # np.zeros takes its pages untouched from the system; np.zeros_like writes all of them.
    result = np.zeros(mask.shape, np.bool_, "F" if mask.flags.fnc else "C")
    box = _box_of_foreground(mask)
    if box is not None:
        result[box] = change(*(np.ascontiguousarray(whole[box]) for whole in (mask, *others)))
    return result


def _box_of_foreground(mask: Mask) -> tuple[slice, slice, slice] | None:
    box = [slice(None)] * 3
    for axis in sorted(range(3), key=lambda axis: -abs(mask.strides[axis])):  # slowest first
        across = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask[tuple(box)].any(axis=across))
        if not len(filled):
            return None
        box[axis] = slice(int(filled[0]), int(filled[-1]) + 1)
    return box[0], box[1], box[2]


def _selected(inside: Mask, chosen: Mask) -> Mask:
    """Returns the foreground voxels chosen, where `chosen` goes through them in (z, y, x) order."""
    result = np.zeros_like(inside)
    result[inside] = chosen
    return result


def _covariances(
    places_mm: npt.NDArray[np.float64], owner: Index, sizes: Index
) -> npt.NDArray[np.float64]:
    """Returns the 3x3 covariance of each component's voxel centres in square millimetres."""
    means = [np.bincount(owner, place, len(sizes)) / sizes for place in places_mm]
    centred = [place - mean[owner] for place, mean in zip(places_mm, means, strict=True)]
    covariances = np.empty((len(sizes), 3, 3))
    for row, column in itertools.combinations_with_replacement(range(3), 2):
        products = np.bincount(owner, centred[row] * centred[column], len(sizes))
        covariances[:, row, column] = covariances[:, column, row] = products / sizes
    return covariances
