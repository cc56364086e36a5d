"""What a training run leaves behind: metrics as they come, the best weights so far."""

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kits_trt.nets import SegmentationNet
from kits_trt.train.checkpoint import write_checkpoint

logger = logging.getLogger(__name__)

HEADER = (
    "step", "seconds", "loss", "learning_rate", "dice_mean", "dice_median", "dice_lowest"
)  # fmt: skip


class Record:
    """Writes ``metrics.csv`` (one row a validation) and ``<net>.safetensors`` into a folder.

    Losses between two validations are averaged into the row of the second.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str | int | float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics_path = folder / "metrics.csv"
        self.weights_path = folder / f"{facts['net']}.safetensors"
        self.best_dice = -1.0
        self._facts = dict(facts)
        self._losses: list[float] = []
        self._step, self._rate = -1, 0.0
        self._begun = time.monotonic()
        with self.metrics_path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(HEADER)

    @property
    def is_validated(self) -> bool:
        """Whether nothing has been learnt since the last validation."""
        return self.best_dice >= 0 and not self._losses

    def add_step(self, step: int, *, loss: float, rate: float) -> None:
        """Note one step's loss."""
        self._step, self._rate = step, rate
        self._losses.append(loss)
        if len(self._losses) % 25 == 0:
            recent = float(np.mean(self._losses[-25:]))
            pace = (step + 1) / (time.monotonic() - self._begun)
            logger.info("step %d: loss %.4f, %.2f steps/s", step + 1, recent, pace)

    def add_validation(self, net: SegmentationNet, dices: Sequence[float]) -> None:
        """Note Dice of the held-out cases; keep the weights if their mean is the best so far."""
        mean = float(np.mean(dices))
        loss = float(np.mean(self._losses)) if self._losses else float("nan")
        row = (
            self._step + 1,
            f"{time.monotonic() - self._begun:.1f}",
            *(f"{value:.6g}" for value in (loss, self._rate, mean)),
            *(f"{value:.6g}" for value in (float(np.median(dices)), min(dices))),
        )
        with self.metrics_path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)
        logger.info("step %d: Dice mean %.4f, lowest %.4f", row[0], mean, min(dices))
        self._losses.clear()
        if mean > self.best_dice:
            self.best_dice = mean
            facts = {**self._facts, "step": self._step + 1, "dice_mean": mean}
            write_checkpoint(self.weights_path, net, facts)
