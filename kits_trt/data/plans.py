"""Which samples an epoch consists of, in order: a function of (seed, epoch) and the last losses.

Plans say the case and the kind of each sample; where in the case it lies and what happens to it is
drawn with the sample itself, from its own (seed, epoch, index).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Stage
from kits_trt.data.stage_pieces import GROUPS, CasePieces, Labels
from kits_trt.systems.augmentation import Group
from kits_trt.systems.recipe import Crops, Recipe, SliceRuns, SliceStacks
from kits_trt.systems.system import System

Floats = NDArray[np.float64]
_Kind = tuple[int, tuple[int, int] | None, bool | None]
_Slices = list[tuple[int, int]]

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
        middle: Of slice stacks, the piece and in it the slice that is asked about.
        centred: Of crops, whether a voxel of the target lies in the middle; None: anywhere.
        augmented: Whether the recipe's changes happen to it.
    """

    seed: int
    epoch: int
    index: int
    case: int
    middle: tuple[int, int] | None = None
    centred: bool | None = None
    augmented: bool = True


def lesson_from_system(system: System, net: str, cases: Sequence[CasePieces]) -> Lesson:
    """The lesson of one net of a system from the pieces of its stage."""
    recipe = system.recipes[net]
    stage = next(stage for stage in system.stages if stage.name == recipe.stage)
    return Lesson(stage=stage, recipe=recipe, cases=tuple(cases))


def classes_of(recipe: Recipe, labels: Labels) -> Labels:
    """The class that each label is to be told as; labels that are not named are background."""
    table = np.zeros(256, np.uint8)
    for label, told in recipe.target.items():
        table[label] = told
    classes: Labels = table[labels]
    return classes


def plan_epoch(
    lesson: Lesson, *, seed: int, epoch: int, case_losses: Mapping[str, float] | None = None
) -> tuple[SampleKey, ...]:
    """The samples of an epoch; each run of ``batch_size`` is a batch with the recipe's shares.

    Their number is the same whatever the losses are: hard cases come more often at the cost of the
    others. ``case_losses`` are those of the
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
            middle=middle,
            centred=centred,
            augmented=augmented,
        )
        for index, (case, middle, centred) in enumerate(kinds)
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
    """Crops and runs, those of a case one after the other, its due share of them centred."""
    usable = np.array([bool(case.pieces) for case in lesson.cases])
    counts = _shared_out(draw.per_case * int(usable.sum()), weights * usable, rng)
    share = draw.foreground_share if isinstance(draw, Crops) else None
    kinds: list[_Kind] = []
    for case in rng.permutation(len(counts)).tolist():
        count = int(counts[case])
        if share is None:
            kinds += [(case, None, None)] * count
        else:
            centred = int(np.floor(count * share + rng.random()))
            kinds += [(case, None, bool(place < centred)) for place in rng.permutation(count)]
    return kinds


def _stacks(
    lesson: Lesson, draw: SliceStacks, weights: Floats, rng: np.random.Generator
) -> list[_Kind]:
    """Slice stacks, batch by batch filled with the shares of the pools from which they come."""
    pools = [[_slices_in(case, groups) for case in lesson.cases] for groups in draw.shares]
    sizes = np.array([[len(slices) for slices in pool] for pool in pools])
    shares = np.array(list(draw.shares.values()), float) * sizes.any(axis=1)
    if not shares.any():
        return []
    sizes[shares == 0] = 0
    total, worth = int(sizes.sum()), sizes
    if draw.per_case is not None:
        total, worth = draw.per_case * int(sizes.any(axis=0).sum()), sizes > 0
    order = _filled_batches(total, lesson.recipe.batch_size, shares / shares.sum(), rng)
    queues: list[list[_Kind]] = []
    for place, pool in enumerate(pools):
        counts = _shared_out(order.count(place), weights * worth[place], rng)
        drawn = zip(range(len(pool)), pool, counts.tolist(), strict=True)
        kinds = [(case, at, None) for case, slices, n in drawn for at in _cycled(slices, n, rng)]
        queues.append([kinds[i] for i in rng.permutation(len(kinds))])
    return [queues[place].pop() for place in order]


def _slices_in(case: CasePieces, groups: Sequence[Group]) -> _Slices:
    """The slices of a case in these groups that its stage is asked about, as (piece, slice)."""
    places = [GROUPS.index(group) for group in groups]
    return [
        (i, int(z))
        for i, piece in enumerate(case.pieces)
        for z in np.flatnonzero(piece.kept & np.isin(piece.groups, places))
    ]


def _cycled(slices: _Slices, count: int, rng: np.random.Generator) -> _Slices:
    """So many slices, none once more than another before all have come."""
    whole, rest = divmod(count, len(slices)) if slices else (0, 0)
    return slices * whole + [slices[i] for i in rng.permutation(len(slices))[:rest]]


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
    rounded: NDArray[np.int64] = counts
    return rounded


def _shared_out(total: int, weights: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """How many of ``total`` each gets: its share by weight, rounded up or down at random."""
    if not total:
        return np.zeros(len(weights), np.int64)
    wanted = weights * (total / weights.sum())
    counts: NDArray[np.int64] = np.floor(wanted + 1e-9).astype(np.int64)
    # Steps of one along the rests laid end to end, from a random start: each is met in proportion.
    ends = np.cumsum(np.maximum(wanted - counts, 0))
    missing = total - int(counts.sum())
    if missing:
        hits = (rng.random() + np.arange(missing)) * (ends[-1] / missing)
        np.add.at(counts, np.searchsorted(ends, hits), 1)
    return counts
