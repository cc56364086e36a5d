"""Records of measurements: JSON files, and the tables that are made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits_bench.machine import machine_facts
from kits_bench.stages import Timing
from kits_runtime.files import replacing


def record_of(
    kind: str, *, scan: Mapping[str, object], repeats: int, facts: Mapping[str, object]
) -> Mapping[str, object]:
    """The record of one measurement: the machine, the scans, and what was found."""
    return {
        "kind": kind,
        "dry": False,
        "machine": machine_facts(),
        "scan": dict(scan),
        "repeats": repeats,
        **facts,
    }


def stages_facts(timings: Sequence[Timing]) -> list[Mapping[str, object]]:
    """What was found of the stages, ready for a record."""
    return [
        {
            "stage": timing.stage,
            "way": timing.way,
            "median_ms": round(timing.median_ms, 2),
            "ms": list(timing.ms),
            "likeness": timing.likeness,
        }
        for timing in timings
    ]


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())


def stages_table(record: Mapping[str, object]) -> str:
    """The Markdown table of a stages record: one row a way, ours first in each stage."""
    rows = [
        "| stage | way | median ms | ours is faster by | same result |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    ours_ms = 1.0
    for timing in _timings(record):
        stage, way, median_ms = timing["stage"], timing["way"], float(str(timing["median_ms"]))
        if way == "kits-trt":
            ours_ms = median_ms
            rows.append(f"| {stage} | **kits-trt** | **{median_ms:.1f}** | | |")
        else:
            likeness = float(str(timing["likeness"]))
            rows.append(
                f"| | {way} | {median_ms:.1f} | {median_ms / ours_ms:.1f} x | {likeness:.2%} |"
            )
    return "\n".join(rows) + "\n"


def _timings(record: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    timings = record["timings"]
    assert isinstance(timings, list)
    return timings
