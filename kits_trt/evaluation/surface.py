"""Surface Dice: which share of two surfaces lies close to the other one.

The surface of a mask is a set of elements, one at each corner of the voxel grid whose eight voxels
are not all alike; the outside of the array is background. An element has an area (`surfels`) and
lies where its corner lies, so distances are those between corners. This is the surface-distance
method that the KiTS challenges score with.

Only corners within the tolerance matter. They are looked up, the nearest first, instead of measured
by a distance transform of the whole volume: exact, quicker, and in little memory.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kits_trt.evaluation.surfels import CODES, surfel_areas_mm2

Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]

_CHUNK = 1 << 21  # corners handled at once


def surface_dice(
    truth: Mask, prediction: Mask, *, spacing_mm: Sequence[float], tolerance_mm: float
) -> float:
    """The area of both surfaces at most the tolerance from the other one, over their whole area.

    Masks are on (z, y, x). 1 if both are empty and 0 if one is. The time grows with the number of
    voxels within the tolerance.
    """
    empty = [not mask.any() for mask in (truth, prediction)]
    if any(empty):
        return float(all(empty))
    reach = _reach_vox(truth.shape, spacing_mm, tolerance_mm)
    surfaces = [_elements(mask, margin=reach) for mask in (truth, prediction)]
    moves = _moves(surfaces[0].shape, reach, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    one, other = (surface.ravel() for surface in surfaces)
    close = _count_close(one, other, moves) + _count_close(other, one, moves)
    areas_mm2 = surfel_areas_mm2(spacing_mm)
    return float(close @ areas_mm2) / float((_count(one) + _count(other)) @ areas_mm2)


def neighbour_codes(mask: Mask) -> Codes:
    """The code of the eight voxels around each corner of the grid, one longer along each axis.

    The voxel towards larger z adds bits 4 to 7, towards larger y of each four the upper two, and
    towards larger x of each two the upper one.
    """
    codes: Codes = np.pad(mask.astype(np.uint8), 1)
    codes = codes[:, :, :-1] + np.uint8(2) * codes[:, :, 1:]
    codes = codes[:, :-1] + np.uint8(4) * codes[:, 1:]
    return codes[:-1] + np.uint8(16) * codes[1:]


def _elements(mask: Mask, *, margin: Sequence[int]) -> Codes:
    """The codes with 0 where there is no surface, and so many zeros more at every side."""
    codes = neighbour_codes(mask)
    codes[codes == CODES - 1] = 0
    return np.pad(codes, [(width, width) for width in margin])


def _count(codes: Codes) -> NDArray[np.int64]:
    """How often each code occurs in a raveled array."""
    counts = np.zeros(CODES, np.int64)
    for start in range(0, codes.size, _CHUNK):  # bincount makes eight bytes of each
        counts += np.bincount(codes[start : start + _CHUNK], minlength=CODES)
    return counts


def _reach_vox(
    shape: Sequence[int], spacing_mm: Sequence[float], tolerance_mm: float
) -> tuple[int, ...]:
    """The voxels along each axis that the tolerance spans; never beyond the array."""
    pairs = zip(shape, spacing_mm, strict=True)
    # One more, so that rounding of the quotient decides nothing.
    return tuple(min(size, int(tolerance_mm / step) + 1) for size, step in pairs)


def _moves(
    shape: Sequence[int],
    reach: Sequence[int],
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> list[int]:
    """What leads, in a raveled array, to each corner within the tolerance; the nearest first."""
    offsets = np.asarray(list(itertools.product(*(range(-far, far + 1) for far in reach))))
    distances_mm = np.sqrt(((offsets * np.asarray(spacing_mm)) ** 2).sum(axis=1))
    strides = np.asarray([shape[1] * shape[2], shape[2], 1])
    order = np.argsort(distances_mm, kind="stable")
    order = order[distances_mm[order] <= tolerance_mm]
    moves: list[int] = (offsets[order] @ strides).tolist()
    return moves


def _count_close(here: Codes, there: Codes, moves: Sequence[int]) -> NDArray[np.int64]:
    """How many elements of each code have an element of the other surface within the moves."""
    counts = np.zeros(CODES, np.int64)
    for start in range(0, here.size, _CHUNK):
        left = np.flatnonzero(here[start : start + _CHUNK]) + start
        for move in moves:
            if not left.size:
                break
            close = there[left + move] != 0
            counts += _count(here[left[close]])
            left = left[~close]
    return counts
