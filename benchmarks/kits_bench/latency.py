"""Latency: all contestants on the same cases, one after the other, round by round."""

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_bench.case_files import BenchCase
from kits_bench.contestants import Reply, Runner
from kits_bench.figures import percentiles, ratio_of_medians
from kits_bench.foreign import ForeignLoad, foreign_load, usage_now, worst_of
from kits_runtime.nifti import read_scan

Told = Callable[[str], None]
Facts = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class _Column:
    """What one contestant did with one case; the first round warms up and is not counted."""

    runner: Runner
    wall_ms: list[float] = field(default_factory=list)
    way_back_ms: list[float] = field(default_factory=list)
    phases: list[Mapping[str, float]] = field(default_factory=list)
    first_ms: float | None = None
    last: Reply = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether it is of no use to ask again."""
        return bool(self.last) and self.last["state"] != "ok"

    def take(self, reply: Reply, *, counted: bool) -> None:
        """Takes in a reply."""
        self.last = reply
        if reply["state"] != "ok":
            return
        if not counted:
            self.first_ms = reply["wall_ms"]
            return
        self.wall_ms.append(reply["wall_ms"])
        self.way_back_ms.append(reply["way_back_ms"])
        self.phases.append(reply["phase_ms"])


def case_latency(runners: Sequence[Runner], case: BenchCase, *, repeats: int, told: Told) -> Facts:
    """What a record of latency says of one case; contestants that cannot run say why."""
    columns = [_Column(runner=runner) for runner in runners]
    loads: list[ForeignLoad] = []
    with tempfile.TemporaryDirectory() as out:
        case.scan.read_bytes()  # into the page cache: the disk is nobody's merit
        for round_ in range(repeats + 1):
            turn = round_ % len(columns)
            for column in (*columns[turn:], *columns[:turn]):
                if not column.over:
                    load = _one(column, case, Path(out), counted=round_ > 0)
                    loads.append(load)
            told(f"{case.name}: round {round_ + 1} of {repeats + 1}")
        rows = [_row(column) for column in columns]
        _add_agreement(rows, columns)
        found = _slices(case, columns)
    return {
        "case": dict(case.facts),
        "repeats": repeats,
        "contestants": rows,
        "ratios": _ratios(rows),
        "slices": found,
        "foreign_load": worst_of(loads),
    }


def _one(column: _Column, case: BenchCase, out: Path, *, counted: bool) -> ForeignLoad:
    runner = column.runner
    own = [os.getpid(), *([runner.pid] if runner.pid else [])]
    before = usage_now(own)
    reply = runner.ask(case.scan, out / runner.contestant.name.replace("/", "-"))
    own = [os.getpid(), *([runner.pid] if runner.pid else [])]
    load = foreign_load(before, usage_now(own), cores=len(os.sched_getaffinity(0)))
    column.take(reply, counted=counted)
    return load


def _row(column: _Column) -> Facts:
    row: Facts = {"name": column.runner.contestant.name, **column.runner.contestant.facts}
    if not column.wall_ms:
        state = "unrun" if column.last["state"] == "unrun" else "failed"
        return {**row, "state": state, "why": column.last.get("why", "it was not asked")}
    without = [a - b for a, b in zip(column.wall_ms, column.way_back_ms, strict=True)]
    phases = {
        name: round(statistics.median(run.get(name, 0.0) for run in column.phases), 2)
        for name in column.phases[-1]
    }
    net_ms = sum(ms for name, ms in phases.items() if name.rpartition(".")[2] == "net")
    median_ms = statistics.median(column.wall_ms)
    return {
        **row,
        "state": "ok",
        "runs_with": dict(column.runner.facts),
        "wall_ms": _rounded(column.wall_ms),
        "without_way_back_ms": _rounded(without),
        **percentiles(column.wall_ms),
        "without_way_back": percentiles(without),
        "first_ms": None if column.first_ms is None else round(column.first_ms, 2),
        "phase_ms": phases,
        "net_ms": round(net_ms, 2),
        "other_ms": round(median_ms - net_ms, 2),
        "windows": dict(column.last["windows"]),
        "peak_rss_mb": round(column.last["peak_rss_mb"], 1),
    }


def _ratios(rows: Sequence[Facts]) -> list[Facts]:
    """How many times as long each baseline takes as each of ours, with and without the way back."""
    ours = [row for row in rows if row["way"] in ("kits-trt",) and row["state"] == "ok"]
    others = [row for row in rows if row["way"] != "kits-trt" and row["state"] == "ok"]
    return [
        {
            "slower": other["name"],
            "faster": own["name"],
            "whole": ratio_of_medians(other["wall_ms"], own["wall_ms"]).to_plain(),
            "without_way_back": ratio_of_medians(
                other["without_way_back_ms"], own["without_way_back_ms"]
            ).to_plain(),
        }
        for own in ours
        for other in others
        if len(own["wall_ms"]) == len(other["wall_ms"])
    ]


def _add_agreement(rows: Sequence[Facts], columns: Sequence[_Column]) -> None:
    """Adds to each row how its mask differs from the first one's, class by class."""
    reference: NDArray[np.uint8] | None = None
    name = ""
    for row, column in zip(rows, columns, strict=True):
        if row["state"] != "ok":
            continue
        mask = read_mask(Path(column.last["mask"]))
        if reference is None:
            reference, name = mask, row["name"]
        else:
            row["agreement"] = {"with": name, **disagreement(mask, reference)}


def read_mask(path: Path) -> NDArray[np.uint8]:
    """The labels in a file on (z, y, x)."""
    return read_scan(path).volume.data.astype(np.uint8)


def disagreement(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Facts:
    """Differing voxels of each class as a share of the union of both; 0 where both are empty."""
    shares: Facts = {}
    for label in (1, 2):
        one, other = mask == label, reference == label
        union = int((one | other).sum())
        shares[f"differing_share_{label}"] = (
            round(int((one ^ other).sum()) / union, 6) if union else 0.0
        )
    one, other = mask > 0, reference > 0
    union = int((one | other).sum())
    shares["differing_share_foreground"] = (
        round(int((one ^ other).sum()) / union, 6) if union else 0.0
    )
    return shares


def _slices(case: BenchCase, columns: Sequence[_Column]) -> Facts:
    """In how many slices foreground was found, and in how many there is some."""
    done = [column for column in columns if column.wall_ms]
    truth = case.scan.with_name("segmentation.nii.gz")
    found: Facts = {"all": case.size[0]}
    if done:
        mask = read_mask(Path(done[0].last["mask"]))
        found["found"] = int((mask > 0).any(axis=(1, 2)).sum())
    if truth.is_file() and truth != case.scan:
        found["true"] = int((read_mask(truth) > 0).any(axis=(1, 2)).sum())
    return found


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]
