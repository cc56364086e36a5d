"""What a terminal sees while cases run: a bar, the case, its stage, and the time that is left."""

import contextlib
import io
import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from types import SimpleNamespace
from typing import Any, cast

import pytest
from bundles import write_scan

from kits_runtime.cases import Case
from kits_runtime.cli.console import ProgressLine, bar, clock_time
from kits_runtime.cli.course import Course
from kits_runtime.cli.report import Reporter
from kits_runtime.cohort import READING, WRITING, CaseOutcome
from kits_runtime.pipeline import Job, job_for


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def line(self) -> str:
        """What the last carriage return left to see."""
        return self.getvalue().rpartition("\r")[2]


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def job(name: str) -> Job:
    return job_for(Case(name=name, scan=Path(f"{name}.nii")), Path("out"), with_picture=False)


def course(*stages: str, cases: int = 1) -> tuple[Course, Watch]:
    watch = Watch()
    return Course(cases=cases, stages=stages, now=watch), watch


def test_a_first_case_is_measured_by_its_stages() -> None:
    run, watch = course("kidney", "tumour")
    run.at(job("a"), READING, 0.0)
    assert (run.share, run.seconds_left()) == (0.0, None)
    run.at(job("a"), "kidney", 0.5)
    watch.seconds = 12.0
    # reading 0.1, half a stage of 1, of 2.2 in all
    assert run.share == pytest.approx(0.6 / 2.2)
    assert run.seconds_left() == pytest.approx(12.0 / 0.6 * 1.6)
    run.at(job("a"), "tumour", 1.0)
    watch.seconds = 42.0
    assert run.seconds_left() == pytest.approx(42.0 / 2.1 * 0.1)


def test_later_cases_are_measured_by_what_the_stages_of_earlier_ones_took() -> None:
    run, watch = course("kidney", "tumour", cases=3)
    run.at(job("a"), "kidney", 1.0)
    took = {"read": 100.0, "kidney.look": 50.0, "kidney.net": 550.0, "tumour.net": 200.0}
    run.ended(job("a"), {**took, "overlay": 20.0, "write": 70.0, "quality": 10.0})
    run.at(job("b"), "kidney", 0.5)
    watch.seconds = 14.0
    assert run.share == pytest.approx((1 + 0.1 + 0.6 / 2) / 3)
    assert run.seconds_left() == pytest.approx(14.0 / 1.4 * 1.6)


def test_skipped_cases_shorten_the_rest_but_say_nothing_about_the_pace() -> None:
    run, watch = course("kidney", cases=4)
    run.ended(job("a"), None)
    run.ended(job("b"), None)
    assert (run.share, run.seconds_left()) == (0.5, None)
    run.at(job("c"), "kidney", 1.0)
    run.ended(job("c"), {"kidney.net": 1000.0})
    watch.seconds = 3.0
    assert run.seconds_left() == pytest.approx(3.0)


def test_the_case_in_the_nets_is_shown_before_those_read_and_written_beside_it() -> None:
    run, _ = course("kidney", cases=3)
    assert run.shown() is None
    run.at(job("a"), WRITING, 0.0)
    assert run.shown() == (job("a"), WRITING, 0.0)
    run.at(job("c"), READING, 0.0)
    assert run.shown() == (job("c"), READING, 0.0)
    run.at(job("b"), "kidney", 0.25)
    assert run.shown() == (job("b"), "kidney", 0.25)


