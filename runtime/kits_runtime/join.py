"""Boxes of one stage that lie over each other: their union, and their scores joined."""

from collections.abc import Iterator, Sequence

import numpy as np

from kits_runtime.arrays import HOST, Arrays
from kits_runtime.decide import background_scores
from kits_runtime.grid import Box
from kits_runtime.infer import Scores, Slab
from kits_runtime.manifest.schema import Stage

NOWHERE = Box((0, 0, 0), (0, 0, 0))

_FAR = 1 << 30


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around all boxes; an empty one around none."""
    if not boxes:
        return NOWHERE
    whole = boxes[0]
    for box in boxes[1:]:
        whole = whole.around(box)
    return whole


def any_overlap(boxes: Sequence[Box]) -> bool:
    """Whether any two boxes share a voxel."""
    pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    return any(not a.within(b).empty for a, b in pairs)


def joined(
    stage: Stage,
    whole: Box,
    groups: Sequence[tuple[Box, Iterator[Slab]]],
    arrays: Arrays = HOST,
) -> Iterator[Slab]:
    """Slabs over the union of boxes: the mean or the maximum where boxes lie over each other.

    All streams are followed along z together, so only the slabs that they are at are held.
    """
    streams = [_Stream(box.seen_from(whole), slabs) for box, slabs in groups]
    z, depth = 0, whole.shape[0]
    while z < depth:
        last = min([depth, *(stream.next_change(z) for stream in streams)])
        yield _joined_slices(stage, (z, last), whole, streams, arrays)
        z = last
    for stream in streams:
        stream.end()


class _Stream:
    """The slabs of one box, taken by so many slices as others need."""

    def __init__(self, box: Box, slabs: Iterator[Slab]) -> None:
        self.box = box
        self._slabs = slabs
        self._slab: Slab | None = None
        self._first = box.start[0]

    def covers(self, z: int) -> bool:
        """Whether the box has slice z."""
        return self.box.start[0] <= z < self.box.stop[0]

    def next_change(self, z: int) -> int:
        """The next slice after z at which the box begins, or its present slab ends."""
        if z < self.box.start[0]:
            return self.box.start[0]
        if not self.covers(z):
            return z + _FAR
        if self._slab is None:
            self._slab = next(self._slabs)
            self._first = z
        return self._first + self._slab.depth

    def slices(self, first: int, last: int) -> Scores | None:
        """The scores of slices inside the present slab; None is background."""
        slab = self._slab
        assert slab is not None
        rows = slice(first - self._first, last - self._first)
        if rows.stop == slab.depth:
            self._slab = None
        return None if slab.scores is None else slab.scores[:, rows]

    def end(self) -> None:
        """Lets the slabs' maker see that all were taken."""
        next(self._slabs, None)


def _joined_slices(
    stage: Stage, span: tuple[int, int], whole: Box, streams: Sequence[_Stream], arrays: Arrays
) -> Slab:
    xp, classes = arrays.xp, len(stage.decide.labels)
    depth = span[1] - span[0]
    covering = [stream for stream in streams if stream.covers(span[0])]
    if not covering:
        return Slab(depth=depth, scores=None)
    largest = stage.join == "max"
    plane = whole.shape[1:]
    scores_of_all = xp.full((classes, depth, *plane), -np.inf if largest else 0, np.float32)
    seen = xp.zeros((depth, *plane), np.uint8)
    for stream in covering:
        scores = stream.slices(*span)
        if scores is None:
            shape = (classes, depth, *stream.box.shape[1:])
            scores = arrays.put(background_scores(shape, stage.decide))
        where = (slice(None), *stream.box.slices[1:])
        target = scores_of_all[(slice(None), *where)]
        (xp.maximum if largest else xp.add)(target, scores, out=target)
        seen[where] += 1
    if not largest:
        scores_of_all /= xp.maximum(seen, 1)
    unseen = seen == 0
    for channel, value in zip(
        scores_of_all, background_scores((classes,), stage.decide), strict=True
    ):
        channel[unseen] = value
    return Slab(depth=depth, scores=scores_of_all)
