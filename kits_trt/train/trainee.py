"""A net in training: one step on one batch, and norms that are those of its present weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kits_runtime.errors import KitsError
from kits_trt.data.plans import Lesson, SampleKey, plan_epoch
from kits_trt.data.samples import Sample, draw_sample
from kits_trt.nets import SegmentationNet
from kits_trt.train.compute import Compute, memory_told, seed_torch
from kits_trt.train.course import Course
from kits_trt.train.losses import loss_of
from kits_trt.train.norms import SETTLING_BATCHES, settle_norms
from kits_trt.train.optimise import learning_rate, make_optimiser, set_rate
from kits_trt.train.ranks import Ranks

SETTLING_EPOCH = 2**30  # its samples only settle norms; no training gets so far
Keys = Sequence[SampleKey]


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
        where = f"step {course.step + 1} of {course.net} on {self._cases_of(batch)}"
        with memory_told(where):
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
            _require_number(value, where=where)
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

    def _cases_of(self, batch: Keys) -> str:
        return ", ".join(dict.fromkeys(self.lesson.cases[key.case].name for key in batch))

    def _drawn(self, batch: Keys) -> Tensor:
        return self.compute.patches([draw_sample(self.lesson, key).values for key in batch])

    def _see(self, patches: Tensor) -> None:
        with self.compute.autocast(), memory_told("settling norms"):
            self.net.final_logits(patches)


def batches_of(keys: Keys, size: int) -> list[Keys]:
    """The whole batches of an epoch; what is left over is dropped, unless it is all there is."""
    whole = [keys[first : first + size] for first in range(0, len(keys) - size + 1, size)]
    return whole or [keys]


def _require_number(loss: float, *, where: str) -> None:
    if not math.isfinite(loss):
        raise KitsError(
            f"{where}: found a loss of {loss}, expected a number; look at these cases "
            "(--check-data) or lower the learning rate; the last checkpoint is as it was"
        )
