"""The training of one net: epochs of batches, validation between them, nothing left to chance.

What happens is a function of the seed, the epoch and the place of a sample in it: samples, dropout
and fresh weights. A training that goes on from its state file does what it would have done without
the break.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from kits_runtime.errors import KitsError
from kits_trt.data.plans import Lesson, SampleKey, plan_epoch
from kits_trt.data.samples import Sample, draw_sample
from kits_trt.nets import SegmentationNet
from kits_trt.train.ahead import drawn_ahead
from kits_trt.train.compute import Compute, memory_told, seed_torch
from kits_trt.train.course import (
    Budget,
    Course,
    Validation,
    after_epoch,
    after_step,
    after_validation,
)
from kits_trt.train.losses import loss_of
from kits_trt.train.norms import SETTLING_BATCHES, settle_norms
from kits_trt.train.optimise import learning_rate, make_optimiser, set_rate
from kits_trt.train.ranks import Ranks

SETTLING_EPOCH = 2**30  # its samples only settle norms; no training gets so far
Keys = Sequence[SampleKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a training asks and tells.

    Attributes:
        validate: Runs the net over the validation cases; asked in the first process alone.
        keep: Saves the course and the net; with what a validation found, if one came before.
        progress: Is told of every step: the course after it, its loss, and how many steps there
            will be.
        is_stopped: Whether to save and end after this step.
    """

    validate: Callable[[SegmentationNet], Validation]
    keep: Callable[[Course, Validation | None], None]
    progress: Callable[[Course, float, int], None] = lambda *_: None
    is_stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step told: the batch's loss, those of its samples if asked for, and the clock."""

    loss: float
    sample_losses: tuple[float, ...]
    rate: float
    is_stopped: bool
    is_late: bool


class Trainee:
    """A net with its optimiser and scaler, moved one batch at a time."""

    def __init__(
        self, net: SegmentationNet, lesson: Lesson, *, compute: Compute, seed: int, ranks: Ranks
    ) -> None:
        self.net = compute.placed(net)
        self.lesson = lesson
        self.compute = compute
        self.ranks = ranks
        self.optimiser = make_optimiser(net, lesson.recipe.optimiser)
        self.scaler = compute.scaler()
        self._seed = seed

    def step(
        self,
        course: Course,
        batch: Keys,
        samples: Sequence[Sample],
        *,
        progress: float,
        is_stopped: bool,
    ) -> Step:
        """Take a step on this process's samples of a batch.

        Raises:
            KitsError: The loss is no number; weights are as before.
            OutOfMemoryError: The batch does not fit.
        """
        recipe, ranks = self.lesson.recipe, self.ranks
        seed_torch(self._seed, course.epoch, course.batch, ranks.rank)
        self.net.train()
        self.optimiser.zero_grad()
        weight = len(samples) / len(batch)
        with memory_told(f"step {course.step + 1} of {course.net}"):
            loss, own = self._loss(course.epoch, samples)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            each = [0.0] * len(batch) if own else []
            each[ranks.rank :: ranks.world] = [value / weight for value in own]
            first = 1 / weight if ranks.is_first else 0.0
            value, stops, share, *each = ranks.average(
                self.net,
                [float(loss.detach()), float(is_stopped), progress * first, *each],
                weight=weight,
            )
            self._check(value, course, batch)
            rate = learning_rate(
                recipe, step=course.step, progress=min(share, 1.0), watch=course.watch
            )
            set_rate(self.optimiser, rate)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return Step(
            loss=value,
            sample_losses=tuple(each),
            rate=rate,
            is_stopped=stops > 0,
            is_late=share >= 1,
        )

    def settle(self) -> None:
        """Make batch normalisation's statistics those of the present weights, in every process."""
        if self.ranks.is_first:
            lesson = self.lesson
            keys = plan_epoch(lesson, seed=self._seed, epoch=SETTLING_EPOCH)
            batches = batches_of(keys, lesson.recipe.batch_size)[:SETTLING_BATCHES]
            seed_torch(self._seed, SETTLING_EPOCH)
            settle_norms(self.net, (self._drawn(batch) for batch in batches), self._see)
        self.ranks.spread_state(self.net)

    def _loss(self, epoch: int, samples: Sequence[Sample]) -> tuple[Tensor, list[float]]:
        """The mean loss of some samples, and each one's own where hard cases come more often."""
        recipe = self.lesson.recipe
        with self.compute.autocast():
            heads = self.net.logits(self.compute.patches([sample.values for sample in samples]))
        labels = self.compute.labels([sample.labels for sample in samples])
        loss = loss_of(recipe.loss, heads, labels, epoch=epoch)
        own: list[float] = []
        if recipe.hard_cases is not None:
            with torch.no_grad():
                for place in range(len(samples)):
                    one = slice(place, place + 1)
                    heads_of_one = [head[one] for head in heads]
                    own.append(float(loss_of(recipe.loss, heads_of_one, labels[one], epoch=epoch)))
        return loss, own

    def _check(self, loss: float, course: Course, batch: Keys) -> None:
        if math.isfinite(loss):
            return
        names = [self.lesson.cases[key.case].name for key in batch]
        raise KitsError(
            f"step {course.step + 1} of {course.net}: found a loss of {loss} on "
            f"{', '.join(dict.fromkeys(names))}, expected a number; look at these cases "
            "(--check-data) or lower the learning rate; the last checkpoint is as it was"
        )

    def _drawn(self, batch: Keys) -> Tensor:
        return self.compute.patches([draw_sample(self.lesson, key).values for key in batch])

    def _see(self, patches: Tensor) -> None:
        with self.compute.autocast(), memory_told("settling norms"):
            self.net.final_logits(patches)


