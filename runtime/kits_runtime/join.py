"""Boxes of one stage that lie over each other: their union, and their scores joined."""

from collections.abc import Iterator, Sequence

import numpy as np

from kits_runtime.arrays import HOST, Arrays
from kits_runtime.decide import background_scores
from kits_runtime.grid import Box
from kits_runtime.infer import Slab
from kits_runtime.manifest.schema import Stage

NOWHERE = Box((0, 0, 0), (0, 0, 0))


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
) -> Slab:
    """One slab over the union of boxes: the mean or the maximum where they overlap."""
    xp, classes = arrays.xp, len(stage.decide.labels)
    largest = stage.join == "max"
    scores_of_all = xp.full((classes, *whole.shape), -np.inf if largest else 0, np.float32)
    seen = xp.zeros(whole.shape, np.uint8)
    for box, stream in groups:
        where = box.seen_from(whole)
        z = where.start[0]
        for slab in stream:
            rows = (slice(z, z + slab.depth), *where.slices[1:])
            shape = (classes, slab.depth, *box.shape[1:])
            scores = slab.scores
            if scores is None:
                scores = arrays.put(background_scores(shape, stage.decide))
            target = scores_of_all[(slice(None), *rows)]
            (xp.maximum if largest else xp.add)(target, scores, out=target)
            seen[rows] += 1
            z += slab.depth
    if not largest:
        scores_of_all /= xp.maximum(seen, 1)
    unseen = seen == 0
    for channel, value in zip(
        scores_of_all, background_scores((classes,), stage.decide), strict=True
    ):
        channel[unseen] = value
    return Slab(depth=whole.shape[0], scores=scores_of_all)
