"""Validation of one net: its stage on the runtime's own path, with the truth before it.

The windows, their joining and the decision are the runtime's; only the engine is torch. What the
net reads is a case's pieces: the stage's region, with true masks in place of earlier stages' finds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kits_runtime.decide import background_scores
from kits_runtime.grid import Grid, box_of
from kits_runtime.infer import RunNet, WindowedInput, slabs
from kits_runtime.manifest.schema import Stage, Threshold
from kits_runtime.outcome import Outcome
from kits_runtime.steps import AIR_HU, Region, applied
from kits_trt.data.plans import Lesson
from kits_trt.data.samples import whole_sample
from kits_trt.data.stage_pieces import Piece
from kits_trt.systems.recipe import Recipe
from kits_trt.train.compute import memory_told
from kits_trt.train.course import Validation
from kits_trt.train.losses import loss_of

Scores = NDArray[np.float32]
Classes = NDArray[np.uint8]
_LEAST_SCORE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Voxels of each class but the background in one case: common, found and true ones."""

    common: NDArray[np.int64]
    found: NDArray[np.int64]
    true: NDArray[np.int64]


def validate_stage(
    net: RunNet,
    lesson: Lesson,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Validation:
    """The loss, and the mean Dice over cases of each class, on the stage's own grid.

    A lesson's loss is the mean over pieces of the loss of the joined scores of a whole piece; of
    several heads it is the final one's. A class that is neither there nor found has Dice 1.
    """
    stage = replace(lesson.stage, nets=lesson.stage.nets[:1], combine="mean")
    losses, dices = [], []
    for done, case in enumerate(lesson.cases):
        counts = []
        with memory_told(f"validation on {case.name}"):
            for piece in case.pieces:
                whole = whole_sample(lesson, case, piece)
                given = WindowedInput(values=whole.values[0], air=air_of(piece), kept=piece.kept)
                scores, truth = joined_scores(net, given, stage), whole.labels
                losses.append(_loss(scores, truth, lesson.recipe, stage))
                counts.append(_counted(found_classes(scores, stage), truth, classes_of(stage)))
        if counts:
            dices.append(_dice(counts))
        progress(done + 1, len(lesson.cases))
    if not dices:
        return Validation(loss=1.0, dice=(0.0,) * classes_of(stage))
    mean = np.mean(np.stack(dices), axis=0)
    return Validation(loss=float(np.mean(losses)), dice=tuple(float(value) for value in mean))


def joined_scores(net: RunNet, given: WindowedInput, stage: Stage) -> Scores:
    """The joined scores (class, z, y, x) of a whole region."""
    scores = np.empty((len(stage.decide.labels), *given.values.shape), np.float32)
    z = 0
    for slab in slabs(given, stage, [net]):
        rows = scores[:, z : z + slab.depth]
        if slab.scores is None:
            rows[:] = background_scores(rows.shape, stage.decide)
        else:
            rows[:] = slab.scores
        z += slab.depth
    return scores


def air_of(piece: Piece) -> float:
    """The value that air has for the net, with which windows are padded."""
    one = box_of((1, 1, 1))
    grid = Grid(one.shape, one.shape, piece.spacing_mm)
    nothing = Outcome(
        grid=grid,
        box=one,
        placed=np.zeros(one.shape, np.uint8),
        on_scan=None,
        window=one,
        reach=one,
    )
    voxel = Region(
        values=np.zeros(one.shape, np.float32),
        grid=grid,
        box=one,
        source=one,
        on_scan=False,
        air=AIR_HU if piece.masked is None else 0.0,
        own=True,
    )
    return applied(voxel, piece.steps, dict.fromkeys(piece.masks, nothing)).air


def found_classes(scores: Scores, stage: Stage) -> Classes:
    """The class of each voxel, as the stage decides, before it cleans."""
    decide = stage.decide
    if isinstance(decide, Threshold):
        found = np.zeros(scores.shape[1:], np.uint8)
        for place, channel in enumerate(scores, start=1):
            found[channel >= np.float32(decide.at_least)] = place
        return found
    winners: Classes = scores.argmax(axis=0).astype(np.uint8)
    return winners


def classes_of(stage: Stage) -> int:
    """How many classes the stage's nets tell from the background."""
    channels = len(stage.decide.labels)
    return channels if isinstance(stage.decide, Threshold) else channels - 1


def _counted(found: Classes, truth: Classes, classes: int) -> _Counts:
    def count(values: Classes) -> NDArray[np.int64]:
        counts = np.bincount(values.ravel(), minlength=classes + 1)
        return counts[1 : classes + 1].astype(np.int64)

    common = count(np.where(found == truth, truth, 0).astype(np.uint8))
    return _Counts(common=common, found=count(found), true=count(truth))


def _dice(counts: Sequence[_Counts]) -> NDArray[np.float64]:
    common = sum(np.asarray([one.common for one in counts]))
    total = sum(np.asarray([one.found + one.true for one in counts]))
    dice: NDArray[np.float64] = np.where(total > 0, 2 * common / np.maximum(total, 1), 1.0)
    return dice


def _loss(scores: Scores, truth: Classes, recipe: Recipe, stage: Stage) -> float:
    """The loss of finished scores, through the logits that give them."""
    logits = _logits(torch.from_numpy(scores), sigmoid=isinstance(stage.decide, Threshold))
    labels = torch.from_numpy(truth)
    with torch.inference_mode():
        return float(loss_of(recipe.loss, [logits[None]], labels[None], epoch=0))


def _logits(scores: Tensor, *, sigmoid: bool) -> Tensor:
    if sigmoid:
        return torch.logit(scores, eps=_LEAST_SCORE)
    return torch.log(scores.clamp(min=_LEAST_SCORE))
