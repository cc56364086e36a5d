"""Compares two sets of latency records, so that a change that makes things slower is noticed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kits_bench.figures import Interval, ratio_of_totals
from kits_bench.records import Record
from kits_runtime.errors import ParityError, UsageError

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many times as long the new records take as the old ones, in total and by case."""

    cases: int
    total: Interval
    worst: tuple[str, float]


def compare_latency(old: Sequence[Record], new: Sequence[Record]) -> Mapping[str, Comparison]:
    """Comparisons by contestant of ours, over the cases that both sides have.

    Raises:
        UsageError: the records have no case of one bundle in common.
    """
    before, after = _medians(old), _medians(new)
    shared = sorted(before.keys() & after.keys())
    if not shared:
        raise UsageError(
            f"--compare: found {len(before)} old and {len(after)} new measurements of ours, "
            "expected some of the same bundle, case and backend. Compare records of one bundle."
        )
    found = {}
    for name in sorted({key[2] for key in shared}):
        keys = [key for key in shared if key[2] == name]
        times = [after[key] for key in keys], [before[key] for key in keys]
        each = {key[1]: after[key] / before[key] for key in keys}
        slowest = max(each, key=lambda case: each[case])
        found[name] = Comparison(
            cases=len(keys), total=ratio_of_totals(*times), worst=(slowest, each[slowest])
        )
    return found


def require_no_slower(found: Mapping[str, Comparison], *, at_most: float) -> None:
    """Stops where a contestant takes longer in total than the given ratio allows.

    Raises:
        ParityError: one does.
    """
    for name, comparison in found.items():
        if comparison.total.value > at_most:
            raise ParityError(
                f"{name}: found {comparison.total.value:.3f} times the earlier time over "
                f"{comparison.cases} cases (worst {comparison.worst[0]}, "
                f"{comparison.worst[1]:.3f}), expected at most {at_most:.2f}. Find what became "
                "slower, or measure again on a quiet machine."
            )


def _medians(records: Sequence[Record]) -> dict[Key, float]:
    """Median milliseconds of ours by bundle, case and contestant; the case is its hash's name."""
    found: dict[Key, float] = {}
    for record in records:
        if record["kind"] != "latency" or "contestants" not in record or record["dry"]:
            continue
        case = f"{record['case']['name']} {record['case']['sha256'][:12]}"
        for row in record["contestants"]:
            if row["way"] == "kits-trt" and row["state"] == "ok":
                key = (record["config"]["bundle_sha256"], case, row["name"])
                found[key] = statistics.median(row["wall_ms"])
    return found
