"""What records of latency say by contestant: who ran, medians, totals, and why not."""

import statistics
from collections.abc import Mapping, Sequence

from kits_bench.figures import Interval, ratio_of_totals
from kits_bench.records import Record
from kits_bench.report.blocks import Facts
from kits_bench.report.gather import case_of


def names_of(records: Sequence[Record]) -> tuple[str, ...]:
    """All contestants, ours first, in the order in which they stand in the records."""
    names = list(dict.fromkeys(row["name"] for record in records for row in record["contestants"]))
    return tuple(sorted(names, key=lambda name: not is_ours(name)))


def is_ours(name: str) -> bool:
    """Whether a contestant is one of ours."""
    return name.startswith("kits-trt/")


def row_of(record: Record, name: str) -> Facts | None:
    """A contestant's row of a record; None where it was not asked."""
    return next((row for row in record["contestants"] if row["name"] == name), None)


def measured(record: Record, name: str) -> Facts | None:
    """The same, only where it has figures."""
    row = row_of(record, name)
    return row if row is not None and row["state"] == "ok" else None


def medians(record: Record, field: str = "wall_ms") -> Mapping[str, float]:
    """Median milliseconds of all who finished."""
    return {
        row["name"]: statistics.median(row[field])
        for row in record["contestants"]
        if row["state"] == "ok"
    }


def totals(
    records: Sequence[Record], slower: str, faster: str, *, field: str = "wall_ms"
) -> tuple[int, Interval] | None:
    """Cases that both finished, and how many times as long one took over them all."""
    found = [medians(record, field) for record in records]
    both = [each for each in found if {slower, faster} <= each.keys()]
    if not both:
        return None
    return len(both), ratio_of_totals([e[slower] for e in both], [e[faster] for e in both])


def fastest_of_ours(records: Sequence[Record]) -> str | None:
    """The one of ours that finished most cases, and of those the one with the least mean."""
    found: dict[str, list[float]] = {}
    for record in records:
        for name, ms in medians(record).items():
            if is_ours(name):
                found.setdefault(name, []).append(ms)
    if not found:
        return None
    return min(found, key=lambda name: (-len(found[name]), statistics.fmean(found[name]), name))


def ratio_in(record: Record, slower: str, faster: str) -> Facts | None:
    """The record's own ratio of two contestants."""
    return next(
        (r for r in record["ratios"] if (r["slower"], r["faster"]) == (slower, faster)), None
    )


def why_not(records: Sequence[Record], name: str) -> str:
    """Why a contestant has no figure in records."""
    rows = [row for record in records if (row := row_of(record, name)) is not None]
    if not rows:
        return "unrun: no record has it"
    stopped = [row for row in rows if row["state"] != "ok"]
    if not stopped:
        return "unrun: it finished none of the cases that the others finished"
    return f"{stopped[0]['state']}: {stopped[0].get('why', 'no reason was recorded')}"


def stopped_rows(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Everyone who did not finish, and in what cases and why."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        for row in record["contestants"]:
            if row["state"] != "ok":
                why = row.get("why", "no reason was recorded")
                found.setdefault((row["name"], row["state"], why), []).append(case_of(record))
    return [
        (name, f"{state} ({_some(cases, len(records))}): {why}")
        for (name, state, why), cases in found.items()
    ]


def _some(cases: Sequence[str], count: int) -> str:
    return "all cases" if len(cases) == count else ", ".join(cases)
