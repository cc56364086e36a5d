"""Runs nets over the windows of a region and hands out finished scores slab by slab along z.

Only the slices that a later window may still change are kept, so memory does not grow with the
number of slices. A slab of ``None`` stands for slices that nobody was asked about: background.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from kits_runtime.ahead import Waiting, results_ahead
from kits_runtime.arrays import HOST, Arrays
from kits_runtime.manifest.schema import Argmax, Decide, Patches, Slices, Stage
from kits_runtime.windows import kept_ranges, padded, window_starts, window_weights

Scores = NDArray[np.float32]
RunNet = Callable[[NDArray[np.float32]], Scores]

SLICES_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Finished scores (class, z, y, x) of so many slices; None is background.

    Scores are good until the next slab is asked for: their memory is used again.
    """

    depth: int
    scores: Scores | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedInput:
    """What windows are cut from: the region's values, the value of air, and the slices to ask.

    Nets are asked for ``at_once`` patches at a time, from as many threads; with 1, from the
    caller's own. The caller waits for such threads in the context that ``waiting`` gives.
    """

    values: NDArray[np.float32]
    air: float
    kept: NDArray[np.bool_] | None = None
    at_once: int = 1
    waiting: Waiting = nullcontext


def slabs(given: WindowedInput, stage: Stage, nets: Sequence[RunNet]) -> Iterator[Slab]:
    """Yields the scores of a region from its first slice to its last, each slice once.

    ``nets`` take patches (n, channel, ...) and give scores (n, class, ...); they stand in the order
    of ``stage.nets`` and may reuse what they return at the next call.
    """

    def ask(patches: NDArray[np.float32]) -> Scores:
        return combined_scores([net(patches) for net in nets], stage)

    if isinstance(stage.windows, Patches):
        yield from _patch_slabs(given, stage.windows, ask)
    else:
        yield from _slice_slabs(given, stage.windows, ask)


def combined_scores(answers: list[Scores], stage: Stage, arrays: Arrays = HOST) -> Scores:
    """The mean of the nets' scores, or the share of nets that vote for each channel."""
    if stage.combine == "vote":
        answers = [votes(answer, stage.decide, arrays) for answer in answers]
    if len(answers) == 1:
        return answers[0]
    total = answers[0] + answers[1]
    for answer in answers[2:]:
        total += answer
    total *= np.float32(1 / len(answers))
    return total


def votes(scores: Scores, decide: Decide, arrays: Arrays = HOST) -> Scores:
    """1 for the channel that one net decides for, 0 for the others; channels are axis 1."""
    if isinstance(decide, Argmax):
        winner = scores.argmax(axis=1)
        channels = [winner == c for c in range(scores.shape[1])]
        shares: Scores = arrays.xp.stack(channels, axis=1).astype(np.float32)
        return shares
    return (scores >= np.float32(decide.at_least)).astype(np.float32)


def _patch_slabs(given: WindowedInput, windows: Patches, ask: RunNet) -> Iterator[Slab]:
    values, inner = padded(given.values, windows.shape, given.air)
    wanted_z, *plane = inner
    join = _kept_centres if windows.join == "keep_centre" else _weighted_means
    first = 0
    starts = [
        window_starts(*axis)
        for axis in zip(values.shape, windows.shape, windows.stride, strict=True)
    ]

    def answer(start: tuple[int, ...]) -> Scores:
        scores: Scores = ask(_patch(values, start, windows.shape))[0]
        return scores

    answers = results_ahead(answer, product(*starts), at_once=given.at_once, waiting=given.waiting)
    for layer in join(values.shape, windows, answers):
        last = first + layer.shape[1]
        rows = slice(max(first, wanted_z.start) - first, min(last, wanted_z.stop) - first)
        first = last
        if rows.start < rows.stop:
            yield Slab(depth=rows.stop - rows.start, scores=layer[(slice(None), rows, *plane)])


def _kept_centres(
    shape: tuple[int, ...], windows: Patches, answers: Iterator[Scores]
) -> Iterator[Scores]:
    axes = list(zip(shape, windows.shape, windows.stride, strict=True))
    starts = [window_starts(*axis) for axis in axes]
    kept = [kept_ranges(*axis) for axis in axes]
    buffer: Scores | None = None
    for z, (z_from, z_to) in zip(starts[0], kept[0], strict=True):
        rows = z_to - z_from
        for y, (y_from, y_to) in zip(starts[1], kept[1], strict=True):
            for x, (x_from, x_to) in zip(starts[2], kept[2], strict=True):
                scores = next(answers)
                if buffer is None:
                    buffer = np.empty((len(scores), windows.shape[0], *shape[1:]), np.float32)
                buffer[:, :rows, y_from:y_to, x_from:x_to] = scores[
                    :, z_from - z : z_to - z, y_from - y : y_to - y, x_from - x : x_to - x
                ]
        assert buffer is not None
        yield buffer[:, :rows]


