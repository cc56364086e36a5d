"""What a training leaves behind: checkpoints, its state, metrics, a record and curves."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from kits_runtime.errors import BundleError
from kits_runtime.files import replacing
from kits_trt.nets import SegmentationNet
from kits_trt.train.checkpoint import write_trained_nets
from kits_trt.train.course import Course, Validation
from kits_trt.train.curves import draw_curves
from kits_trt.train.state_file import Settings, write_state
from kits_trt.train.trainee import Trainee

logger = logging.getLogger(__name__)

LAST, BEST = "last.safetensors", "best.safetensors"
STATE, RECORD = "last.optimiser.safetensors", "run.json"
METRICS, CURVES = "metrics.csv", "curves.png"
_COLUMNS = (
    "net", "epoch", "step", "loss", "validation_loss", "learning_rate", "mean_dice", "seconds",
)  # fmt: skip

State = Mapping[str, Tensor]


@dataclass(slots=True, kw_only=True)
class RunFolder:
    """The files of one run, and what must be known to write them again.

    Attributes:
        path: The folder.
        facts: Of the checkpoints' headers, the same in all.
        last: The newest weights of each net trained so far.
        best: Its weights with the best validation Dice.
        finished: The nets in ``last`` that are trained to their end.
        metrics: What the validation of ``best`` found, by net.
        last_metrics: The same of ``last``, where these weights were validated.
        system_metrics: What was found of the whole system with the weights in ``best``.
        rows: The lines of ``metrics.csv``.
        record: The content of ``run.json``.
    """

    path: Path
    facts: Mapping[str, object]
    last: dict[str, State] = field(default_factory=dict)
    best: dict[str, State] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    last_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    system_metrics: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    record: dict[str, object] = field(default_factory=dict)

    def keep(
        self, trainee: Trainee, course: Course, found: Validation | None, *, settings: Settings
    ) -> None:
        """Save a training between two steps; the state last, so that it is never ahead of them.

        Whoever is ended between the two has a net in ``last`` that is neither finished nor the
        state's: its training begins anew.
        """
        state = copied_state(trainee.net)
        self.last[course.net] = state
        if course.is_over and not course.is_due:
            self.finished.add(course.net)
        else:
            self.finished.discard(course.net)
        self.last_metrics.pop(course.net, None)
        self.system_metrics = {}
        if found is not None:
            self._add_row(course, found)
            self.last_metrics[course.net] = _metrics(course, found)
            if course.net not in self.best or found.mean_dice >= course.best_dice:
                self.best[course.net] = state
                self.metrics[course.net] = self.last_metrics[course.net]
        self.write_checkpoints()
        write_state(self.path / STATE, trainee, course, settings)

    def write_checkpoints(self) -> None:
        """Write ``last`` and ``best`` as they are now."""
        for name, states in ((LAST, self.last), (BEST, self.best)):
            if states:
                write_trained_nets(self.path / name, states, {**self.facts, **self._found(name)})

    def _add_row(self, course: Course, found: Validation) -> None:
        """Add a validation to ``metrics.csv`` and draw the curves anew."""
        loss = course.last_loss
        row = {
            "net": course.net,
            "epoch": str(course.epoch),
            "step": str(course.step),
            "loss": "" if loss is None else f"{loss:.6g}",
            "validation_loss": f"{found.loss:.6g}",
            "learning_rate": f"{course.rate:.6g}",
            "mean_dice": f"{found.mean_dice:.6g}",
            "seconds": f"{course.seconds:.1f}",
        }
        row |= {f"dice_{place}": f"{dice:.6g}" for place, dice in enumerate(found.dice, start=1)}
        self.rows.append(row)
        self._write_rows()

    def write_record(self, **facts: object) -> None:
        """Write ``run.json``, these facts added to what it says already."""
        self.record |= facts
        with replacing(self.path / RECORD) as stream:
            stream.write((json.dumps(self.record, indent=1, allow_nan=False) + "\n").encode())

    def read_rows(self, steps: Mapping[str, int]) -> None:
        """Take up the lines of an earlier part of the run, up to so many steps a net.

        Raises:
            BundleError: They are not what this class writes.
        """
        path = self.path / METRICS
        if not path.is_file():
            return
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                self.rows = [
                    {key: value for key, value in row.items() if value is not None}
                    for row in csv.DictReader(stream, strict=True)
                    if int(row["step"]) <= steps.get(row["net"], 0)
                ]
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{path}: found rows that cannot be read ({type(error).__name__}: {error}), "
                "expected those of this run, with 'net' and 'step'; restore the file, or remove it "
                "to go on without them"
            ) from error

    def _found(self, name: str) -> dict[str, object]:
        if name == LAST:
            finished = sorted(self.finished)
            return {"metrics": self.last_metrics, "weights": "last", "finished": finished}
        metrics = {net: values for net, values in self.metrics.items() if net in self.best}
        if self.system_metrics:
            metrics["system"] = self.system_metrics
        return {"metrics": metrics, "weights": "best"}

    def _write_rows(self) -> None:
        dices = sorted({key for row in self.rows for key in row if key not in _COLUMNS})
        text = io.StringIO()
        writer = csv.DictWriter(text, (*_COLUMNS, *dices), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with replacing(self.path / METRICS) as stream:
            stream.write(text.getvalue().encode())
        draw_curves(self.path / CURVES, self.rows)


def copied_state(net: SegmentationNet) -> dict[str, Tensor]:
    """A copy of a net's weights and running statistics, in main memory."""
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def _metrics(course: Course, found: Validation) -> dict[str, float]:
    dices: Sequence[float] = found.dice
    return {
        **{f"validation Dice of class {place}": dice for place, dice in enumerate(dices, start=1)},
        "validation loss": found.loss,
        "steps": float(course.step),
    }
