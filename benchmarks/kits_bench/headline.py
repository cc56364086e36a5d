"""The headline: three systems at the published size beside both baselines and the paper's seconds.

A row without a record says unrun. Only records of the ``paper`` preset that are no dry run stand
here, of the published shapes alone.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_bench.figures import Interval, ratio_of_totals
from kits_bench.shapes import PUBLISHED, PUBLISHED_MEAN_S

SYSTEMS = ("cascaded-vnet", "resunet-msvnet", "unet3d")
BEGIN, END = "<!-- headline: written by make docs-tables -->", "<!-- end of headline -->"

Records = Sequence[tuple[str, Mapping[str, Any]]]

_HEAD = (
    "| system (`paper`) | where | cases | kits-trt | B0 | B1 | published `unet3d` |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """One row: mean seconds a case over the cases that all contestants in it finished."""

    system: str
    where: str
    contestant: str
    cases: int
    ours_s: float
    baselines: Mapping[str, tuple[float, Interval]]
    flagged: bool
    weights: str


def headlines(records: Records) -> list[Headline]:
    """The rows that records give, by system, machine and contestant of ours."""
    rows = []
    for system in SYSTEMS:
        for machine in sorted({name for name, _ in records}):
            rows += _of_machine(system, machine, records)
    return rows


def _of_machine(system: str, machine: str, records: Records) -> list[Headline]:
    own = [record for name, record in records if name == machine and _counts(record, system)]
    names = {row["name"] for record in own for row in record["contestants"] if _ours(row)}
    found = [_headline(system, machine, name, own) for name in sorted(names)]
    return [row for row in found if row is not None]


def _counts(record: Mapping[str, Any], system: str) -> bool:
    published = {shape.name for shape in PUBLISHED}
    return (
        record["kind"] == "latency"
        and "contestants" in record
        and not record["dry"]
        and record["bundle"]["system"] == system
        and record["bundle"]["preset"] == "paper"
        and record["case"]["name"] in published
    )


def _ours(row: Mapping[str, Any]) -> bool:
    return bool(row["way"] == "kits-trt" and row["state"] == "ok")


def _headline(
    system: str, machine: str, name: str, records: Sequence[Mapping[str, Any]]
) -> Headline | None:
    medians = [_medians(record) for record in records]
    wanted = {name, *(base for base in ("b0", "b1") if any(base in found for found in medians))}
    shared = [found for found in medians if wanted <= found.keys()]
    if not shared:
        return None
    ours = [found[name] for found in shared]
    baselines = {}
    for base in sorted(wanted - {name}):
        theirs = [found[base] for found in shared]
        baselines[base] = (statistics.fmean(theirs) / 1e3, ratio_of_totals(theirs, ours))
    return Headline(
        system=system,
        where=machine,
        contestant=name,
        cases=len(shared),
        ours_s=statistics.fmean(ours) / 1e3,
        baselines=baselines,
        flagged=any(record["foreign_load"]["flagged"] for record in records),
        weights=records[0]["bundle"]["weights"],
    )


def _medians(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        row["name"]: statistics.median(row["wall_ms"])
        for row in record["contestants"]
        if row["state"] == "ok"
    }


def headline_table(records: Records) -> str:
    """The rows as Markdown; a system without a record says unrun."""
    rows = headlines(records)
    lines = list(_HEAD)
    for system in SYSTEMS:
        own = [row for row in rows if row.system == system]
        lines += [_line(row) for row in own] or [
            f"| {system} | | | unrun | unrun | unrun | {PUBLISHED_MEAN_S} s |"
        ]
    if any(row.flagged for row in rows):
        lines += ["", "`*` other processes used the machine during some of these runs."]
    return "\n".join(lines) + "\n"


def _line(row: Headline) -> str:
    cells = [_cell(row.baselines.get(base)) for base in ("b0", "b1")]
    star = " `*`" if row.flagged else ""
    return (
        f"| {row.system} | {row.where}, {row.contestant.partition('/')[2]} | {row.cases} | "
        f"**{row.ours_s:.2f} s**{star} | {cells[0]} | {cells[1]} | {PUBLISHED_MEAN_S} s |"
    )


def _cell(found: tuple[float, Interval] | None) -> str:
    if found is None:
        return "unrun"
    seconds, ratio = found
    told = f"{seconds:.2f} s, {ratio.value:.2f} x"
    return f"{told} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.is_known else told


def with_headline(text: str, table: str) -> str:
    """A document with the table between its two marks.

    Raises:
        ValueError: the document has no such marks.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise ValueError(f"found no {BEGIN!r} and {END!r} in the document, expected both")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def write_headline(path: Path, table: str) -> None:
    """Renews the table in a document."""
    path.write_text(with_headline(path.read_text(encoding="utf-8"), table), encoding="utf-8")
