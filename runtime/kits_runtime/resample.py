"""Interpolation from the scan onto a box of a grid: the plain definition.

Values are interpolated along z, then y, then x, each time as ``a + weight * (b - a)`` in float32.
The order is fixed whatever the scan's order in memory, so a scan gives the same values in any of
its 48 arrangements. The work goes through the scan in pieces along its slowest axis in memory,
several at a time: numpy lets other threads run meanwhile. Where a coarser grid passes over many
voxels they are left out first.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Box, Grid, Taps, nearest_voxels
from kits_runtime.manifest.schema import Shape3
from kits_runtime.volume import Voxels

_PIECE_VOXELS = 2_000_000
# Leaving voxels out costs a copy of the others, which pays where that is little more than half.
_WORTH_A_COPY = 0.6


def resample_linear(
    source: Voxels, taps: tuple[Taps, Taps, Taps], *, threads: int | None = None
) -> NDArray[np.float32]:
    """Float32 values on the box that the taps describe; ``source`` may have any memory order.

    Without ``threads`` as many are used as the process has processors.
    """
    shape = tuple(len(axis_taps.lower) for axis_taps in taps)
    target = np.empty(shape, np.float32)
    memory = sorted(range(3), key=lambda axis: -abs(source.strides[axis]))
    slowest = memory[0]
    stored, kept = source.transpose(memory), target.transpose(memory)
    ratio = stored.shape[0] / kept.shape[0]
    layers = max(1, int(_PIECE_VOXELS / max(1, stored[0].size) / ratio))

    def fill(start: int) -> None:
        piece = taps[slowest].part(start, start + layers)
        first, last = int(piece.lower[0]), int(piece.upper[-1])
        block: NDArray[Any] = stored[first : last + 1]
        own = [piece.counted_from(first) if axis == slowest else taps[axis] for axis in range(3)]
        for place, axis in enumerate(memory):
            block, own[axis] = without_unread(block, place, own[axis])
        block = block.astype(np.float32, order="C")
        for axis in range(3):
            block = interpolate(block, memory.index(axis), own[axis])
        kept[start : start + layers] = block

    with ThreadPoolExecutor(max_workers=threads or len(os.sched_getaffinity(0))) as pool:
        list(pool.map(fill, range(0, kept.shape[0], layers)))
    return target


def without_unread(block: Voxels, axis: int, taps: Taps) -> tuple[Voxels, Taps]:
    """The block without the voxels along one axis that the taps do not read, and taps into that.

    Both as they are where most voxels are read.
    """
    read = np.union1d(taps.lower, taps.upper)
    if len(read) > _WORTH_A_COPY * block.shape[axis]:
        return block, taps
    lower, upper = np.searchsorted(read, taps.lower), np.searchsorted(read, taps.upper)
    return np.take(block, read, axis=axis), Taps(lower, upper, taps.weight)


def resample_nearest(source: Voxels, grid: Grid, box: Box, *, first: Shape3) -> NDArray[np.float32]:
    """Float32 values of the scan voxels in which the box's voxel centres lie.

    ``source`` is a part of the scan whose first voxel is ``first``.
    """
    index = nearest_index(grid.shape, grid.scan_shape, box)
    local = tuple(rows - start for rows, start in zip(index, first, strict=True))
    return source[local].astype(np.float32)


def nearest_index(target: Shape3, source: Shape3, box: Box) -> tuple[NDArray[np.intp], ...]:
    """The open index of the source voxels that are nearest to a box of the target."""
    return np.ix_(
        *(
            nearest_voxels(n, m, start=a, stop=b)
            for n, m, a, b in zip(target, source, box.start, box.stop, strict=True)
        )
    )


def interpolate(block: Voxels, axis: int, taps: Taps) -> NDArray[Any]:
    """``block`` interpolated along one axis; the block itself where the taps change nothing."""
    if taps.identity and len(taps.lower) == block.shape[axis]:
        return block
    lower = np.take(block, taps.lower, axis=axis)
    if not taps.weight.any():
        return lower
    upper = np.take(block, taps.upper, axis=axis)
    weight = taps.weight.reshape([-1 if a == axis else 1 for a in range(block.ndim)])
    np.subtract(upper, lower, out=upper)
    np.multiply(upper, weight, out=upper)
    np.add(lower, upper, out=lower)
    return lower