def _weighted_means(
    shape: tuple[int, ...], windows: Patches, answers: Iterator[Scores]
) -> Iterator[Scores]:
    z_starts, y_starts, x_starts = (
        window_starts(*axis) for axis in zip(shape, windows.shape, windows.stride, strict=True)
    )
    weights = window_weights(windows.shape, windows.join)
    even = windows.join == "mean"
    depth, height, width = windows.shape
    sums: Scores | None = None
    counts = np.zeros((depth, *shape[1:]), np.float32)
    layer = np.zeros(counts.shape, np.float32)  # the weights of all windows with the same z
    for y in y_starts:
        for x in x_starts:
            layer[:, y : y + height, x : x + width] += weights
    for z, z_next in zip(z_starts, [*z_starts[1:], shape[0]], strict=True):
        for y in y_starts:
            for x in x_starts:
                scores = next(answers)
                if sums is None:
                    sums = np.zeros((len(scores), *counts.shape), np.float32)
                weighted = scores if even else scores * weights
                sums[:, :, y : y + height, x : x + width] += weighted
        counts += layer
        assert sums is not None
        finished = z_next - z
        sums[:, :finished] /= counts[:finished]
        yield sums[:, :finished]
        for channel in (*sums, counts):
            channel[: depth - finished] = channel[finished:]
            channel[depth - finished :] = 0


def _patch(
    values: NDArray[np.float32],
    start: tuple[int, ...],
    shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    index = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    patch = np.ascontiguousarray(values[index])
    return patch[None, None]


def _slice_slabs(given: WindowedInput, windows: Slices, ask: RunNet) -> Iterator[Slab]:
    values, inner = padded(given.values, windows.shape, given.air)

    def planes(neighbours: NDArray[np.intp]) -> Scores:
        scores = _planes(given, values, neighbours, (windows, ask))
        return scores[:, :, inner[1], inner[2]]

    yield from slabs_of_planes(len(values), given.kept, windows, planes)


def slabs_of_planes(
    depth: int,
    kept: NDArray[np.bool_] | None,
    windows: Slices,
    planes: Callable[[NDArray[np.intp]], Scores],
) -> Iterator[Slab]:
    """Slabs of a region of ``depth`` slices, some at once; only those ``kept`` are asked about.

    ``planes`` gives the scores (n, class, y, x) of slices whose windows read these (n, depth).
    """
    kept = np.ones(depth, np.bool_) if kept is None else kept
    neighbours = neighbour_slices(kept, windows)
    for start in range(0, depth, SLICES_AT_ONCE):
        stop = min(start + SLICES_AT_ONCE, depth)
        asked = np.flatnonzero(kept[start:stop])
        if not asked.size:
            yield Slab(depth=stop - start, scores=None)
            continue
        yield from _with_gaps(planes(neighbours[start + asked]), asked, stop - start)


def _with_gaps(planes: Scores, asked: NDArray[np.intp], depth: int) -> Iterator[Slab]:
    """Slabs of ``depth`` slices in all, of which only ``asked`` have planes (n, class, y, x)."""
    done = 0
    for run in np.split(np.arange(len(asked)), np.flatnonzero(np.diff(asked) > 1) + 1):
        first = int(asked[run[0]])
        if first > done:
            yield Slab(depth=first - done, scores=None)
        own = planes[int(run[0]) : int(run[-1]) + 1]
        yield Slab(depth=len(run), scores=own.transpose(1, 0, 2, 3))
        done = first + len(run)
    if done < depth:
        yield Slab(depth=depth - done, scores=None)


def neighbour_slices(kept: NDArray[np.bool_], windows: Slices) -> NDArray[np.intp]:
    """For each slice the ``depth`` slices of its window, ends repeated: (z, depth).

    Rows of slices that are not kept are meaningless where neighbours are those of the kept slices.
    """
    offsets = np.arange(windows.depth) - windows.depth // 2
    slices = np.arange(len(kept))
    among = slices if windows.neighbours == "volume" else np.flatnonzero(kept)
    if not among.size:
        return np.zeros((len(kept), windows.depth), np.intp)
    position = np.searchsorted(among, slices)
    rows: NDArray[np.intp] = among[np.clip(position[:, None] + offsets, 0, len(among) - 1)]
    return rows


def _planes(
    given: WindowedInput,
    values: NDArray[np.float32],
    slices: NDArray[np.intp],
    how: tuple[Slices, RunNet],
) -> Scores:
    """Joined scores (n, class, y, x) of the slices whose windows read ``slices`` (n, depth)."""
    windows, ask = how
    plane = values.shape[1:]
    axes = list(zip(plane, windows.shape, windows.stride, strict=True))
    height, width = windows.shape
    y_starts, x_starts = (window_starts(*axis) for axis in axes)
    if len(y_starts) == len(x_starts) == 1:
        return ask(values[slices])
    y_kept, x_kept = (kept_ranges(*axis) for axis in axes)
    weights = window_weights(windows.shape, windows.join)
    centres = windows.join == "keep_centre"
    sums: Scores | None = None
    counts = np.zeros(plane, np.float32)
    for y, (y_from, y_to) in zip(y_starts, y_kept, strict=True):
        for x, (x_from, x_to) in zip(x_starts, x_kept, strict=True):
            answers = weights
            if centres:
                answers = np.zeros_like(weights)
                answers[y_from - y : y_to - y, x_from - x : x_to - x] = 1
            cut = values[:, y : y + height, x : x + width][slices]
            scores = ask(np.ascontiguousarray(cut))
            if sums is None:
                sums = np.zeros((*scores.shape[:2], *plane), np.float32)
            sums[:, :, y : y + height, x : x + width] += scores * answers
            counts[y : y + height, x : x + width] += answers
    assert sums is not None
    means: Scores = sums / counts
    return means
