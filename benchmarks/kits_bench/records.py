"""Records of measurements: one JSON file a case, resumed where nothing changed, never mixed.

A record says what it was measured with (``config``). A run that meets a record of the same config
takes it as done; one of another bundle or case by the same name stops the run; any other difference
(commit, versions, repeats, contestants) means that the case is measured again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_bench.machine import machine_facts
from kits_bench.stages import Timing
from kits_runtime.errors import UsageError
from kits_runtime.files import replacing

SCHEMA = 2
_COMMITTED = ("benchmarks", "results")
_NEVER_MIXED = ("bundle_sha256", "case_sha256")

Record = Mapping[str, Any]


def config_sha256(config: Mapping[str, object]) -> str:
    """A hash of everything that a measurement depends on."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStore:
    """A folder of records of one machine."""

    folder: Path
    dry: bool = False

    def __post_init__(self) -> None:
        """Refuse to leave made-up figures among committed ones.

        Raises:
            UsageError: a dry run would write there.
        """
        if self.dry:
            _refuse_dry(self.folder)

    def path(self, kind: str, subject: str, case: str) -> Path:
        """Where the record of a case lies; ``subject`` is what was measured, as a short name."""
        return self.folder / f"{kind}-{subject}-{case}.json"

    def finished(self, path: Path, config: Mapping[str, object]) -> Record | None:
        """The record that is there already and was measured just so; None if it must be measured.

        Raises:
            UsageError: what is there was measured on another bundle or case.
        """
        if not path.is_file():
            return None
        try:
            record: Record = json.loads(path.read_bytes())
            told = record["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: found no record ({type(error).__name__}), expected one of this suite. "
                "Move it away or choose another --results."
            ) from error
        for field in _NEVER_MIXED:
            if told.get(field) != config.get(field):
                raise UsageError(
                    f"{path}: found a record with {field} {_short(told.get(field))}, expected "
                    f"{_short(config.get(field))}. Records of different bundles or cases are "
                    "never merged: choose another --results or remove the old ones."
                )
        return record if record["config_sha256"] == config_sha256(config) else None

    def write(
        self, path: Path, config: Mapping[str, object], facts: Mapping[str, object]
    ) -> Record:
        """Writes a record, whole or not at all, and returns it."""
        record = {
            "schema": SCHEMA,
            "kind": config["kind"],
            "dry": self.dry,
            "config_sha256": config_sha256(config),
            "config": dict(config),
            "machine": machine_facts(),
            **facts,
        }
        write_record(path, record)
        return record


def read_records(place: Path) -> tuple[Record, ...]:
    """The records of a file or a folder, by name.

    Raises:
        UsageError: nothing is there, or a file is no record.
    """
    paths = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    records = []
    for path in paths:
        try:
            record = json.loads(path.read_bytes())
            record["kind"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: found no record ({type(error).__name__}), expected JSON that kits-bench "
                "wrote. Give its folder or one of its files."
            ) from error
        records.append(record)
    if not records:
        raise UsageError(f"{place}: found no record, expected some. Give a folder that has them.")
    return tuple(records)


def record_of(
    kind: str, *, scan: Mapping[str, object], repeats: int, facts: Mapping[str, object]
) -> Record:
    """The record of a measurement of stages: the machine, the scan, and what was found."""
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
    """Writes a record as JSON, whole or not at all.

    Raises:
        UsageError: a dry run's record would come to lie among committed ones.
    """
    if record.get("dry"):
        _refuse_dry(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write((json.dumps(record, indent=1) + "\n").encode())


def _refuse_dry(path: Path) -> None:
    parts = path.resolve().parts
    if any(parts[i : i + 2] == _COMMITTED for i in range(len(parts))):
        raise UsageError(
            f"{path}: found a dry run, expected real measurements under {'/'.join(_COMMITTED)}. "
            "Choose another --results for dry runs."
        )


def _short(value: object) -> str:
    return str(value)[:12]


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
