"""Sections on latency: ratios, cases, bars, stages and repeats."""

import statistics
from collections.abc import Iterator, Sequence

from kits_bench.records import Record
from kits_bench.report.blocks import Facts, Figure, Part, Section, Table, Text, duration, ratio
from kits_bench.report.blocks import figure as number
from kits_bench.report.gather import Gathered, case_of
from kits_bench.report.plots import PUBLISHED, Bars, bars, waterfall
from kits_bench.report.rows import (
    fastest_of_ours,
    is_ours,
    measured,
    medians,
    names_of,
    ratio_in,
    stopped_rows,
    totals,
)

_CASES_A_DRAWING = 8
_OTHER_STAGES_BELOW = 0.004


def speed_sections(gathered: Gathered) -> Iterator[Section]:
    """A section on each bundle whose latency was measured."""
    for subject in gathered.subjects:
        records = gathered.of("latency", subject)
        if records:
            parts = (
                *_total_parts(records),
                *_case_parts(subject, records),
                *_stage_parts(subject, records),
                *_repeat_parts(records),
            )
            yield Section(title=f"Latency: {subject}", parts=parts)


def _total_parts(records: Sequence[Record]) -> Iterator[Part]:
    rows = []
    for ours in filter(is_ours, names_of(records)):
        for other in names_of(records):
            found = None if is_ours(other) else totals(records, other, ours)
            without = totals(records, other, ours, field="without_way_back_ms")
            if found is not None and without is not None:
                cells = (str(found[0]), ratio(found[1]), ratio(without[1]))
                rows.append((f"{other} beside {ours}", *cells))
    if rows:
        columns = ("how many times as long", "cases", "file to file", "without the way back")
        yield Table(title="Ratios over all cases", columns=columns, rows=tuple(rows))
    stopped = stopped_rows(records)
    if stopped:
        yield Table(title="Did not run", columns=("contestant", "why"), rows=tuple(stopped))


def _case_parts(subject: str, records: Sequence[Record]) -> Iterator[Part]:
    ours = fastest_of_ours(records)
    names = [name for name in names_of(records) if any(name in medians(r) for r in records)]
    others = [name for name in names if not is_ours(name)]
    published = subject.endswith(":paper") and any(r["case"]["published_s"] for r in records)
    columns = ["case", "slices", *names]
    columns += [f"{other} / {ours}" for other in others] if ours else []
    columns += [PUBLISHED] if published else []
    rows = []
    for record in records:
        star = " *" if record["foreign_load"]["flagged"] else ""
        times = medians(record)
        row = [case_of(record) + star, str(record["case"]["size"][0])]
        row += [duration(times[name]) if name in times else "no figure" for name in names]
        row += [_ratio_cell(record, other, ours) for other in others] if ours else []
        row += [_published(record)] if published else []
        rows.append(tuple(row))
    yield Table(title="Median of each case", columns=tuple(columns), rows=tuple(rows))
    yield from _bar_figures(subject, records, names, published=published)


def _ratio_cell(record: Record, other: str, ours: str) -> str:
    found = ratio_in(record, other, ours)
    return "" if found is None else ratio(found["whole"])


def _published(record: Record) -> str:
    seconds = record["case"]["published_s"]
    return "" if seconds is None else f"{seconds:.2f} s"


def _bar_figures(
    subject: str, records: Sequence[Record], names: Sequence[str], *, published: bool
) -> Iterator[Figure]:
    series = [*names]
    groups = []
    for record in records:
        times = medians(record)
        seconds = [times[name] / 1e3 if name in times else None for name in series]
        seconds += [record["case"]["published_s"]] if published else []
        name = f"{case_of(record)}, {record['case']['size'][0]} slices"
        groups.append(Bars(name=name, seconds=tuple(seconds)))
    series += [PUBLISHED] if published else []
    most = max((s for group in groups for s in group.seconds if s is not None), default=0.0)
    for first in range(0, len(groups) if most else 0, _CASES_A_DRAWING):
        some = groups[first : first + _CASES_A_DRAWING]
        title = f"Seconds a case, {subject}, cases {first + 1} to {first + len(some)}"
        told = "Medians, file to file, warm. All drawings of this bundle share one scale."
        if published:
            told += " Published seconds come from another machine: context, not a ratio."
        yield Figure(svg=bars(title, series, some, most_s=most), caption=told)


def _stage_parts(subject: str, records: Sequence[Record]) -> Iterator[Part]:
    ours = fastest_of_ours(records)
    for name in names_of(records):
        rows = [row for record in records if (row := measured(record, name)) is not None]
        if not rows or (is_ours(name) and name != ours):
            continue
        phases = stage_means(rows)
        title = f"Stages of {name}, {subject}"
        total = sum(ms for _, ms in phases)
        cells = tuple((stage, duration(ms), number(100 * ms / total)) for stage, ms in phases)
        told = (
            f"{title}: mean over {len(rows)} cases of each stage's median, one after the other; "
            "nets are dark. Each drawing has its own scale."
        )
        yield Figure(svg=waterfall(title, phases), caption=told)
        yield Table(title=title, columns=("stage", "mean", "% of all"), rows=cells)


def stage_means(rows: Sequence[Facts]) -> list[tuple[str, float]]:
    """Mean milliseconds of each stage over cases, in their order; the least ones as one."""
    names = list(dict.fromkeys(name for row in rows for name in row["phase_ms"]))
    means = {
        name: statistics.fmean(row["phase_ms"].get(name, 0.0) for row in rows) for name in names
    }
    wall = statistics.fmean(statistics.median(row["wall_ms"]) for row in rows)
    shown = [(name, ms) for name, ms in means.items() if ms >= _OTHER_STAGES_BELOW * wall]
    rest = max(wall, sum(means.values())) - sum(ms for _, ms in shown)
    return [*shown, ("all else", rest)] if rest > 0 else shown


def _repeat_parts(records: Sequence[Record]) -> Iterator[Part]:
    rows = []
    for record in records:
        for name in names_of(records):
            row = measured(record, name)
            if row is not None:
                rows.append((f"{case_of(record)}, {name}", *_repeat_cells(row)))
    columns = (
        "case, contestant", "rounds", "p50", "p90", "p99", "p50 without the way back",
        "first round", "nets", "all else", "windows", "peak memory", "mask differs by",
    )  # fmt: skip
    if rows:
        yield Table(title="Every contestant and case", columns=columns, rows=tuple(rows))
        yield Text(
            text="The first round warms up and is not counted. 'Mask differs by' is the share of "
            "the union of both foregrounds in which a mask differs from that of the first "
            "contestant."
        )


def _repeat_cells(row: Facts) -> tuple[str, ...]:
    differs = row.get("agreement", {}).get("differing_share_foreground")
    first = row.get("first_ms")
    return (
        str(len(row["wall_ms"])),
        *(duration(row[name]) for name in ("p50", "p90", "p99")),
        duration(row["without_way_back"]["p50"]),
        "" if first is None else duration(first),
        duration(row["net_ms"]),
        duration(row["other_ms"]),
        str(sum(row["windows"].values())),
        f"{number(row['peak_rss_mb'])} MB",
        "reference" if differs is None else f"{number(100 * differs)} %",
    )
