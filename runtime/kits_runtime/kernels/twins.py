"""Each kernel's twin: the same from the same arguments, with numpy on the host.

Steps, ends and order are those of the kernels; what is computed is the host's own definition.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from kits_runtime.decide import labels_from_scores
from kits_runtime.grid import Taps
from kits_runtime.manifest.schema import Argmax, Threshold
from kits_runtime.resample import interpolate

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def _taps(lower: Ints, upper: Ints, weight: Floats, shape: tuple[int, ...]) -> list[Taps]:
    ends = np.cumsum(shape)
    return [
        Taps(lower[end - n : end].astype(np.intp), upper[end - n : end].astype(np.intp), own)
        for end, n, own in zip(ends, shape, np.split(weight, ends[:-1]), strict=True)
    ]


def resample(source: NDArray[Any], *rest: Any) -> None:  # noqa: ANN401
    """Twin of ``resample_int16`` and ``resample_float32``."""
    _z, _y, _x, lower, upper, weight, *shape, maps, count, target = rest
    block = source.astype(np.float32)
    for axis, taps in enumerate(_taps(lower, upper, weight, tuple(map(int, shape)))):
        block = interpolate(block, axis, taps)
    for low, high, origin, gain, offset in maps[: int(count)]:
        block = (np.clip(block, low, high) - origin) * gain + offset
    target[...] = block


def gather(values: Floats, *rest: Any) -> None:  # noqa: ANN401
    """Twin of ``gather``."""
    _size_y, _size_x, rows, starts, _windows, _channels, depth, height, width, patches = rest
    for own_rows, (y, x), patch in zip(rows, starts, patches, strict=True):
        for z, channel in zip(own_rows, patch, strict=True):
            channel[...] = values[z : z + depth, y : y + height, x : x + width]


def blend(scores: Floats, weights: Floats, places: Ints, *rest: Any) -> None:  # noqa: ANN401
    """Twin of ``blend``."""
    *_, z_from, size_z, _size_y, _size_x, sums, counts = rest
    for own, (y, x, y_from, y_to, x_from, x_to) in zip(scores, places, strict=True):
        plane = (slice(y_from, y_to), slice(x_from, x_to))
        inside = (
            slice(z_from, z_from + size_z),
            slice(y_from - y, y_to - y),
            slice(x_from - x, x_to - x),
        )
        sums[(slice(None), slice(None), *plane)] += own[(slice(None), *inside)] * weights[inside]
        counts[(slice(None), *plane)] += weights[inside]


def labels(slab: Floats, *rest: Any) -> None:  # noqa: ANN401
    """Twin of ``labels_from_scores``."""
    slab_steps, last, last_steps, (lower, upper, weight), rest = (
        rest[:4], rest[4], rest[5:8], rest[8:11], rest[11:],
    )  # fmt: skip
    *shape, names, classes, is_argmax, at_least, target = rest
    taps = _taps(lower, upper, weight, tuple(map(int, shape)))
    z, y, x = (int(axis.upper.max(initial=0)) + 1 for axis in taps)
    planes = _strided(slab, slab_steps, (int(classes), z, y, x))
    before = _strided(last, (last_steps[0], 0, *last_steps[1:]), (int(classes), 1, y, x))
    scores = np.concatenate([before, planes], axis=1)
    moved = (taps[0].counted_from(-1), *taps[1:])
    for axis, own in enumerate(moved, start=1):
        scores = interpolate(scores, axis, own)
    known = tuple(int(name) for name in names)
    decide = Argmax(labels=known) if is_argmax else Threshold(at_least=at_least, labels=known)
    target[...] = labels_from_scores(scores, decide)


def _strided(array: Floats, steps: Any, shape: tuple[int, ...]) -> Floats:  # noqa: ANN401
    return as_strided(array, shape, [int(step) * array.itemsize for step in steps])


TWINS: Mapping[str, Callable[..., None]] = {
    "resample_int16": resample,
    "resample_float32": resample,
    "gather": gather,
    "blend": blend,
    "labels_from_scores": labels,
}


def launch_twin(name: str, items: int, *arguments: Any) -> None:  # noqa: ANN401
    """A ``Launch`` for arrays of the host."""
    if items:
        TWINS[name](*arguments)
