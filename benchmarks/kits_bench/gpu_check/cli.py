"""``scripts/gpu_check.sh``: the options, and which parts run now."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kits_bench.case_files import cache_folder
from kits_bench.gpu_check.ledger import Ledger
from kits_bench.gpu_check.parts import BUDGET_S, PARTS, Part
from kits_bench.gpu_check.plan import Settings, code_sha256, state_key
from kits_bench.gpu_check.running import run_items
from kits_bench.gpu_check.subjects import DRY_CASE
from kits_bench.gpu_check.summary import write_summary
from kits_bench.machine import commit, engine_versions
from kits_bench.records import RecordStore
from kits_bench.shapes import PUBLISHED
from kits_runtime.cli.console import EXIT_OK, exit_code_of, say
from kits_runtime.engines.cuda_driver import visible_gpus
from kits_runtime.locks import locked

NAME = "gpu_check"
EXIT_MORE = 3  # the budget ended first: call it again
SYSTEMS = ("cascaded-vnet", "resunet-msvnet", "unet3d", "multistage25d", "unet2d-pair")
HEADLINE = ("cascaded-vnet", "resunet-msvnet", "unet3d")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return exit_code_of(lambda: _run(options), name=NAME, debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check.sh",
        description="Checks everything on an NVIDIA machine in parts that resume.",
        epilog=f"Ends with {EXIT_MORE} where a part's time budget ended first: call it again.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--part", type=int, choices=[part.number for part in PARTS])
    which.add_argument("--next", action="store_true", help="the first part with something left")
    which.add_argument("--all", action="store_true", help="all parts, until nothing is left")
    which.add_argument("--prepare", type=Path, metavar="OUT", help="make bundles and cases to take")
    parser.add_argument("--part-mb", type=int, help="with --prepare: pack into pieces this large")
    parser.add_argument("--dry-run", action="store_true", help="the whole flow without a GPU")
    parser.add_argument("--out", type=Path, default=Path("out") / "gpu-check")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds a part may take")
    parser.add_argument("--cache", type=Path, help="bundles and cases that --prepare made")
    parser.add_argument("--systems", type=_names, help="SYSTEM:PRESET, 'default' or paths")
    parser.add_argument("--cases", type=_names, help="numbers of published cases (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="B1 without torch.compile")
    parser.add_argument("--again", action="store_true", help="also what was unrun or failed before")
    parser.add_argument("--debug", action="store_true", help="with tracebacks")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that the options, the GPU and TRT86_PYTHON give."""
    dry = options.dry_run
    gpu = visible_gpus().first
    name = "no-gpu" if gpu is None else re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    systems = options.systems or (("default",) if dry else tuple(f"{s}:paper" for s in SYSTEMS))
    headline = systems if options.systems or dry else tuple(f"{s}:paper" for s in HEADLINE)
    cases = options.cases or ((DRY_CASE,) if dry else tuple(str(s.number) for s in PUBLISHED))
    return Settings(
        out=str(options.out.resolve()),
        cache=str(cache_folder(options.cache).resolve()),
        gpu=f"dry-{name}" if dry else name,
        dry=dry,
        systems=systems,
        headline=headline,
        cases=cases,
        parity_cases=cases[:1] if dry or options.cases else ("61", "41"),
        precisions=("fp32",) if dry else ("fp32", "fp16"),
        repeats=options.repeats,
        compiled=not (options.no_compile or dry),
        trt86_python=os.environ.get("TRT86_PYTHON") or None,
    )


def _run(options: argparse.Namespace) -> int:
    if options.prepare is not None:
        from kits_bench.gpu_check.prepare import prepare

        prepare(options.prepare, options.systems, options.cases, part_mb=options.part_mb, told=say)
        return EXIT_OK
    settings = settings_of(options)
    RecordStore(folder=settings.folder, dry=settings.dry)  # refuses made-up records early
    settings.folder.mkdir(parents=True, exist_ok=True)
    with locked(settings.folder / "check.lock", on_wait=lambda: say(f"{NAME}: another one runs")):
        ledger = ledger_of(settings)
        if options.again:
            ledger.forget(("unrun", "failed"))
        return _run_parts(options, settings, ledger)


def ledger_of(settings: Settings) -> Ledger:
    """The state file, under the key of this configuration, code, versions and GPU."""
    gpu = visible_gpus().first
    told = {
        "commit": commit(),
        "code": code_sha256(),
        "versions": dict(engine_versions()),
        "gpu": None if gpu is None else [gpu.name, gpu.driver, gpu.cuda],
    }
    return Ledger(
        path=settings.folder / "state.json",
        key=state_key(settings, told),
        configuration={**settings.configuration, **told},
    )


def _run_parts(options: argparse.Namespace, settings: Settings, ledger: Ledger) -> int:
    if options.all:
        for part in PARTS:
            while not _run_part(part, options, settings, ledger):
                pass
        return EXIT_OK
    part = PARTS[options.part - 1] if options.part else next_part(settings, ledger)
    if not _run_part(part, options, settings, ledger):
        return EXIT_MORE
    left = next_part(settings, ledger)
    say(f"{NAME}: part {part.number} is done; next is part {left.number} ({left.name})")
    return EXIT_OK


def next_part(settings: Settings, ledger: Ledger) -> Part:
    """The first part with an item that has no result; the last one where there is none."""
    done = ledger.results()
    left = (p for p in PARTS if any(item.id not in done for item in p.items(settings)))
    return next(left, PARTS[-1])


def _run_part(part: Part, options: argparse.Namespace, settings: Settings, ledger: Ledger) -> bool:
    say(f"{NAME}: part {part.number}, {part.name}: {part.title}")
    if part is PARTS[-1]:
        sys.stdout.write(write_summary(settings, ledger.results()))
        return True
    return run_items(
        part.items(settings), settings, ledger, budget_s=options.budget, told=lambda text: say(text)
    )
