"""Sections on the other modes: scaling, roofline, parity, cold, cohorts, memory, the sixth net."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kits_bench.records import Record
from kits_bench.report.blocks import Facts, Figure, Part, Section, Table, Text, duration, share
from kits_bench.report.blocks import figure as number
from kits_bench.report.gather import Gathered, case_of, state_and_why, subject_of
from kits_bench.report.plots import roofline_plot, scaling_plot

Cells: TypeAlias = Callable[[Facts], tuple[str, ...]]

_ROOFLINE = (
    "net, backend", "window", "GFLOP", "MB unfused", "FLOP a byte", "GFLOP/s", "measured peak",
    "attainable", "share of peak", "precision",
)  # fmt: skip


def mode_sections(gathered: Gathered) -> Iterator[Section]:
    """A section on each mode that has records."""
    made: Mapping[str, tuple[str, Iterator[Part]]] = {
        "scaling": ("Time against slices", _scaling(gathered.of("scaling"))),
        "roofline": ("Rooflines", _roofline(gathered.of("roofline"))),
        "parity": ("Do the masks agree?", _parity(gathered.of("parity"))),
        "cold": ("From a cold start", _cold(gathered.of("cold"))),
        "throughput": ("Many cases in a row", _throughput(gathered.of("throughput"))),
        "memory": ("Memory", _memory(gathered.of("memory"))),
        "windows": ("A sixth net of a public suite's shape", _windows(gathered.of("windows"))),
    }
    for kind, (title, parts) in made.items():
        if gathered.of(kind):
            yield Section(title=title, parts=tuple(parts))


def _scaling(records: Sequence[Record]) -> Iterator[Part]:
    for record in records:
        lines = record["lines"]
        title = f"Seconds against slices, {subject_of(record)}"
        if any(line["points"] for line in lines):
            caption = f"{title}: medians of latency, and the line of least squares through them."
            yield Figure(svg=scaling_plot(title, lines), caption=caption)
        rows = tuple((line["name"], *_line_cells(line)) for line in lines)
        columns = ("contestant", "cases", "a slice", "at no slices", "r2")
        yield Table(title=title, columns=columns, rows=rows)


def _line_cells(line: Facts) -> tuple[str, ...]:
    if line["state"] != "ok":
        return (state_and_why(line),)
    count = str(len(line["points"]))
    slope = f"{number(line['slope_ms_per_slice'])} ms"
    return (count, slope, duration(line["intercept_ms"]), number(line["r2"]))


def _roofline(records: Sequence[Record]) -> Iterator[Part]:
    for record in records:
        subject, nets = subject_of(record), record["nets"]
        title = f"Roofline, {subject}{_star(record)}"
        rows = tuple((_net(row), *_roofline_cells(row)) for row in nets)
        done = [row for row in nets if row["state"] == "ok" and row["gflop_per_s"] > 0]
        for backend in dict.fromkeys(row["backend"] for row in done):
            own = [row for row in done if row["backend"] == backend]
            name = f"Roofline of {subject} on {backend}"
            caption = (
                f"{name}, both axes logarithmic: what each net reached under the peak that "
                "convolutions reached and the bytes that copies moved in the same run."
            )
            yield Figure(svg=roofline_plot(name, own), caption=caption)
        yield Table(title=title, columns=_ROOFLINE, rows=rows)


def _net(row: Facts) -> str:
    return f"{row['net']}, {row['backend']}" if "net" in row else str(row["backend"])


def _roofline_cells(row: Facts) -> tuple[str, ...]:
    if row["state"] != "ok":
        return (state_and_why(row),)
    return (
        duration(row["window_ms"]),
        *(number(row[name]) for name in ("gflop", "unfused_mb", "flop_per_byte_unfused")),
        *(
            number(row[name])
            for name in ("gflop_per_s", "roof_gflop_per_s", "attainable_gflop_per_s")
        ),
        share(row["share_of_roof"]),
        row["precision"],
    )


def _parity(records: Sequence[Record]) -> Iterator[Part]:
    rows = []
    for record in records:
        for row in record["variants"]:
            name = f"{_case(record)}, {row['backend']} {row['precision']}"
            rows.append((name, *_parity_cells(row)))
    columns = ("case, variant", "beside", "foreground", "kidney", "tumour")
    yield Table(title="Share of voxels that differ", columns=columns, rows=tuple(rows))
    yield Text(text="Shares are of the union of both masks' voxels of that class.")


def _parity_cells(row: Facts) -> tuple[str, ...]:
    if row["state"] != "ok":
        return (state_and_why(row),)
    fields = ("differing_share_foreground", "differing_share_1", "differing_share_2")
    return (row["with"], *(share(row[field]) for field in fields))


def _cold(records: Sequence[Record]) -> Iterator[Part]:
    columns = ("case, backend", "first window", "labels")
    fields = ("first_window_s", "labels_s")
    rows = _by_backend(records, lambda row: tuple(duration(row[f] * 1e3) for f in fields))
    yield Table(title="From the start of a process; medians", columns=columns, rows=rows)


def _throughput(records: Sequence[Record]) -> Iterator[Part]:
    columns = (
        "bundle, backend", "cases", "wall", "cases a minute", "wall / nets",
        "busy reading", "busy segmenting", "busy writing", "busy in nets",
    )  # fmt: skip

    def cells(row: Facts) -> tuple[str, ...]:
        busy = (share(row["busy_share"][name]) for name in ("read", "segment", "write", "net"))
        minute, over = number(row["cases_per_minute"]), number(row["wall_over_net"])
        return (str(row["cases"]), duration(row["wall_ms"]), minute, over, *busy)

    rows = _by_backend(records, cells)
    yield Table(title="As kits-infer runs a folder", columns=columns, rows=rows)


def _memory(records: Sequence[Record]) -> Iterator[Part]:
    columns = ("case, backend", "peak", "after first case")
    rows = _by_backend(records, _peaks)
    yield Table(title="Peak of resident memory", columns=columns, rows=rows)


def _peaks(row: Facts) -> tuple[str, ...]:
    first = row.get("peak_mb_after_first")
    return (f"{number(row['peak_mb'])} MB", "" if first is None else f"{number(first)} MB")


def _windows(records: Sequence[Record]) -> Iterator[Part]:
    columns = (
        "backend", "windows/s", "samples/s", "public H200 (INT8), samples/s", "GFLOP/s",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    remarks: list[str] = []
    for record in records:
        for row in record["nets"]:
            remarks.append(row.get("remark", ""))
            name = f"{row['backend']}{_star(record)}"
            if row["state"] != "ok":
                rows.append((name, state_and_why(row)))
                continue
            scans = row["scans"]
            remarks.append(scans["remark"])
            cells = (row["windows_per_s"], scans["samples_per_s"])
            public = number(scans["public_h200_samples_per_s"])
            reached = number(row["gflop_per_s"])
            rows.append((name, *map(number, cells), public, reached))
    yield Table(title="Windows of 128 x 128 x 128 voxels", columns=columns, rows=tuple(rows))
    yield Text(text="; ".join(dict.fromkeys(filter(None, remarks))) + ".")


def _by_backend(records: Sequence[Record], cells: Cells) -> tuple[tuple[str, ...], ...]:
    rows = []
    for record in records:
        for row in record["backends"]:
            name = f"{_case(record)}, {row['backend']}"
            if row["state"] == "ok":
                rows.append((name, *cells(row)))
            else:
                rows.append((name, state_and_why(row)))
    return tuple(rows)


def _case(record: Record) -> str:
    return f"{subject_of(record)} {case_of(record)}".strip() + _star(record)


def _star(record: Record) -> str:
    return " *" if record.get("foreign_load", {}).get("flagged") else ""
