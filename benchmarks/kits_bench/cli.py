"""``kits-bench``: measures the shipped code, and the usual ways of doing the same beside it."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kits_bench.machine import machine_name
from kits_bench.records import (
    Record,
    RecordStore,
    read_records,
    record_of,
    stages_facts,
    stages_table,
    write_record,
)
from kits_bench.report.write import add_report, write_report
from kits_bench.stages import stages_of, timed_stages
from kits_runtime.bundle import Bundle, open_bundle
from kits_runtime.cli.console import EXIT_OK, exit_code_of, interrupted_once, say
from kits_runtime.cli.telling import add_telling
from kits_runtime.engines import BACKENDS
from kits_runtime.engines.protocol import PRECISIONS
from kits_runtime.errors import UsageError
from kits_runtime.nifti import read_scan
from kits_runtime.segmenter import default_bundle_path
from kits_trt.phantom.cases import Plan, make_cases

logger = logging.getLogger(__name__)

PHANTOM_SEED = 7
BASELINES = ("b0", "b1", "torch")
_MODES: Mapping[str, str] = {
    "latency": "each case warm, file to file, beside the baselines",
    "cold": "from the start of a process to its first window and its labels",
    "throughput": "all cases in a row, and how busy each stage is",
    "parity": "the masks of backends and precisions against each other",
    "memory": "the peak of resident memory of a process that segments a case",
    "roofline": "each net's operations and bytes beside a roof measured in the same run",
    "scaling": "time against slices: slope and intercept",
    "windows": "windows a second of a sixth net of a public suite's shape",
    "all": "all of these in turn, and the report",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    more = options.verbose or options.debug
    level = logging.WARNING if options.quiet else logging.DEBUG if more else logging.INFO
    logging.basicConfig(level=level, format="%(message)s")
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    mode: Callable[[argparse.Namespace], int] = options.run
    with interrupted_once():
        return exit_code_of(lambda: mode(options), name="kits-bench", debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kits-bench", description=__doc__)
    add_telling(parser)
    modes = parser.add_subparsers(dest="mode", required=True)
    stages = modes.add_parser("stages", help="each stage around the nets beside the usual way")
    stages.set_defaults(run=_stages)
    stages.add_argument("--size", type=_size, default=(300, 512, 512), help="Z,Y,X voxels")
    stages.add_argument("--spacing", type=_spacing, default=(1.0, 0.8, 0.8), help="z,y,x mm")
    stages.add_argument("--repeats", type=_count, default=5)
    stages.add_argument("--out", type=Path, help="the record (default: out/stages.json)")
    cases = modes.add_parser("cases", help="makes the cases and keeps them, measures nothing")
    cases.set_defaults(run=_make_cases)
    _add_cases(cases)
    add_report(modes.add_parser("report", help="report.md and report.html from records"))
    for name, text in _MODES.items():
        mode = modes.add_parser(name, help=text)
        mode.set_defaults(run=_suite)
        _add_cases(mode)
        _add_suite(mode)
    return parser


def _add_cases(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cases",
        default="published",
        help="published, kits-like, some of a set (61,41 or kits-like:29,97), or a path of scans",
    )
    parser.add_argument("--cache", type=Path, help="where cases and bundles are kept")


def _add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle",
        default="default",
        help="a path, 'default', or SYSTEM:PRESET with seeded weights, as unet3d:paper",
    )
    parser.add_argument(
        "--backends", type=_names, default=("openvino", "ort-cpu"), help="or 'every'"
    )
    parser.add_argument(
        "--baselines", type=_baselines, default=("b0", "b1"), help="b0, b1, torch or 'none'"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of ours")
    parser.add_argument("--threads", type=_count, help="of every contestant")
    parser.add_argument("--compile", action="store_true", help="let B1 try torch.compile")
    parser.add_argument("--repeats", type=_count, default=5, help="rounds that count")
    parser.add_argument("--results", type=Path, default=Path("out") / "bench")
    parser.add_argument("--machine", default=None, help="the folder's name in --results")
    parser.add_argument("--dry", action="store_true", help="made-up nets; shows that it runs")
    parser.add_argument("--compare", type=Path, help="earlier records: a folder or a file")
    parser.add_argument("--fail-if-slower", type=float, default=1.10, metavar="RATIO")


def _suite(options: argparse.Namespace) -> int:
    from kits_bench.case_files import cache_folder, cases_named
    from kits_bench.contestants import Lineup
    from kits_bench.suite import MODES, Suite

    folder = options.results / (options.machine or machine_name())
    store = RecordStore(folder=folder, dry=options.dry)
    earlier = read_records(options.compare) if options.compare is not None else ()
    cache = cache_folder(options.cache)
    bundle = _bundle(options.bundle, cache)
    suite = Suite(
        store=store,
        bundle=bundle,
        lineup=Lineup(
            bundle=bundle.path,
            backends=options.backends,
            baselines=options.baselines,
            precision=options.precision,
            threads=options.threads,
            compiled=options.compile,
            dry=options.dry,
        ),
        cases=cases_named(options.cases, cache, say),
        repeats=options.repeats,
        told=lambda text: logger.info("%s", text),
    )
    wanted = MODES if options.mode == "all" else {options.mode: MODES[options.mode]}
    records = [record for mode in wanted.values() for record in mode(suite)]
    sys.stdout.write(f"{len(records)} records in {folder}\n")
    if options.mode == "all":
        sys.stdout.write("".join(f"{path}\n" for path in write_report(folder, folder)))
    return _compared(earlier, records, options.fail_if_slower) if earlier else EXIT_OK


def _bundle(named: str, cache: Path) -> Bundle:
    from kits_bench.bundles import seeded_bundle
    from kits_trt.systems import SYSTEMS

    if named == "default":
        return open_bundle(default_bundle_path())
    system, _, preset = named.partition(":")
    if system not in SYSTEMS or Path(named).exists():
        return open_bundle(Path(named))
    if preset not in ("paper", "small"):
        raise UsageError(
            f"--bundle: found preset {preset!r} of {system}, expected paper or small. "
            f"Say {system}:paper."
        )
    return open_bundle(seeded_bundle(system, preset, cache))  # type: ignore[arg-type]


def _compared(earlier: Sequence[Record], records: Sequence[Record], at_most: float) -> int:
    from kits_bench.compare import compare_latency, require_no_slower

    found = compare_latency(earlier, records)
    for name, comparison in found.items():
        total = comparison.total
        sys.stdout.write(
            f"{name}: {total.value:.3f} times the earlier time over {comparison.cases} cases "
            f"({total.low:.3f} to {total.high:.3f})\n"
        )
    require_no_slower(found, at_most=at_most)
    return EXIT_OK


def _make_cases(options: argparse.Namespace) -> int:
    from kits_bench.case_files import cache_folder, cases_named

    for case in cases_named(options.cases, cache_folder(options.cache), say):
        size = " x ".join(str(n) for n in case.size)
        sys.stdout.write(f"{case.name} {size} {case.bytes} bytes {case.sha256[:12]} {case.scan}\n")
    return EXIT_OK


def _stages(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(out=folder, seed=PHANTOM_SEED, size=options.size, spacing_mm=options.spacing)
        make_cases(plan, 1, lambda _done, _count, text: logger.info("%s", text))
        path = folder / "case_00000" / "imaging.nii.gz"
        labels = read_scan(folder / "case_00000" / "segmentation.nii.gz").volume.data
        stages = stages_of(path, labels.astype(np.uint8, order="K"), folder)
        timings = timed_stages(stages, repeats=options.repeats)
    scan = {
        "phantom_seed": PHANTOM_SEED,
        "size": list(options.size),
        "spacing_mm": list(options.spacing),
    }
    facts = {"timings": stages_facts(timings)}
    record = record_of("stages", scan=scan, repeats=options.repeats, facts=facts)
    write_record(options.out or Path("out") / "stages.json", record)
    sys.stdout.write(stages_table(record))
    return EXIT_OK


def _names(text: str) -> tuple[str, ...]:
    known = tuple(row.name for row in BACKENDS)
    names = known if text == "every" else tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"found {unknown[0]!r}, expected some of {', '.join(known)}, or every"
        )
    return names


def _baselines(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"found {unknown[0]!r}, expected some of {', '.join(BASELINES)}, or none"
        )
    return names


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number above 0")
    return int(text)


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
