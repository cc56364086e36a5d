"""Writes docs/benchmarks.md, and the README's table, from the committed records.

No number in them is typed by hand.

``python -m kits_bench.docs`` writes them; a test fails when they differ from the records.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kits_bench.headline import headline_table, write_headline
from kits_bench.records import stages_table
from kits_runtime.files import replacing

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LEARNING = "learning"  # records of scripts/prove_learning.py, which are of no machine
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"

_INTRODUCTION = """# Benchmarks

Written by `make docs-tables` from the records under `benchmarks/results/`; `make bench` makes such
a record, and `kits-bench report --records FOLDER` tells a folder of them as `report.md` and as one
page, `report.html`. Ways are run in turns in one process, the first round is not counted, medians
are shown. "Same result" is 1 less the share of voxels that differ, of the union of foregrounds for
labels; for resampled intensities it is 1 less the mean difference, and MONAI's grid lies a part of
a voxel beside ours.

No record of a GPU is here: unrun.
"""

_HEADLINE = """## Headline

Mean seconds a case, file to file, warm, over the published shapes that were measured. B0 is the
published method as its library's tutorials run it (`unet3d`), or torch's eager nets inside our
stages (the others); B1 is the same made as fast as torch gets. Ratios have 95 % bootstrap intervals
over cases, where there are several. 17.52 s is what the paper printed for 25 cases on another
machine: context, not a ratio. Weights are seeded and untrained where no trained bundle was measured
(decision 0015).

"""

_WHOLE = """## Whole cases with the default bundle

Medians; without preview.

| what | scan | backend | figure |
| --- | --- | --- | --- |
"""


def page_from_records(records: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """The page's text for records by machine."""
    parts = [_INTRODUCTION, _HEADLINE + headline_table(records)]
    for machine, record in records:
        if record["kind"] == "stages":
            parts.append(f"## {machine}: stages around the nets\n\n{_setting(record)}\n")
            parts.append(stages_table(record))
    whole = [row for _, record in records for row in _rows(record)]
    if whole:
        parts.append(_WHOLE + "\n".join(whole) + "\n")
    return "\n".join(parts)


def committed_records() -> list[tuple[str, Mapping[str, object]]]:
    """The records of kits-bench that are committed, by the name of their machine."""
    paths = [path for path in sorted(RESULTS.glob("*/*.json")) if path.parent.name != LEARNING]
    return [(path.parent.name, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def _rows(record: Mapping[str, Any]) -> list[str]:
    """The rows of a record of whole cases with the default bundle."""
    if record.get("bundle", {}).get("preset") != "small" or record["kind"] not in _FIGURES:
        return []
    what, figure = _FIGURES[record["kind"]]
    ways = [way for way in record.get("contestants", ()) if way["way"] == "kits-trt"]
    rows = [(way["runs_with"]["backend"], way) for way in ways if way["state"] == "ok"]
    rows += [(row["backend"], row) for row in record.get("backends", ()) if row["state"] == "ok"]
    return [f"| {what} | {_scan(record)} | {name} | {figure(row)} |" for name, row in rows]


def _scan(record: Mapping[str, Any]) -> str:
    if "case" not in record:
        return f"{len(record['cases'])} scans"
    return " x ".join(str(n) for n in record["case"]["size"])


def _latency(way: Mapping[str, Any]) -> str:
    whole = median(way["wall_ms"])
    return f"{whole:.0f} ms, of which nets {way['net_ms']:.0f}, all else {way['other_ms']:.0f}"


def _cold(row: Mapping[str, Any]) -> str:
    return f"{row['first_window_s']:.2f} s, to the labels {row['labels_s']:.2f} s"


def _memory(row: Mapping[str, Any]) -> str:
    if row["cases"] == 1:
        return f"{row['peak_mb']} MB"
    return f"{row['peak_mb']} MB after {row['cases']} cases, rising {row['rise_mb_a_case']} MB each"


def _throughput(row: Mapping[str, Any]) -> str:
    over = row["wall_over_net"]
    return f"{row['cases_per_minute']:.0f} cases a minute, {over:.2f} x the time in nets"


_FIGURES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "latency": ("warm, file to files", _latency),
    "cold": ("process start to first window", _cold),
    "throughput": ("many in a row", _throughput),
    "memory": ("peak resident memory", _memory),
}


def _setting(record: Mapping[str, object]) -> str:
    machine, scan = record["machine"], record["scan"]
    assert isinstance(machine, Mapping)
    assert isinstance(scan, Mapping)
    packages = machine["versions"]
    told = ("nibabel", "scipy", "torch", "monai")
    versions = ", ".join(f"{name} {packages[name]}" for name in told)
    size = " x ".join(str(n) for n in scan["size"])
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB; a phantom "
        f"of {size} voxels, int16 .nii.gz; {record['repeats']} repeats; load before "
        f"{machine['load_before']}; {versions}; commit {machine['commit']}."
    )


def main() -> None:
    """Writes the page and the table."""
    records = committed_records()
    with replacing(PAGE) as stream:
        stream.write(page_from_records(records).encode())
    write_headline(README, headline_table(records))


if __name__ == "__main__":
    main()
