"""Windows of a device's region, gathered and blended by kernels: what ``infer`` does on the host.

Windows of one layer along z go to the nets together, as many as the plan says. Only the slices of
the layer, and the sums that a later layer may still change, lie on the device.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import Arrays
from kits_runtime.infer import (
    RunNet,
    Slab,
    combined_scores,
    slabs_of_planes,
)
from kits_runtime.kernels.calls import Answer, blend_into, gathered
from kits_runtime.manifest.schema import Patches, Shape3, Slices, Stage
from kits_runtime.windows import kept_ranges, padding, window_starts, window_weights

Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceInput:
    """What windows are cut from: slices of a region by their first and last, and the value of air.

    ``kept`` are the slices to ask about, None for all; ``batch`` windows go to a net together.
    """

    between: Callable[[int, int], Any]
    shape: Shape3
    air: float
    arrays: Arrays
    batch: int
    kept: NDArray[np.bool_] | None = None


def device_slabs(given: DeviceInput, stage: Stage, nets: Sequence[RunNet]) -> Iterator[Slab]:
    """``infer.slabs`` for a region on a device."""

    def ask(patches: Any) -> Any:  # noqa: ANN401
        return combined_scores([net(patches) for net in nets], stage, given.arrays)

    if isinstance(stage.windows, Patches):
        yield from _patch_slabs(given, stage.windows, ask)
    else:
        yield from _slice_slabs(given, stage.windows, ask)


def _patch_slabs(given: DeviceInput, windows: Patches, ask: RunNet) -> Iterator[Slab]:
    sides = [padding(n, size) for n, size in zip(given.shape, windows.shape, strict=True)]
    inner = [slice(before, before + n) for (before, _), n in zip(sides, given.shape, strict=True)]
    wanted_z, *plane = inner
    first = 0
    layers = _kept_centres if windows.join == "keep_centre" else _weighted_means
    for layer in layers(given, windows, ask):
        last = first + layer.shape[1]
        rows = slice(max(first, wanted_z.start) - first, min(last, wanted_z.stop) - first)
        first = last
        if rows.start < rows.stop:
            yield Slab(depth=rows.stop - rows.start, scores=layer[(slice(None), rows, *plane)])


def _kept_centres(given: DeviceInput, windows: Patches, ask: RunNet) -> Iterator[Any]:
    whole = _padded_shape(given.shape, windows.shape)
    axes = list(zip(whole, windows.shape, windows.stride, strict=True))
    weights = given.arrays.put(window_weights(windows.shape, windows.join))
    answers = _answers(axes[1], axes[2], kept=True)
    sums = _Sums(given.arrays, whole[1:])
    for z, (z_from, z_to) in zip(window_starts(*axes[0]), kept_ranges(*axes[0]), strict=True):
        sums.begin(z_to - z_from)
        layer = _layer(given, windows.shape, z)
        for group in _groups(answers, given.batch):
            scores = ask(_patches(layer, group, windows.shape, given.arrays))
            sums.add(scores, weights, group, z_from=z_from - z)
        yield sums.scores


def _weighted_means(given: DeviceInput, windows: Patches, ask: RunNet) -> Iterator[Any]:
    whole = _padded_shape(given.shape, windows.shape)
    axes = list(zip(whole, windows.shape, windows.stride, strict=True))
    weights = given.arrays.put(window_weights(windows.shape, windows.join))
    answers = _answers(axes[1], axes[2], kept=False)
    starts = window_starts(*axes[0])
    sums = _Sums(given.arrays, whole[1:])
    sums.begin(windows.shape[0])
    for z, z_next in zip(starts, [*starts[1:], whole[0]], strict=True):
        layer = _layer(given, windows.shape, z)
        for group in _groups(answers, given.batch):
            scores = ask(_patches(layer, group, windows.shape, given.arrays))
            sums.add(scores, weights, group, z_from=0)
        yield sums.finished(z_next - z)
        sums.move_on(z_next - z)


class _Sums:
    """Weighted scores (class, z, y, x) of the slices that windows may still add to."""

    def __init__(self, arrays: Arrays, plane: Span) -> None:
        self._arrays = arrays
        self._plane = plane
        self._depth = 0
        self._counts: Any = None
        self._layer: Any = None
        self.scores: Any = None

    def begin(self, depth: int) -> None:
        """Begins with so many slices to which nothing was added; what was there is given up."""
        self._depth = depth
        self._counts = self._layer = self.scores = None

    def add(
        self,
        scores: Any,  # noqa: ANN401
        weights: Any,  # noqa: ANN401
        answers: Sequence[Answer],
        *,
        z_from: int,
    ) -> None:
        """Adds windows that begin ``z_from`` slices before these."""
        if self.scores is None:
            zeros, shape = self._arrays.xp.zeros, (self._depth, *self._plane)
            self._counts, self._layer = zeros(shape, np.float32), zeros(shape, np.float32)
            self.scores = zeros((scores.shape[1], *shape), np.float32)
        blend_into(
            self.scores, self._layer, scores, weights, answers, z_from=z_from, arrays=self._arrays
        )

    def finished(self, depth: int) -> Any:  # noqa: ANN401
        """The first slices after a layer, divided by the sum of their weights.

        Weights are summed within a layer first, as on the host.
        """
        self._counts += self._layer
        self._layer[...] = 0
        self.scores[:, :depth] /= self._counts[:depth]
        return self.scores[:, :depth]

    def move_on(self, depth: int) -> None:
        """Drops the first slices and begins new ones at the end."""
        for channel in (*self.scores, self._counts):
            left = len(channel) - depth
            channel[:left] = channel[depth:].copy()  # a device's copy may not overlap
            channel[left:] = 0


def _slice_slabs(given: DeviceInput, windows: Slices, ask: RunNet) -> Iterator[Slab]:
    def planes(neighbours: NDArray[np.intp]) -> Any:  # noqa: ANN401
        return _planes(given, neighbours, windows, ask)

    yield from slabs_of_planes(given.shape[0], given.kept, windows, planes)


def _planes(given: DeviceInput, slices: NDArray[np.intp], windows: Slices, ask: RunNet) -> Any:  # noqa: ANN401
    """Scores (n, class, y, x) of the slices whose windows read ``slices`` (n, depth)."""
    arrays, shape = given.arrays, (1, *windows.shape)
    whole = _padded_shape(given.shape[1:], windows.shape)
    values, rows = _only(given, slices)
    values = _padded(given, values, windows.shape)
    axes = list(zip(whole, windows.shape, windows.stride, strict=True))
    answers = _answers(axes[0], axes[1], kept=windows.join == "keep_centre")
    weights = np.broadcast_to(
        window_weights(windows.shape, windows.join), (len(slices), *windows.shape)
    )
    there = arrays.put(np.ascontiguousarray(weights))
    sums = _Sums(arrays, whole)
    sums.begin(len(slices))
    for answer in answers:
        patches = gathered(values, rows, [answer.start] * len(slices), shape, arrays)
        scores = ask(patches.reshape(*rows.shape, *windows.shape))
        if len(answers) == 1:
            means = scores
            break
        stacked = arrays.xp.ascontiguousarray(scores.transpose(1, 0, 2, 3))
        sums.add(stacked.reshape(1, *stacked.shape), there, [answer], z_from=0)
    else:
        means = sums.finished(len(slices)).transpose(1, 0, 2, 3)
    inner = [padding(n, size)[0] for n, size in zip(given.shape[1:], windows.shape, strict=True)]
    y, x = (slice(a, a + n) for a, n in zip(inner, given.shape[1:], strict=True))
    return means[:, :, y, x]


def _only(given: DeviceInput, slices: NDArray[np.intp]) -> tuple[Any, NDArray[np.intp]]:
    """The slices that are read, each once and run by run, and where each of ``slices`` is."""
    read, place = np.unique(slices, return_inverse=True)
    runs = np.split(read, np.flatnonzero(np.diff(read) > 1) + 1)
    parts = [given.between(int(run[0]), int(run[-1]) + 1) for run in runs]
    values = parts[0] if len(parts) == 1 else given.arrays.xp.concatenate(parts)
    return values, place.reshape(slices.shape)


def _layer(given: DeviceInput, window: Shape3, z: int) -> Any:  # noqa: ANN401
    """The slices of the windows that begin at slice z of the padded region, padded with air."""
    depth = given.shape[0]
    before, _ = padding(depth, window[0])
    first, last = max(0, z - before), min(depth, z - before + window[0])
    return _padded(given, given.between(first, last), window)


def _padded(given: DeviceInput, values: Any, window: tuple[int, ...]) -> Any:  # noqa: ANN401
    """The values with air around them, where the last axes do not hold a window."""
    sides = [(0, 0)] * (3 - len(window))
    sides += [padding(n, m) for n, m in zip(values.shape[-len(window) :], window, strict=True)]
    if not any(before or after for before, after in sides):
        return values
    return given.arrays.xp.pad(values, sides, constant_values=given.air)


def _patches(layer: Any, group: Sequence[Answer], shape: Shape3, arrays: Arrays) -> Any:  # noqa: ANN401
    first = np.zeros((len(group), 1), np.intp)
    return gathered(layer, first, [answer.start for answer in group], shape, arrays)


def _answers(
    y_axis: tuple[int, int, int], x_axis: tuple[int, int, int], *, kept: bool
) -> list[Answer]:
    """The windows of a plane; they answer for what they keep, or for all that they cover."""

    def ranges(length: int, size: int, stride: int) -> list[tuple[int, Span]]:
        starts = window_starts(length, size, stride)
        covered = [(start, start + size) for start in starts]
        own = kept_ranges(length, size, stride) if kept else covered
        return list(zip(starts, own, strict=True))

    return [
        Answer(start=(y, x), y=y_range, x=x_range)
        for y, y_range in ranges(*y_axis)
        for x, x_range in ranges(*x_axis)
    ]


def _groups(answers: Sequence[Answer], batch: int) -> Iterator[Sequence[Answer]]:
    for start in range(0, len(answers), batch):
        yield answers[start : start + batch]


def _padded_shape(shape: tuple[int, ...], window: tuple[int, ...]) -> Any:  # noqa: ANN401
    return tuple(max(n, size) for n, size in zip(shape, window, strict=True))
