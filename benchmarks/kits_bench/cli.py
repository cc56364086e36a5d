"""``kits-bench``: measures the shipped code beside the usual ways of doing the same."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kits_bench.records import stages_record, stages_table, write_record
from kits_bench.stages import stages_of, timed_stages
from kits_runtime.cli.console import EXIT_OK, exit_code_of, version
from kits_runtime.nifti import read_scan
from kits_trt.phantom.cases import Plan, make_cases

logger = logging.getLogger(__name__)

PHANTOM_SEED = 7


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="kits-bench", description=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    stages = modes.add_parser("stages", help="each stage around the nets beside the usual way")
    stages.add_argument("--size", type=_size, default=(300, 512, 512), help="Z,Y,X voxels")
    stages.add_argument("--spacing", type=_spacing, default=(1.0, 0.8, 0.8), help="z,y,x mm")
    stages.add_argument("--repeats", type=int, default=5)
    stages.add_argument("--out", type=Path, default=Path("out/stages.json"), help="the record")
    parser.add_argument("--debug", action="store_true", help="with tracebacks")
    parser.add_argument("--version", action="version", version=f"kits-bench {version()}")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return exit_code_of(lambda: _stages(options), name="kits-bench", debug=options.debug)


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
    record = stages_record(timings, scan=scan, repeats=options.repeats)
    write_record(options.out, record)
    sys.stdout.write(stages_table(record))
    return EXIT_OK


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
