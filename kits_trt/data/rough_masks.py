"""A mask as an earlier stage may have found it."""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits_runtime.grid import bounding_box

Floats = NDArray[np.float32]

_BLUR_MM = (1.2, 3.3)
_BLUR_ALONG_Z_MM = 1.5
_KNOT_MM = 24.0
_LEVEL, _WANDER = 0.18, 0.12
_LOWEST, _HIGHEST = 0.1, 0.9
# A level of 0.1 lies within 1.3 sigma of a border; that and the softening stay within this.
_REACH_MM = 12.0
_LUMP_RADIUS_MM = (4.0, _REACH_MM)
_BITE_RADIUS_MM = (5.0, 20.0)


def rough_mask(
    share: Floats,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    lumps: float = 0.0,
) -> Floats:
    """A mask (slice, y, x) whose border moved, in [0, 1].

    A blurred mask is cut at a level that wanders over the frame: the border moves in and out by a
    voxel or two, corners are lost, gaps close. The cut is softened, as interpolation softens the
    border of a mask that is brought to another grid. With a chance of ``lumps`` each, a ball on
    the border is added, as a part of a neighbour that was taken for a kidney, and one taken away.
    """
    found = bounding_box(share > 0)
    if found is None:
        return share
    reach = [ceil(_REACH_MM / step_mm) for step_mm in spacing_mm]
    near = tuple(
        slice(max(0, start - more), stop + more)
        for start, stop, more in zip(found.start, found.stop, reach, strict=True)
    )
    cut = _cut_anew(share[near], spacing_mm, rng)
    rough = np.zeros(share.shape, np.float32)
    rough[near] = _with_lumps(cut, lumps, spacing_mm, rng) if lumps > 0 else cut
    return rough


def bitten_mask(
    mask: Floats,
    targets: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    chance: float,
) -> Floats:
    """A mask that, with a chance, has lost a ball around one of the targets.

    Targets are given for all slices of the mask, or for as many in its middle.
    """
    centres = np.argwhere(targets)
    centres[:, 0] += (len(mask) - len(targets)) // 2
    if rng.random() >= chance or not centres.size:
        return mask
    ball = _ball(mask.shape, centres, spacing_mm, rng, _BITE_RADIUS_MM)
    bitten: Floats = (mask * (1 - ball)).astype(np.float32)
    return bitten


def _with_lumps(
    mask: Floats,
    chance: float,
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> Floats:
    """A mask with a ball on its border added and another taken away, each with a chance."""
    border = np.argwhere((mask > 0) & (mask < 1))
    for is_added in (True, False):
        if rng.random() < chance and border.size:
            ball = _ball(mask.shape, border, spacing_mm, rng, _LUMP_RADIUS_MM)
            changed = np.maximum(mask, ball) if is_added else mask * (1 - ball)
            mask = changed.astype(np.float32)
    return mask


def _ball(
    shape: tuple[int, ...],
    centres: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    radii_mm: tuple[float, float],
) -> NDArray[np.float64]:
    """A ball around one of the centres, soft over a millimetre."""
    centre = centres[rng.integers(len(centres))]
    radius_mm = rng.uniform(*radii_mm)
    z, y, x = (
        (np.arange(count, dtype=np.float32) - place) * np.float32(step_mm)
        for count, place, step_mm in zip(shape, centre, spacing_mm, strict=True)
    )
    far_mm = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    ball: NDArray[np.float64] = np.clip(np.float32(radius_mm) - far_mm + np.float32(0.5), 0, 1)
    return ball


def _cut_anew(
    share: Floats, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Floats:
    z_mm, y_mm, x_mm = spacing_mm
    blur_mm = rng.uniform(*_BLUR_MM)
    sigmas = (_BLUR_ALONG_Z_MM / z_mm, blur_mm / y_mm, blur_mm / x_mm)
    blurred = ndimage.gaussian_filter(share, sigmas, truncate=3.0)
    level = np.float32(0.5 + rng.uniform(-_LEVEL, _LEVEL)) + _wandering(share, spacing_mm, rng)
    kept = (blurred > np.clip(level, _LOWEST, _HIGHEST)).astype(np.float32)
    softened: Floats = ndimage.gaussian_filter(kept, (0, 0.5, 0.5), truncate=3.0)
    return softened


def _wandering(
    share: Floats, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Floats:
    """Normal numbers at knots some way apart, and what lies between them linearly."""
    knots = [
        max(2, round(count * step_mm / _KNOT_MM) + 1)
        for count, step_mm in zip(share.shape, spacing_mm, strict=True)
    ]
    field = np.float32(_WANDER) * rng.standard_normal(knots, dtype=np.float32)
    for axis, count in enumerate(share.shape):
        field = np.moveaxis(np.tensordot(_between(count, knots[axis]), field, (1, axis)), 0, axis)
    return field


def _between(count: int, knots: int) -> Floats:
    """The weights (count, knots) with which values at evenly spread knots make ``count`` values."""
    places = np.linspace(0, knots - 1, count)
    weights = 1 - np.abs(places[:, None] - np.arange(knots))
    between: Floats = np.maximum(weights, 0).astype(np.float32)
    return between
