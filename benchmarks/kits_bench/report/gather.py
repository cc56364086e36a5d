"""Records for one report: of one machine, all dry or all real, none twice."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kits_bench.records import Record, read_records
from kits_bench.report.blocks import Facts
from kits_runtime.errors import UsageError

KINDS = (
    "latency", "cold", "throughput", "parity", "memory", "roofline", "scaling", "windows",
)  # fmt: skip
_MACHINE = ("processor", "cores", "system", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The records of a report, in a fixed order."""

    name: str
    records: tuple[Record, ...]
    left_out: int

    @property
    def dry(self) -> bool:
        """Whether the nets were made up."""
        return bool(self.records[0]["dry"])

    @property
    def machine(self) -> Facts:
        """What the records' machine says of itself."""
        machine: Facts = self.records[0]["machine"]
        return machine

    @property
    def subjects(self) -> tuple[str, ...]:
        """What was measured, as 'system:preset'."""
        found = {subject_of(record) for record in self.records if "bundle" in record}
        return tuple(sorted(found))

    def of(self, kind: str, subject: str | None = None) -> tuple[Record, ...]:
        """The records of a kind, and of a subject if one is given."""
        return tuple(
            record
            for record in self.records
            if record["kind"] == kind and subject in (None, subject_of(record))
        )


def gather(folder: Path) -> Gathered:
    """The records under a folder.

    Raises:
        UsageError: they are of different machines or bundles, dry and real, or one is there twice.
    """
    found = read_records(folder)
    suite = [record for record in found if _of_the_suite(record)]
    if not suite:
        raise UsageError(
            f"{folder}: found {len(found)} records but none of the suite, expected some that "
            "kits-bench wrote. Give the folder of one machine."
        )
    _require_one(folder, {"a dry run" if r["dry"] else "real measurements" for r in suite})
    _require_one(folder, {_machine_line(record["machine"]) for record in suite})
    for subject, kinds in _bundles(suite).items():
        _require_one(folder, {f"{subject} with bundle {sha256[:12]}" for sha256 in kinds})
    ordered = tuple(sorted(suite, key=_order))
    names = [" ".join(map(str, _order(record))) for record in ordered]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{folder}: found more than one record of {twice[0]}, expected one each. Give the "
            "folder of one run."
        )
    name = folder.resolve().name
    return Gathered(name=name, records=ordered, left_out=len(found) - len(suite))


def subject_of(record: Record) -> str:
    """What was measured, as the command line names it; the sixth net has no bundle."""
    if "bundle" not in record:
        return str(record["config"]["bundle_sha256"])
    return f"{record['bundle']['system']}:{record['bundle']['preset']}"


def case_of(record: Record) -> str:
    """The case's name; a record of a whole run has none."""
    return str(record["case"]["name"]) if "case" in record else ""


def state_and_why(row: Facts) -> str:
    """Why a row has no figure."""
    return f"{row['state']}: {row.get('why', 'no reason was recorded')}"


def _of_the_suite(record: Mapping[str, object]) -> bool:
    return record["kind"] in KINDS and "config" in record and "machine" in record


def _order(record: Record) -> tuple[int, str, str, int]:
    case = case_of(record)
    digits = re.findall(r"\d+", case)
    return KINDS.index(record["kind"]), subject_of(record), case, int(digits[-1]) if digits else 0


def _machine_line(machine: Facts) -> str:
    told = (str(machine[field]) for field in _MACHINE if field in machine)
    return " / ".join(told)


def _bundles(records: Sequence[Record]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(subject_of(record), set()).add(record["config"]["bundle_sha256"])
    return found


def _require_one(folder: Path, found: set[str]) -> None:
    if len(found) > 1:
        raise UsageError(
            f"{folder}: found records of {' and of '.join(sorted(found))}, expected of one alone. "
            "They are never mixed in a report: give the folder of one."
        )
