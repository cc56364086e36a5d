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

from kits_runtime.errors import ScanError
from kits_trt.data.plans import Lesson, plan_epoch
from kits_trt.data.samples import Sample, draw_sample
from kits_trt.nets import SegmentationNet
from kits_trt.systems.recipe import SliceStacks
from kits_trt.train.ahead import drawn_ahead
from kits_trt.train.compute import memory_told
from kits_trt.train.course import (
    Budget,
    Course,
    Validation,
    after_epoch,
    after_step,
    after_validation,
)
from kits_trt.train.trainee import Keys, Trainee, batches_of


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


def train_net(trainee: Trainee, budget: Budget, course: Course, around: Around) -> Course:
    """Train a net from where its course stands, and return the course at the end.

    Raises:
        KeyboardInterrupt: It was stopped; the course and the net have been kept.
        KitsError: The loss is no number.
        ScanError: There is nothing to draw from.
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
        raise ScanError(
            f"{course.net}: found no {_sought(lesson)} in {len(lesson.cases)} cases to learn from, "
            "expected at least one; add cases that show it"
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
        with memory_told(f"drawing samples of {course.net}"):
            drawn = list(islice(samples, len(trainee.ranks.share(batch))))
        told = trainee.step(
            course,
            batch,
            drawn,
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


def _sought(lesson: Lesson) -> str:
    """What a case must show for a sample to be drawn from it."""
    draw = lesson.recipe.draw
    if not isinstance(draw, SliceStacks):
        return "place to look at"
    return f"slice with {' or '.join(dict.fromkeys(g for groups in draw.shares for g in groups))}"


def _own_samples(trainee: Trainee, batches: Sequence[Keys], *, workers: int) -> Iterator[Sample]:
    """This process's samples of some batches, in order, drawn beside the training."""
    own = [key for batch in batches for key in trainee.ranks.share(batch)]
    ahead = 2 * trainee.lesson.recipe.batch_size
    return drawn_ahead(own, partial(draw_sample, trainee.lesson), workers=workers, ahead=ahead)