@pytest.mark.parametrize(
    ("share", "drawn"),
    [(0.0, "[....]"), (0.49, "[#...]"), (0.5, "[##..]"), (1.0, "[####]"), (1.2, "[####]")],
)
def test_a_bar_is_full_up_to_its_share(share: float, drawn: str) -> None:
    assert bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_time_is_shown_as_a_clock_does(seconds: float, shown: str) -> None:
    assert clock_time(seconds) == shown


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        (80, "[############............] kidney"),
        (20, "[#####.....] kidney"),
        (15, "kidney"),
        (4, "kid"),
    ],
)
def test_the_bar_has_the_room_that_the_text_leaves(
    monkeypatch: pytest.MonkeyPatch, columns: int, seen: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    ProgressLine(terminal, enabled=True).show_bar(0.5, "kidney")
    assert terminal.line == seen


def test_a_line_that_was_longer_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    line = ProgressLine(terminal, enabled=True)
    line.show("x" * 50)
    line.show("done")
    line.clear()
    assert terminal.getvalue() == "\r" + "x" * 19 + "\r" + "done".ljust(19) + "\r    \r"


def test_a_terminal_sees_bar_case_stage_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    watch = Watch()
    monkeypatch.setattr("kits_runtime.cli.report.Course", lambda **more: Course(now=watch, **more))
    terminal = Terminal()
    reporter = Reporter(terminal, cases=2, quiet=False, progress=True, log=None)
    reporter.opening("the bundle")
    assert terminal.line == "[........................] opening the bundle"
    reporter.begin(["kidney"])
    reporter.progress(job("a"), READING, 0.0)
    assert terminal.line.rstrip() == "[........................]   0% [1/2] a: reading"
    reporter.progress(job("a"), "kidney", 0.5)
    watch.seconds = 30.0
    reporter.progress(job("a"), "kidney", 1.0)
    # 1.1 of 1.2 parts of the first of two cases
    assert terminal.line == "[###########.............]  46% [1/2] a: kidney 100%, 0:35 left"
    run = SimpleNamespace(stage_ms={"kidney": 30e3}, volumes_ml={}, total_ms=30e3, warnings=())
    record = SimpleNamespace(run=run, to_plain=lambda: {**vars(run)})
    reporter.finished(CaseOutcome(job=job("a"), record=cast(Any, record)))
    reporter.progress(job("b"), "kidney", 0.5)
    watch.seconds = 45.0
    reporter.progress(job("b"), "kidney", 0.5)
    assert terminal.line == "[##################......]  75% [2/2] b: kidney 50%, 0:15 left"
    reporter.end()
    assert terminal.line == ""


def in_a_terminal(*command: object, columns: int) -> tuple[int, str]:
    """A process's exit code and what it wrote to a terminal of so many columns."""
    outer, inner = pty.openpty()
    ioctl(inner, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=inner, stdout=inner, stderr=inner,
        env={**kept, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    os.close(inner)
    said = b""
    with contextlib.suppress(OSError):  # how the end of a terminal reads
        while chunk := os.read(outer, 4096):
            said += chunk
    os.close(outer)
    return process.wait(timeout=60), said.decode()


def lines_in(said: str) -> list[str]:
    """Each state that the line was in."""
    return [part.rstrip() for part in re.split(r"[\r\n]+", said) if part.strip()]


@pytest.fixture
def infer_command(one_stage: Path, tmp_path: Path) -> Callable[..., list[object]]:
    def command(*more: object) -> list[object]:
        code = "from kits_runtime.cli.start import infer; raise SystemExit(infer())"
        scan = write_scan(tmp_path / "scan.nii.gz")
        given = ["-i", scan, "-o", tmp_path / "out", "--bundle", one_stage, "--overwrite", *more]
        return [sys.executable, "-c", code, *given, "--backend", "ort-cpu", "--threads", "1"]

    return command


def test_in_a_real_terminal_the_bar_grows_within_its_width(
    infer_command: Callable[..., list[object]],
) -> None:
    code, said = in_a_terminal(*infer_command(), columns=60)
    assert code == 0
    seen = [line for line in lines_in(said) if line.startswith("[")]
    assert seen[0].endswith("opening the bundle")
    assert seen[1].endswith("0% scan: reading")
    assert any(re.search(r"% scan: \w+ 100%, 0:\d\d left$", line) for line in seen)
    assert max(len(line) for line in seen) <= 59
    filled = [line.count("#") for line in seen]
    assert filled == sorted(filled)
    assert filled[-1] > 0
    assert any(re.match(r"scan: kidney .* ml", line) for line in lines_in(said))


@pytest.mark.parametrize("flag", ["--no-progress", "-q"])
def test_in_a_real_terminal_nothing_moves_when_asked(
    infer_command: Callable[..., list[object]], flag: str
) -> None:
    code, said = in_a_terminal(*infer_command(flag), columns=60)
    assert code == 0
    assert [line for line in lines_in(said) if line.startswith("[")] == []
    assert (said == "") == (flag == "-q")


def test_an_error_stands_on_a_line_of_its_own(
    infer_command: Callable[..., list[object]], tmp_path: Path
) -> None:
    (tmp_path / "no.kits").write_bytes(b"")
    code, said = in_a_terminal(*infer_command("--bundle", tmp_path / "no.kits"), columns=60)
    assert code == 4
    assert re.search(r"\r +\rkits-infer: ", said)
