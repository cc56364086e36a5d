"""``kits-bench report``: puts a report together and writes it, twice told."""

import argparse
import sys
from pathlib import Path

from kits_bench.machine import machine_name
from kits_bench.report.blocks import Report
from kits_bench.report.gather import Gathered, gather
from kits_bench.report.markdown import markdown
from kits_bench.report.modes import mode_sections
from kits_bench.report.page import page
from kits_bench.report.setting import questions, setting_sections
from kits_bench.report.speed import speed_sections
from kits_bench.report.story import headline_section, story, warnings
from kits_runtime.cli.console import EXIT_OK
from kits_runtime.files import replacing


def report_of(gathered: Gathered) -> Report:
    """The whole report on records."""
    return Report(
        title=f"kits-trt: what was measured on {gathered.name}",
        story=story(gathered),
        first=warnings(gathered),
        sections=(
            headline_section(gathered),
            questions(gathered),
            *speed_sections(gathered),
            *mode_sections(gathered),
            *setting_sections(gathered),
        ),
    )


def write_report(records: Path, out: Path) -> tuple[Path, Path]:
    """Writes report.md and report.html and returns where they are.

    Raises:
        UsageError: the records cannot stand in one report.
    """
    report = report_of(gather(records))
    out.mkdir(parents=True, exist_ok=True)
    paths = out / "report.md", out / "report.html"
    for path, text in zip(paths, (markdown(report), page(report)), strict=True):
        with replacing(path) as stream:
            stream.write(text.encode())
    return paths


def add_report(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--records", type=Path, help="default: out/bench, of this machine")
    parser.add_argument("-o", "--out", type=Path, help="folder; default: beside the records")
    parser.set_defaults(run=run_report)


def run_report(options: argparse.Namespace) -> int:
    """Writes the report that the options ask for."""
    records = options.records or Path("out") / "bench" / machine_name()
    beside = records if records.is_dir() else records.parent
    for path in write_report(records, options.out or beside):
        sys.stdout.write(f"{path}\n")
    return EXIT_OK