def batches_of(keys: Keys, size: int) -> list[Keys]:
    """The whole batches of an epoch; what is left over is dropped, unless it is all there is."""
    whole = [keys[first : first + size] for first in range(0, len(keys) - size + 1, size)]
    return whole or [keys]


def train_net(trainee: Trainee, budget: Budget, course: Course, around: Around) -> Course:
    """Train a net from where its course stands, and return the course at the end.

    Raises:
        KeyboardInterrupt: It was stopped; the course and the net have been kept.
        KitsError: The loss is no number, or there is nothing to draw from.
        OutOfMemoryError: A batch or a validation does not fit.
    """
    begun = time.monotonic() - course.seconds
    while course.is_due or not course.is_over:
        if course.is_due:
            course = _validated(trainee, course, around, begun=begun)
        else:
            course = _train_epoch(trainee, budget, course, around, begun=begun)
    return course


def steps_per_epoch(lesson: Lesson, *, seed: int) -> int:
    """How many steps an epoch of a lesson has; the same in each."""
    return len(batches_of(plan_epoch(lesson, seed=seed, epoch=0), lesson.recipe.batch_size))


def _validated(trainee: Trainee, course: Course, around: Around, *, begun: float) -> Course:
    trainee.settle()
    try:
        found = trainee.ranks.told_by_first(partial(around.validate, trainee.net))
    except KeyboardInterrupt:
        around.keep(course, None)
        raise
    after = after_validation(course, found, trainee.lesson.recipe)
    after = replace(after, seconds=time.monotonic() - begun)
    around.keep(after, found)
    return after


def _train_epoch(
    trainee: Trainee, budget: Budget, course: Course, around: Around, *, begun: float
) -> Course:
    lesson = trainee.lesson
    recipe = lesson.recipe
    keys = plan_epoch(
        lesson, seed=budget.seed, epoch=course.epoch, case_losses=course.case_losses or None
    )
    if not keys:
        raise KitsError(
            f"{course.net}: found no sample in {len(lesson.cases)} cases, expected at least one; "
            "give cases in which its stage has something to look at"
        )
    batches = batches_of(keys, recipe.batch_size)
    steps = min(budget.steps or math.inf, recipe.epochs * len(batches))
    todo = batches[course.batch :]
    samples = _own_samples(trainee, todo, workers=budget.workers)
    for batch in todo:
        if course.step >= steps:
            break
        seconds = time.monotonic() - begun
        share = max(course.step / steps, seconds / 60 / budget.minutes if budget.minutes else 0)
        told = trainee.step(
            course,
            batch,
            list(islice(samples, len(trainee.ranks.share(batch)))),
            progress=share,
            is_stopped=around.is_stopped(),
        )
        names = [lesson.cases[key.case].name for key in batch]
        course = after_step(course, told.loss, cases=names, sample_losses=told.sample_losses)
        course = replace(course, seconds=time.monotonic() - begun, rate=told.rate)
        around.progress(course, told.loss, int(steps))
        if told.is_stopped:
            around.keep(course, None)
            raise KeyboardInterrupt
        if told.is_late:
            return replace(course, is_over=True, is_due=True)
    if course.batch >= len(batches):
        course = after_epoch(course)
    is_over = course.step >= steps
    is_due = is_over or (course.batch == 0 and course.epoch % budget.validate_every == 0)
    return replace(course, is_over=is_over, is_due=is_due)


def _own_samples(trainee: Trainee, batches: Sequence[Keys], *, workers: int) -> Iterator[Sample]:
    """This process's samples of some batches, in order, drawn beside the training."""
    own = [key for batch in batches for key in trainee.ranks.share(batch)]
    ahead = 2 * trainee.lesson.recipe.batch_size
    return drawn_ahead(own, partial(draw_sample, trainee.lesson), workers=workers, ahead=ahead)
