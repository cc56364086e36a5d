"""Which samples an epoch consists of, in order: a function of (seed, epoch) and the last losses.

Plans say the case and the kind of each sample; where in the case it lies and what happens to it is
drawn with the sample itself, from its own (seed, epoch, index).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Stage
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.systems.recipe import Crops, Group, HardCases, Recipe, SliceStacks
from kits_trt.systems.system import System

GROUPS: tuple[Group, ...] = ("background", "kidney", "tumour")
_PLAN = 2**31  # no sample has this index


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What a net is taught from: the stage whose input it reads, its recipe, and cases."""

    stage: Stage
    recipe: Recipe
    cases: tuple[CasePieces, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """Names one sample of a lesson; equal keys give equal samples.

    Attributes:
        seed: Of the training.
        epoch: From 0.
        index: Place in the epoch's plan.
        case: Place in the lesson's cases.
        group: Of slice stacks, the group of the middle slice.
        centred: Of crops, whether a voxel of the target lies in the middle; None: anywhere.
        augmented: Whether the recipe's changes happen to it.
    """

    seed: int
    epoch: int
    index: int
    case: int
    group: Group | None = None
    centred: bool | None = None
    augmented: bool = True


def lesson_from_system(system: System, net: str, cases: Sequence[CasePieces]) -> Lesson:
    """The lesson of one net of a system from the pieces of its stage."""
    recipe = system.recipes[net]
    stage = next(stage for stage in system.stages if stage.name == recipe.stage)
    return Lesson(stage=stage, recipe=recipe, cases=tuple(cases))


def plan_epoch(
    lesson: Lesson, *, seed: int, epoch: int, case_losses: Mapping[str, float] | None = None
) -> tuple[SampleKey, ...]:
    """The samples of an epoch; each run of ``batch_size`` is a batch with the recipe's shares.

    Their number is ``per_case`` times the cases that have a piece, whatever the losses are: hard
    cases come more often at the cost of the others. ``case_losses`` are those of the epoch before,
    by the case's name.
    """
    draw, rng = lesson.recipe.draw, np.random.default_rng((seed, epoch, _PLAN))
    weights = _case_weights(lesson, case_losses)
    if isinstance(draw, SliceStacks):
        kinds = _planned_stacks(lesson, draw, weights, rng)
    else:
        kinds = _planned_places(lesson, weights, rng)
    return tuple(
        SampleKey(seed=seed, epoch=epoch, index=index, case=case, group=group, centred=centred)
        for index, (case, group, centred) in enumerate(kinds)
    )
