"""What the kernels do for arrays on a device, as functions of arrays.

Nothing waits for the device here. Arrays may be views; only what a kernel writes, and windows that
it reads, must be contiguous.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import Arrays
from kits_runtime.grid import Taps
from kits_runtime.manifest.schema import Argmax, Decide, Shape3

DeviceArray: TypeAlias = Any
Map: TypeAlias = tuple[float, float, float, float, float]


def resampled(
    source: DeviceArray, taps: Sequence[Taps], maps: Sequence[Map], arrays: Arrays
) -> DeviceArray:
    """Float32 values on the box of the taps, after the maps (low, high, origin, gain, offset).

    ``source`` holds int16 or float32 on (z, y, x), in any arrangement in memory.
    """
    shape = _lengths(taps)
    target = arrays.xp.empty(shape, np.float32)
    arrays.launch(
        f"resample_{source.dtype}",
        target.size,
        source,
        *_steps(source),
        *_on_device(taps, arrays),
        *_counts(*shape),
        arrays.put(np.array(maps, np.float32).reshape(-1, 5)),
        np.int32(len(maps)),
        target,
    )
    return target


def gathered(
    values: DeviceArray,
    rows: NDArray[np.intp],
    starts: Sequence[tuple[int, int]],
    shape: Shape3,
    arrays: Arrays,
) -> DeviceArray:
    """Patches (window, channel, *shape) cut from contiguous values on (z, y, x).

    Args:
        values: Where all windows lie inside.
        rows: The first slice of each channel of each window.
        starts: Where each window begins along y and x.
        shape: One window's depth, height and width.
        arrays: Where all of it lies.
    """
    windows, channels = rows.shape
    patches = arrays.xp.empty((windows, channels, *shape), np.float32)
    arrays.launch(
        "gather",
        patches.size,
        values,
        *_counts(*values.shape[1:]),
        arrays.put(rows.astype(np.int32)),
        arrays.put(np.array(starts, np.int32)),
        *_counts(windows, channels, *shape),
        patches,
    )
    return patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Where a window begins along y and x, and the ranges there for which it answers."""

    start: tuple[int, int]
    y: tuple[int, int]
    x: tuple[int, int]


def blend_into(
    sums: DeviceArray,
    counts: DeviceArray,
    scores: DeviceArray,
    weights: DeviceArray,
    answers: Sequence[Answer],
    *,
    z_from: int,
    arrays: Arrays,
) -> None:
    """Adds weighted scores (window, class, z, y, x) to sums (class, z, y, x), weights to counts.

    The first slice of ``sums`` is slice ``z_from`` of each window.
    """
    places = [(*answer.start, *answer.y, *answer.x) for answer in answers]
    arrays.launch(
        "blend",
        counts.size,
        scores,
        weights,
        arrays.put(np.array(places, np.int32)),
        *_counts(*scores.shape, z_from, *counts.shape),
        sums,
        counts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """Scores (class, z, y, x) and the plane before their first slice; slice -1 stands for it.

    A length of 1 along z, y or x repeats that value as often as it is read.
    """

    scores: DeviceArray
    before: DeviceArray


def labelled(planes: Planes, taps: Sequence[Taps], decide: Decide, arrays: Arrays) -> DeviceArray:
    """Labels (z, y, x) of the voxels that the taps describe, decided from interpolated scores."""
    shape = _lengths(taps)
    labels = arrays.xp.empty(shape, np.uint8)
    argmax = isinstance(decide, Argmax)
    at_least = 0.0 if isinstance(decide, Argmax) else decide.at_least
    arrays.launch(
        "labels_from_scores",
        labels.size,
        planes.scores,
        *_steps(planes.scores),
        planes.before,
        *_steps(planes.before),
        *_on_device(taps, arrays),
        *_counts(*shape),
        arrays.put(np.array(decide.labels, np.uint8)),
        *_counts(len(decide.labels), argmax),
        np.float32(at_least),
        labels,
    )
    return labels


def _lengths(taps: Sequence[Taps]) -> tuple[int, ...]:
    return tuple(len(axis.lower) for axis in taps)


def _on_device(taps: Sequence[Taps], arrays: Arrays) -> tuple[DeviceArray, ...]:
    """Lower and upper voxels and weights, those of the three axes behind each other."""
    lower = np.concatenate([axis.lower for axis in taps]).astype(np.int32)
    upper = np.concatenate([axis.upper for axis in taps]).astype(np.int32)
    weight = np.concatenate([axis.weight for axis in taps]).astype(np.float32)
    return arrays.put(lower), arrays.put(upper), arrays.put(weight)


def _steps(array: DeviceArray) -> tuple[np.int64, ...]:
    """Items from one voxel to the next along each axis; none along an axis of one voxel."""
    sizes = zip(array.strides, array.shape, strict=True)
    return tuple(np.int64(0 if n == 1 else step // array.dtype.itemsize) for step, n in sizes)


def _counts(*numbers: int) -> tuple[np.int32, ...]:
    return tuple(np.int32(number) for number in numbers)
