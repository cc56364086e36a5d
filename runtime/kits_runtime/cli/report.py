"""What ``kits-infer`` tells while it runs, and the summary that it leaves."""

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from kits_runtime.cli.console import ProgressLine, error_line
from kits_runtime.cohort import CaseOutcome
from kits_runtime.files import replacing
from kits_runtime.pipeline import Job


class Reporter:
    """Tells people on a stream, and programs in a file of JSON lines, how a run goes."""

    def __init__(
        self, stream: TextIO, *, cases: int, quiet: bool, progress: bool, log: Path | None
    ) -> None:
        self._stream = stream
        self._cases = cases
        self._quiet = quiet
        self._line = ProgressLine(stream, enabled=progress and not quiet)
        self._log = log
        self._done = 0
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        """Tells people something, unless they asked for quiet."""
        if not self._quiet:
            self._write(text)

    def progress(self, job: Job, stage: str, share: float) -> None:
        """Shows how far a case is."""
        count = f"[{self._done + 1}/{self._cases}] " if self._cases > 1 else ""
        self._line.show(f"{count}{job.case.name}: {stage} {share:4.0%}{self._time_left()}")

    def finished(self, outcome: CaseOutcome) -> None:
        """Tells how a case ended."""
        self._done += 1
        self._line.clear()
        if outcome.error is not None:
            self._write(f"{outcome.job.case.name}: failed: {error_line(outcome.error)}")
        elif outcome.record is None:
            self.say(f"{outcome.job.case.name}: skipped, its result is up to date")
        else:
            self.say(_told(outcome))
        self.event("case", summary_row(outcome))

    def event(self, name: str, facts: Mapping[str, object]) -> None:
        """Adds a line to the JSON log, where there is one."""
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": name, "time": time.time(), **facts}) + "\n")

    def end(self) -> None:
        """Clears what stands on the terminal."""
        self._line.clear()

    def _time_left(self) -> str:
        if self._cases == 1 or not self._done:
            return ""
        seconds = (time.monotonic() - self._begun) / self._done * (self._cases - self._done)
        return f", {seconds // 60:.0f}:{seconds % 60:02.0f} left"

    def _write(self, text: str) -> None:
        self._line.clear()
        self._stream.write(text + "\n")
        self._stream.flush()


def summary_row(outcome: CaseOutcome) -> dict[str, object]:
    """One case as a flat row: its end, sizes, time and warnings."""
    row: dict[str, object] = {"case": outcome.job.case.name, "scan": str(outcome.job.case.scan)}
    if outcome.error is not None:
        return {**row, "status": "failed", "error": error_line(outcome.error)}
    if outcome.record is None:
        return {**row, "status": "skipped"}
    run = outcome.record.run
    sizes = {f"{name}_ml": round(ml, 3) for name, ml in run.volumes_ml.items()}
    warnings = "; ".join(run.warnings)
    return {**row, "status": "ok", **sizes, "total_ms": round(run.total_ms), "warnings": warnings}


def write_summary(path: Path, outcomes: Sequence[CaseOutcome], labels: Sequence[str]) -> None:
    """Writes one CSV row a case; ``labels`` are the names of the labels, background first."""
    sizes = [f"{name}_ml" for name in labels[1:]]
    columns = ["case", "scan", "status", *sizes, "total_ms", "warnings", "error"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(summary_row(outcome) for outcome in outcomes)
    with replacing(path) as stream:
        stream.write(text.getvalue().encode())


def _told(outcome: CaseOutcome) -> str:
    assert outcome.record is not None
    run, name = outcome.record.run, outcome.job.case.name
    sizes = ", ".join(f"{label} {ml:.1f} ml" for label, ml in run.volumes_ml.items())
    lines = [f"{name}: {sizes}, {run.total_ms / 1000:.2f} s, {outcome.job.mask}"]
    lines += [f"{name}: warning: {warning}" for warning in run.warnings]
    return "\n".join(lines)
