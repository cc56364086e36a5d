"""Times whole cases, file to files: cold and many in a row, and the memory they take."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits_runtime.cases import find_cases
from kits_runtime.cohort import run_cohort
from kits_runtime.errors import EngineError
from kits_runtime.pipeline import job_for
from kits_runtime.segmenter import Segmenter

Facts = dict[str, object]

_WRITER = ("statistics", "quality", "write", "preview")

# Prints the seconds from the process's start to the first finished window, and to the labels.
_COLD = """
import sys, time
begun = float(sys.argv[1])
from kits_runtime import Segmenter, read_scan
first = []
scan = read_scan(sys.argv[2])
with Segmenter.from_bundle(sys.argv[3] or None, backend=sys.argv[4]) as segmenter:
    segmenter.segment(scan.volume, progress=lambda *_: first or first.append(time.time() - begun))
print(first[0], time.time() - begun)
"""

# Segments every case of a folder and prints the peak of resident memory in MB after each.
_MEMORY = """
import sys
from pathlib import Path
from kits_runtime.cases import find_cases
from kits_runtime.cohort import run_cohort
from kits_runtime.pipeline import job_for
from kits_runtime.record import peak_rss_mb
from kits_runtime.segmenter import Segmenter
jobs = [job_for(c, Path(sys.argv[2]), with_picture=False) for c in find_cases(Path(sys.argv[1]))]
with Segmenter.from_bundle(sys.argv[3] or None, backend=sys.argv[4]) as segmenter:
    run_cohort(segmenter, jobs, progress=lambda *_: None, finished=lambda _: print(peak_rss_mb()))
"""


def cold_start(scan: Path, *, bundle: str, backend: str, repeats: int) -> Facts:
    """Seconds from a process's start to its first finished window and to its labels; medians."""
    firsts, wholes = [], []
    for _ in range(repeats):
        told = _child(_COLD, str(time.time()), str(scan), bundle, backend)
        first, whole = (float(number) for number in told.split())
        firsts.append(first)
        wholes.append(whole)
    return {
        "first_window_s": round(statistics.median(firsts), 3),
        "labels_s": round(statistics.median(wholes), 3),
        "all_first_window_s": [round(value, 3) for value in firsts],
    }


def throughput(segmenter: Segmenter, source: Path) -> Facts:
    """A folder of cases as kits-infer runs it: wall time beside the time spent in nets."""
    with tempfile.TemporaryDirectory() as out:
        jobs = [job_for(case, Path(out), with_picture=False) for case in find_cases(source)]
        start = time.perf_counter()
        outcomes = run_cohort(segmenter, jobs, progress=_ignore, finished=_ignore)
        wall_ms = (time.perf_counter() - start) * 1e3
    phases = [outcome.record.run.stage_ms for outcome in outcomes if outcome.record is not None]
    if not phases:
        raise EngineError(
            f"{source}: found no case that ended well, expected some. Try kits-infer."
        )
    net_ms = sum(ms for run in phases for name, ms in run.items() if name.endswith(".net"))
    return {
        "cases": len(phases),
        "wall_ms": round(wall_ms, 1),
        "net_ms": round(net_ms, 1),
        "wall_over_net": round(wall_ms / net_ms, 3),
        "cases_per_minute": round(len(phases) / wall_ms * 6e4, 3),
        "busy_share": {name: round(ms / wall_ms, 4) for name, ms in _busy_ms(phases).items()},
    }


def _busy_ms(phases: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """The milliseconds for which each of the three threads, and the nets, had work."""
    busy = dict.fromkeys(("read", "segment", "write", "net"), 0.0)
    for run in phases:
        for name, ms in run.items():
            if name == "turn":  # waiting for the nets that another case has
                continue
            thread = "read" if name == "read" else "write" if name in _WRITER else "segment"
            busy[thread] += ms
            busy["net"] += ms if name.endswith(".net") else 0.0
    return busy


def peak_memory(source: Path, *, bundle: str, backend: str) -> Facts:
    """The peak of resident memory, MB, after each case of a folder in a process of its own."""
    find_cases(source)  # says what is wrong in this process, not in the child
    with tempfile.TemporaryDirectory() as out:
        told = _child(_MEMORY, str(source), out, bundle, backend)
    return memory_facts([float(line) for line in told.split()])


def memory_facts(peaks_mb: Sequence[float]) -> Facts:
    """What the peaks after each case say: their course, and how it rises in its second half.

    Until cases of all sizes have met on their way the peak must rise.
    """
    settled = peaks_mb[len(peaks_mb) // 2 :]
    slope = statistics.linear_regression(range(len(settled)), settled).slope if settled[1:] else 0.0
    return {
        "cases": len(peaks_mb),
        "peak_mb_after_first": round(peaks_mb[0]),
        "peak_mb": round(peaks_mb[-1]),
        "rise_mb_a_case": round(slope, 3),
        "peak_mb_after_each": [round(peak) for peak in peaks_mb],
    }


def _child(code: str, *arguments: str) -> str:
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise EngineError(
            f"{arguments[1]}: found a process that ended with code {done.returncode} ({last}), "
            "expected figures. Try kits-infer on the same scan."
        )
    return done.stdout


def _ignore(*_: object) -> None:
    pass
