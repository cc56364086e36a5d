"""``kits-bench``: measures the shipped code, and the usual ways of doing the same beside it."""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kits_bench import pipeline
from kits_bench.records import record_of, stages_facts, stages_table, write_record
from kits_bench.stages import stages_of, timed_stages
from kits_runtime.cases import find_cases
from kits_runtime.cli.console import EXIT_OK, exit_code_of, interrupted_once, version
from kits_runtime.engines import BACKENDS
from kits_runtime.nifti import read_scan
from kits_runtime.segmenter import Segmenter
from kits_trt.phantom.cases import Plan, make_cases

logger = logging.getLogger(__name__)

PHANTOM_SEED = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mode: Callable[[argparse.Namespace], int] = options.run
    with interrupted_once():
        return exit_code_of(lambda: mode(options), name="kits-bench", debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kits-bench", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="with tracebacks")
    parser.add_argument("--version", action="version", version=f"kits-bench {version()}")
    modes = parser.add_subparsers(dest="mode", required=True)
    stages = modes.add_parser("stages", help="each stage around the nets beside the usual way")
    stages.set_defaults(run=_stages)
    for name, run, text in (
        ("latency", _latency, "each case warm, file to files, by phase"),
        ("cold", _cold, "from the start of a process to its first window and its labels"),
        ("throughput", _throughput, "a folder of cases beside the time spent in nets"),
        ("memory", _memory, "the peak of resident memory over a folder of cases"),
    ):
        mode = modes.add_parser(name, help=text)
        mode.set_defaults(run=run)
        mode.add_argument("--bundle", type=Path, help="default: the one in the package")
        names = ("auto", *(row.name for row in BACKENDS))
        mode.add_argument("--backend", choices=names, default="auto")
        mode.add_argument(
            "--input", type=Path, help="scans as kits-infer takes (default: phantoms)"
        )
        mode.add_argument("--cases", type=int, default=1, help="phantoms to make without --input")
    for mode in modes.choices.values():
        mode.add_argument("--size", type=_size, default=(300, 512, 512), help="Z,Y,X voxels")
        mode.add_argument("--spacing", type=_spacing, default=(1.0, 0.8, 0.8), help="z,y,x mm")
        mode.add_argument("--repeats", type=int, default=5)
        mode.add_argument("--out", type=Path, help="the record (default: out/MODE.json)")
    return parser


def _stages(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_phantoms(options, folder, cases=1)
        path = folder / "case_00000" / "imaging.nii.gz"
        labels = read_scan(folder / "case_00000" / "segmentation.nii.gz").volume.data
        stages = stages_of(path, labels.astype(np.uint8, order="K"), folder)
        timings = timed_stages(stages, repeats=options.repeats)
    record = _written(options, {"timings": stages_facts(timings)})
    sys.stdout.write(stages_table(record))
    return EXIT_OK


def _latency(options: argparse.Namespace) -> int:
    def measure(source: Path) -> Mapping[str, object]:
        with Segmenter.from_bundle(options.bundle, backend=options.backend) as segmenter:
            cases = pipeline.warm_latency(segmenter, source, repeats=options.repeats)
            return {**_what_ran(segmenter), "cases": cases}

    return _measured(options, measure)


def _throughput(options: argparse.Namespace) -> int:
    def measure(source: Path) -> Mapping[str, object]:
        with Segmenter.from_bundle(options.bundle, backend=options.backend) as segmenter:
            pipeline.throughput(segmenter, find_cases(source)[0].scan)  # warms up
            return {**_what_ran(segmenter), "cohort": pipeline.throughput(segmenter, source)}

    return _measured(options, measure)


def _cold(options: argparse.Namespace) -> int:
    def measure(source: Path) -> Mapping[str, object]:
        facts = pipeline.cold_start(
            find_cases(source)[0].scan,
            bundle=_text(options.bundle),
            backend=options.backend,
            repeats=options.repeats,
        )
        return {"cold": facts}

    return _measured(options, measure)


def _memory(options: argparse.Namespace) -> int:
    def measure(source: Path) -> Mapping[str, object]:
        bundle, backend = _text(options.bundle), options.backend
        return {"memory": pipeline.peak_memory(source, bundle=bundle, backend=backend)}

    return _measured(options, measure)


def _measured(options: argparse.Namespace, measure: Callable[[Path], Mapping[str, object]]) -> int:
    """Measures the user's scans or phantoms made for it, and writes the record."""
    if options.input is not None:
        facts = measure(options.input)
    else:
        with tempfile.TemporaryDirectory() as name:
            _make_phantoms(options, Path(name), cases=options.cases)
            facts = measure(Path(name))
    record = _written(options, facts)
    sys.stdout.write(json.dumps({name: record[name] for name in facts}, indent=1) + "\n")
    return EXIT_OK


def _written(options: argparse.Namespace, facts: Mapping[str, object]) -> Mapping[str, object]:
    scan: Mapping[str, object] = {
        "phantom_seed": PHANTOM_SEED,
        "size": list(options.size),
        "spacing_mm": list(options.spacing),
    }
    if getattr(options, "input", None) is not None:
        scan = {"input": str(options.input)}
    record = record_of(options.mode, scan=scan, repeats=options.repeats, facts=facts)
    write_record(options.out or Path("out") / f"{options.mode}.json", record)
    return record


def _what_ran(segmenter: Segmenter) -> Mapping[str, object]:
    backend, bundle = segmenter.backend, segmenter.bundle
    return {
        "bundle": {
            "system": bundle.manifest.system,
            "preset": bundle.manifest.preset,
            "sha256": bundle.sha256,
        },
        "backend": {
            "name": backend.name,
            "precision": backend.precision,
            "threads": backend.threads,
        },
    }


def _make_phantoms(options: argparse.Namespace, folder: Path, *, cases: int) -> None:
    plan = Plan(out=folder, seed=PHANTOM_SEED, size=options.size, spacing_mm=options.spacing)
    make_cases(plan, cases, lambda _done, _count, text: logger.info("%s", text))


def _text(path: Path | None) -> str:
    return "" if path is None else str(path)


def _size(text: str) -> tuple[int, int, int]:
    z, y, x = _three(text)
    return round(z), round(y), round(x)


def _spacing(text: str) -> tuple[float, float, float]:
    z, y, x = _three(text)
    return z, y, x


def _three(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) <= 0:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected three numbers above 0")
    return values
