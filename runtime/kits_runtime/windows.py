"""Where windows lie and how much each counts.

Along an axis windows start every ``stride`` voxels; the last one is moved back to end at the last
voxel. An axis shorter than the window has one, and the volume is padded around its middle.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Join = Literal["keep_centre", "mean", "gaussian"]

_GAUSSIAN_SIGMA = 0.125
_SMALLEST_WEIGHT = 1e-3


def window_starts(length: int, size: int, stride: int) -> tuple[int, ...]:
    """The first voxel of each window along an axis of at least ``size`` voxels."""
    last = length - size
    if last < 0:
        raise ValueError(f"an axis of {length} voxels cannot hold a window of {size}; pad it first")
    return (*range(0, last, stride), last)


def kept_ranges(length: int, size: int, stride: int) -> tuple[tuple[int, int], ...]:
    """For each window the voxels it answers for, when only centres are kept.

    Inner windows keep all but half the overlap at both ends, the first keeps its beginning, the
    last what the one before it left. Together they cover every voxel once.
    """
    margin = (size - stride) // 2
    starts = window_starts(length, size, stride)
    ends = [start + size - margin for start in starts[:-1]] + [length]
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def padding(length: int, size: int) -> tuple[int, int]:
    """The voxels added before and after an axis so that it holds one window."""
    missing = max(0, size - length)
    return missing // 2, missing - missing // 2


def padded(
    values: NDArray[np.float32], shape: tuple[int, ...], air: float
) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """The values padded with air to hold one window, and where they lie in the result.

    ``shape`` is that of a window, for the last axes of ``values``.
    """
    plain_axes = values.ndim - len(shape)
    sides = [(0, 0)] * plain_axes
    sides += [padding(n, size) for n, size in zip(values.shape[plain_axes:], shape, strict=True)]
    inner = tuple(
        slice(before, before + n) for (before, _), n in zip(sides, values.shape, strict=True)
    )
    if not any(before or after for before, after in sides):
        return values, inner
    return np.pad(values, sides, constant_values=air), inner


def window_weights(shape: tuple[int, ...], join: Join) -> NDArray[np.float32]:
    """How much each voxel of a window counts: 1, or a Gaussian of an eighth of the window.

    The Gaussian peaks at 1 in the middle and is held above 0.001, so that the weights of any voxel
    have a sum that can be divided by.
    """
    if join != "gaussian":
        return np.ones(shape, np.float32)
    weights = np.ones((), np.float64)
    for size in shape:
        offset = np.arange(size) - (size - 1) / 2
        bell = np.exp(-(offset**2) / (2 * (_GAUSSIAN_SIGMA * size) ** 2))
        weights = np.multiply.outer(weights, bell)
    floor = max(float(weights.min()), _SMALLEST_WEIGHT)
    return np.maximum(weights, floor).astype(np.float32)
