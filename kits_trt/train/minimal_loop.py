"""The training loop: batches in, weights stepped, validation at intervals."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kits_runtime.errors import KitsError
from kits_trt.nets import SegmentationNet, build_net
from kits_trt.train.checkpoint import read_checkpoint
from kits_trt.train.patches import Batch
from kits_trt.train.phantom_cache import Case
from kits_trt.train.record import Record

WARMUP_STEPS = 30
SETTLING_BATCHES = 20
SETTLING_KEY = 1 << 30  # steps of batches that only settle the norms; no training gets so far
_LARGEST_GRADIENT = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What differs between the two networks' trainings.

    ``draw`` takes cases, (seed, step) and a batch size; ``loss`` logits, labels and the epoch.
    """

    net: str
    learning_rate: float
    batch_size: int
    draw: Callable[[Sequence[Case], tuple[int, int], int], Batch]
    loss: Callable[[Sequence[Tensor], Tensor, int], Tensor]
    validate: Callable[[SegmentationNet, Sequence[Case]], list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a run lasts: whichever ends first, and where it begins."""

    steps: int
    seed: int = 0
    minutes: float = math.inf
    validate_every: int = 150
    start: Path | None = None


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Return a short linear rise to the peak, then a cosine to nothing as progress goes to 1."""
    rise = min(1.0, (step + 1) / WARMUP_STEPS)
    return peak * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(
    task: Task,
    budget: Budget,
    *,
    cases: Sequence[Case],
    held_out: Sequence[Case],
    record: Record,
) -> float:
    """Train the task's network and return its best mean validation Dice.

    The record is told of every step and keeps the best weights.

    Raises:
        KitsError: The loss stopped being a number.
    """
    torch.manual_seed(budget.seed)
    net = read_checkpoint(budget.start)[0] if budget.start else build_net(task.net, "small")
    stepper = Stepper(net, task, cases, seed=budget.seed)
    begun = time.monotonic()
    for step in range(budget.steps):
        minutes = (time.monotonic() - begun) / 60
        progress = max(step / budget.steps, minutes / budget.minutes)
        if progress >= 1:
            break
        rate = learning_rate(task.learning_rate, step, progress)
        record.add_step(step, loss=stepper.step(step, rate), rate=rate)
        if (step + 1) % budget.validate_every == 0:
            stepper.settle_norms()
            record.add_validation(net, task.validate(net.eval(), held_out))
    if not record.is_validated:
        stepper.settle_norms()
        record.add_validation(net, task.validate(net.eval(), held_out))
    return record.best_dice


class Stepper:
    """A network and its optimiser, moved one batch at a time.

    Weights stay float32; the forward pass runs in bfloat16 where torch's autocast does so, with
    channels last in memory. On two cores with AVX512-BF16 a step of the 3D net took 1.7 s instead
    of 5.2 s in plain float32, one of the 2D net (16 stacks) 0.23 s instead of 0.27 s.
    """

    def __init__(
        self, net: SegmentationNet, task: Task, cases: Sequence[Case], *, seed: int
    ) -> None:
        self._task, self._cases, self._seed = task, cases, seed
        solid = any(weights.ndim == 5 for weights in net.parameters())
        self._layout = torch.channels_last_3d if solid else torch.channels_last
        for weights in net.parameters():
            if weights.ndim == (5 if solid else 4):
                weights.data = weights.data.contiguous(memory_format=self._layout)
        self._net = net
        self._optimiser = torch.optim.AdamW(net.parameters(), weight_decay=1e-4, fused=True)

    @torch.no_grad()
    def settle_norms(self) -> None:
        """Make the norms' means and variances those of the weights as they are now.

        While weights move, running means lag behind them: by up to a standard deviation where the
        input's mean is large beside its spread, which turned a Dice of 0.6 into 0.2.
        """
        norms = [m for m in self._net.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches since the reset
        self._net.train()
        for batch in range(SETTLING_BATCHES):
            key = (self._seed, SETTLING_KEY + batch)
            patches, _ = self._task.draw(self._cases, key, self._task.batch_size)
            with torch.autocast("cpu", torch.bfloat16):
                self._net.final_logits(patches.contiguous(memory_format=self._layout))

    def step(self, step: int, rate: float) -> float:
        """Take one step at a learning rate and return the loss before it."""
        task = self._task
        self._net.train()
        patches, labels = task.draw(self._cases, (self._seed, step), task.batch_size)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._net.logits(patches.contiguous(memory_format=self._layout))
        loss = task.loss(logits, labels, step * task.batch_size // len(self._cases))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise KitsError(
                f"step {step}: found a loss of {value}, expected a number; lower the learning rate"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._net.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        return value
