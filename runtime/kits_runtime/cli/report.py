"""What ``kits-infer`` tells while it runs, and the summary that it leaves."""

import csv
import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from kits_runtime.cli.console import ProgressLine, clock_time, error_line
from kits_runtime.cli.course import Course
from kits_runtime.cohort import READING, WRITING, CaseOutcome
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
        self._course: Course | None = None
        self._turn = threading.RLock()  # cases end in other threads than they progress in

    def say(self, text: str) -> None:
        """Tells people something, unless they asked for quiet."""
        if not self._quiet:
            self._write(text)

    def opening(self, what: str) -> None:
        """Shows that something is being opened, before there are cases to tell of."""
        self._line.show_bar(0.0, f"opening {what}")

    def begin(self, stages: Sequence[str]) -> None:
        """The cases begin now; ``stages`` are the manifest's, in order."""
        self._course = Course(cases=self._cases, stages=stages)

    def progress(self, job: Job, stage: str, share: float) -> None:
        """Shows how far a case is, and the run."""
        with self._turn:
            if self._course is not None:
                self._course.at(job, stage, share)
                self._show(self._course)

    def finished(self, outcome: CaseOutcome) -> None:
        """Tells how a case ended; the failure of an only case is left to who ends the command."""
        with self._turn:
            self._done += 1
            count, name = self._counted(self._done), outcome.job.case.name
            if outcome.error is not None:
                if self._cases > 1:
                    self._write(f"{count}{name}: failed: {error_line(outcome.error)}")
            elif outcome.record is None:
                self.say(f"{count}{name}: skipped, its result is up to date")
            else:
                self.say(count + _told(outcome))
            self.event("case", summary_row(outcome))
            if self._course is not None:
                record = outcome.record
                self._course.ended(outcome.job, None if record is None else record.run.stage_ms)
                self._show(self._course)

    def event(self, name: str, facts: Mapping[str, object]) -> None:
        """Adds a line to the JSON log, where there is one."""
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"event": name, "time": time.time(), **facts}) + "\n")

    def end(self) -> None:
        """Clears what stands on the terminal."""
        self._line.clear()

    def _counted(self, number: int) -> str:
        return f"[{number}/{self._cases}] " if self._cases > 1 else ""

    def _show(self, course: Course) -> None:
        shown = course.shown()
        if shown is None:
            return
        job, stage, share = shown
        seconds = course.seconds_left()
        within = "" if stage in (READING, WRITING) else f" {share:.0%}"
        rest = "" if seconds is None else f", {clock_time(seconds)} left"
        text = f"{course.share:4.0%} {self._counted(self._done + 1)}{job.case.name}: {stage}"
        self._line.show_bar(course.share, text + within + rest)

    def _write(self, text: str) -> None:
        with self._turn:
            self._line.clear()
            self._stream.write(text + "\n")
            self._stream.flush()


def summary_row(outcome: CaseOutcome) -> dict[str, object]:
    """One case as a flat row: its end, sizes, time and warnings.

    Of a skipped case it tells what the record beside its mask says.
    """
    row: dict[str, object] = {"case": outcome.job.case.name, "scan": str(outcome.job.case.scan)}
    if outcome.error is not None:
        return {**row, "status": "failed", "error": error_line(outcome.error)}
    if outcome.record is None:
        told = json.loads(outcome.job.record.read_bytes())
        return {**row, "status": "skipped", **_figures(told)}
    return {**row, "status": "ok", **_figures(outcome.record.to_plain())}


def write_summary(path: Path, outcomes: Sequence[CaseOutcome], labels: Sequence[str]) -> None:
    """Writes one CSV row a case; ``labels`` are the names of the labels, background first.

    Paths keep their bytes, also where these are no UTF-8.
    """
    sizes = [f"{name}_ml" for name in labels[1:]]
    columns = ["case", "scan", "status", *sizes, "total_ms", "warnings", "error"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(summary_row(outcome) for outcome in outcomes)
    with replacing(path) as stream:
        stream.write(text.getvalue().encode(errors="surrogateescape"))


def _figures(record: Mapping[str, Any]) -> dict[str, object]:
    sizes = {f"{name}_ml": ml for name, ml in record["volumes_ml"].items()}
    warnings = "; ".join(record["warnings"])
    return {**sizes, "total_ms": round(record["total_ms"]), "warnings": warnings}


def _told(outcome: CaseOutcome) -> str:
    assert outcome.record is not None
    run, name = outcome.record.run, outcome.job.case.name
    sizes = ", ".join(f"{label} {ml:.1f} ml" for label, ml in run.volumes_ml.items())
    lines = [f"{name}: {sizes}, {run.total_ms / 1000:.2f} s, {outcome.job.mask}"]
    lines += [f"{name}: warning: {warning}" for warning in run.warnings]
    return "\n".join(lines)
