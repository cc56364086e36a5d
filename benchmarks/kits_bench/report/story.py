"""The beginning of a report: the one sentence, the headline, and what must be known first."""

from collections.abc import Sequence

from kits_bench.headline import SYSTEMS, Headline, headlines
from kits_bench.report.blocks import (
    Section,
    Table,
    Text,
    counted,
    duration,
    listed,
    ratio,
    times,
)
from kits_bench.report.gather import Gathered
from kits_bench.report.rows import fastest_of_ours, is_ours, medians, names_of, totals, why_not
from kits_bench.shapes import PUBLISHED_MEAN_S

_B0 = "the published method as its library's tutorials run it"
_COLUMNS = (
    "system, paper", "by", "kits-trt", "B0", "B0 takes", "B1", "B1 takes", "published unet3d",
    "cases", "where", "remark",
)  # fmt: skip


def story(gathered: Gathered) -> str:
    """One sentence: what was measured, where, how long it took, and against what."""
    rows = _headlines(gathered)
    if not rows:
        return _plain_story(gathered)
    row = min(rows, key=lambda row: (row.system != "unet3d", row.ours_s))
    backend = row.contestant.partition("/")[2]
    told = (
        f"On {machine_line(gathered)}, kits-trt takes {duration(row.ours_s * 1e3)} a case, file to "
        f"file, with {row.system} at its published size ({backend}, mean of "
        f"{counted(row.cases, 'case')})"
    )
    names = {"b0": "the usual way (B0)", "b1": "the same made as fast as torch gets (B1)"}
    compared = [
        f"{names[base]} takes {duration(seconds * 1e3)}, {times(interval)}"
        for base, (seconds, interval) in row.baselines.items()
    ]
    told += f"; {listed(compared)}." if compared else "; no baseline was run beside it."
    return told + (" Other processes used the machine meanwhile." if row.flagged else "")


def _plain_story(gathered: Gathered) -> str:
    where = machine_line(gathered) + (" (a dry run: made-up nets)" if gathered.dry else "")
    for subject in gathered.subjects:
        records = gathered.of("latency", subject)
        ours = fastest_of_ours(records)
        if ours is None:
            continue
        each = [medians(record).get(ours) for record in records]
        done = [ms for ms in each if ms is not None]
        told = (
            f"On {where}, {ours} takes {duration(sum(done) / len(done))} a case, file to file, "
            f"with {subject} (mean of {counted(len(done), 'case')})"
        )
        compared = [
            f"{name} takes {times(found[1])}"
            for name in names_of(records)
            if not is_ours(name) and (found := totals(records, name, ours)) is not None
        ]
        return told + (f"; {listed(compared)}." if compared else "; no baseline ran beside it.")
    return f"On {where}, no latency was measured: this report has other figures only."


def machine_line(gathered: Gathered) -> str:
    """The machine in a few words."""
    machine = gathered.machine
    told = f"{machine['processor']} with {machine['cores']} cores"
    return f"{told} and {machine['gpu']}" if machine.get("gpu") else told


def warnings(gathered: Gathered) -> tuple[Text, ...]:
    """What a reader must know before any figure."""
    found = []
    if gathered.dry:
        found.append(
            "DRY RUN: the nets are made up. Figures show that the suite runs, and nothing else."
        )
    flagged = [r for r in gathered.records if r.get("foreign_load", {}).get("flagged")]
    if flagged:
        found.append(
            f"{len(flagged)} of {len(gathered.records)} records are marked *: other processes "
            "used the machine while they were measured. See 'Was the machine quiet?'."
        )
    commits = {str(record["config"].get("commit")) for record in gathered.records}
    if len(commits) > 1:
        found.append(f"The records come from {len(commits)} commits: {listed(sorted(commits))}.")
    return tuple(Text(text=text, warning=True) for text in found)


def headline_section(gathered: Gathered) -> Section:
    """Three systems at the published size; a row without a record says why."""
    rows = _headlines(gathered)
    cells = []
    for system in SYSTEMS:
        own = [row for row in rows if row.system == system]
        cells += [_row(gathered, row) for row in own] or [_unrun(gathered, system)]
    table = Table(title="Mean seconds a case", columns=_COLUMNS, rows=tuple(cells))
    told = (
        f"File to file, warm, over the published shapes that all in a row finished. B0 is {_B0} "
        "(unet3d), or torch's eager nets inside our stages (the others); B1 is the same made as "
        "fast as torch gets. Ratios have 95 % bootstrap intervals over cases, where there are "
        f"several. {PUBLISHED_MEAN_S:.2f} s is what the paper printed for 25 cases on another "
        "machine: context, not a ratio."
    )
    return Section(title="Headline", parts=(table, Text(text=told)))


def _headlines(gathered: Gathered) -> list[Headline]:
    return headlines([(gathered.name, record) for record in gathered.records])


def _row(gathered: Gathered, row: Headline) -> tuple[str, ...]:
    cells: list[str] = []
    records = gathered.of("latency", f"{row.system}:paper")
    for base in ("b0", "b1"):
        if base in row.baselines:
            seconds, interval = row.baselines[base]
            cells += [duration(seconds * 1e3), ratio(interval)]
        else:
            cells += [why_not(records, base), ""]
    star = " *" if row.flagged else ""
    backend = row.contestant.partition("/")[2]
    ours = duration(row.ours_s * 1e3) + star
    return (row.system, backend, ours, *cells, _published(), str(row.cases), row.where, row.weights)


def _unrun(gathered: Gathered, system: str) -> tuple[str, ...]:
    why = _why_unrun(gathered, system)
    return (system, f"{why}. Published unet3d: {_published()}")


def _why_unrun(gathered: Gathered, system: str) -> str:
    subject = f"{system}:paper"
    records = gathered.of("latency", subject)
    if not records:
        return f"unrun: no record; kits-bench latency --bundle {subject} makes some"
    if gathered.dry:
        return "unrun: dry runs do not count here"
    ours: Sequence[str] = [name for name in names_of(records) if is_ours(name)]
    if ours and fastest_of_ours(records) is None:
        return why_not(records, ours[0])
    return "unrun: no record of a published shape"


def _published() -> str:
    return f"{PUBLISHED_MEAN_S:.2f} s"
