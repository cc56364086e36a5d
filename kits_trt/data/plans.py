"""Which samples an epoch consists of, in order: a function of (seed, epoch) and the last losses.

Plans say the case and the kind of each sample; where in the case it lies and what happens to it is
drawn with the sample itself, from its own (seed, epoch, index).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Stage
from kits_trt.data.stage_pieces import GROUPS, CasePieces
from kits_trt.systems.recipe import Crops, Group, Recipe, SliceRuns, SliceStacks
from kits_trt.systems.system import System

Floats = NDArray[np.float64]
_Kind = tuple[int, Group | None, bool | None]

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

    Their number is ``per_case`` times the cases that have something to draw, whatever the losses
    are: hard cases come more often at the cost of the others. ``case_losses`` are those of the
    epoch before, by the case's name; without them no case is hard.
    """
    return _plan(lesson, (seed, epoch), _hard_cases(lesson, case_losses or {}), augmented=True)


def plan_validation(lesson: Lesson, *, seed: int) -> tuple[SampleKey, ...]:
    """The samples on which a net is validated: drawn as for training, but always the same.

    Nothing is augmented and no case comes more often.
    """
    return _plan(lesson, (seed, 0), frozenset(), augmented=False)


def _plan(
    lesson: Lesson, moment: tuple[int, int], hard: Collection[int], *, augmented: bool
) -> tuple[SampleKey, ...]:
    seed, epoch = moment
    draw, rng = lesson.recipe.draw, np.random.default_rng((seed, epoch, _PLAN))
    times = 1.0 if lesson.recipe.hard_cases is None else lesson.recipe.hard_cases.times
    weights = np.array([times if i in hard else 1.0 for i in range(len(lesson.cases))])
    kinds = (
        _stacks(lesson, draw, weights, rng)
        if isinstance(draw, SliceStacks)
        else _windows(lesson, draw, weights, rng)
    )
    return tuple(
        SampleKey(
            seed=seed,
            epoch=epoch,
            index=index,
            case=case,
            group=group,
            centred=centred,
            augmented=augmented,
        )
        for index, (case, group, centred) in enumerate(kinds)
    )


def _hard_cases(lesson: Lesson, losses: Mapping[str, float]) -> frozenset[int]:
    """The places of the cases with the highest losses; none that has no loss."""
    hard = lesson.recipe.hard_cases
    if hard is None:
        return frozenset()
    known = [(losses[case.name], i) for i, case in enumerate(lesson.cases) if case.name in losses]
    count = round(hard.share * len(lesson.cases))
    return frozenset(i for _, i in sorted(known, reverse=True)[:count])


def _windows(
    lesson: Lesson, draw: Crops | SliceRuns, weights: Floats, rng: np.random.Generator
) -> list[_Kind]:
    """Crops and runs in an order that mixes the cases; of each case the due share is centred."""
    usable = np.array([bool(case.pieces) for case in lesson.cases])
    counts = _shared_out(draw.per_case * int(usable.sum()), weights * usable, rng)
    share = draw.foreground_share if isinstance(draw, Crops) else None
    kinds: list[_Kind] = []
    for case, count in enumerate(counts.tolist()):
        if share is None:
            kinds += [(case, None, None)] * count
        else:
            centred = int(np.floor(count * share + rng.random()))
            kinds += [(case, None, i < centred) for i in range(count)]
    return [kinds[i] for i in rng.permutation(len(kinds))]


def _stacks(
    lesson: Lesson, draw: SliceStacks, weights: Floats, rng: np.random.Generator
) -> list[_Kind]:
    """Slice stacks, batch by batch filled with the groups' shares."""
    has = {group: _cases_with(lesson, group) for group in GROUPS}
    shares = np.array([draw.shares.get(g, 0.0) if has[g].any() else 0.0 for g in GROUPS])
    if not shares.any():
        return []
    usable = np.logical_or.reduce(
        [has[g] for g, share in zip(GROUPS, shares, strict=True) if share]
    )
    total = draw.per_case * int(usable.sum())
    order = _filled_batches(total, lesson.recipe.batch_size, shares / shares.sum(), rng)
    queues: dict[int, list[int]] = {}
    for place, group in enumerate(GROUPS):
        counts = _shared_out(order.count(place), weights * has[group], rng)
        cases = np.repeat(np.arange(len(counts)), counts)
        queues[place] = [int(case) for case in rng.permutation(cases)]
    return [(queues[place].pop(), GROUPS[place], None) for place in order]


def _cases_with(lesson: Lesson, group: Group) -> NDArray[np.bool_]:
    """Which cases have a slice of a group that their stage is asked about."""
    place = GROUPS.index(group)
    return np.array(
        [
            any(bool((piece.kept & (piece.groups == place)).any()) for piece in case.pieces)
            for case in lesson.cases
        ]
    )


def _filled_batches(total: int, size: int, shares: Floats, rng: np.random.Generator) -> list[int]:
    """The group of each sample; what rounding takes from a group in one batch it gets later."""
    order: list[int] = []
    given = np.zeros(len(shares), np.int64)
    for start in range(0, total, size):
        count = min(size, total - start)
        wanted = np.maximum(shares * (start + count) - given, 0)
        batch = _rounded(wanted * (count / wanted.sum()), count)
        given += batch
        order += rng.permutation(np.repeat(np.arange(len(shares)), batch)).tolist()
    return order


def _rounded(wanted: Floats, total: int) -> NDArray[np.int64]:
    """Whole numbers with this sum that are nearest to wanted ones; the largest rests round up."""
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    rests = np.argsort(counts - wanted, kind="stable")
    counts[rests[: total - int(counts.sum())]] += 1
    return counts


def _shared_out(total: int, weights: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of ``total`` each gets: its share by weight, rounded up or down at random."""
    if not total:
        return np.zeros(len(weights), np.int64)
    wanted = weights * (total / weights.sum())
    counts = np.floor(wanted + 1e-9).astype(np.int64)
    # Steps of one along the rests laid end to end, from a random start: each is met in proportion.
    ends = np.cumsum(np.maximum(wanted - counts, 0))
    missing = total - int(counts.sum())
    if missing:
        hits = (rng.random() + np.arange(missing)) * (ends[-1] / missing)
        np.add.at(counts, np.searchsorted(ends, hits), 1)
    return counts
