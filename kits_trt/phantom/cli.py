"""``kits-phantom``: writes CT-like scans with exact kidney and tumour labels."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kits_runtime.cli.console import (
    EXIT_OK,
    EXIT_USAGE,
    exit_code_of,
    interrupted_once,
    say,
    set_up_logging,
)
from kits_runtime.cli.telling import add_telling
from kits_runtime.errors import UsageError
from kits_trt.phantom.cases import (
    Lesson,
    Plan,
    find_segmentations,
    make_cases,
    make_cases_around,
)

NAME = "kits-phantom"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _run(options), name=NAME, debug=options.debug)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the whole usage."""
        say(f"{self.prog}: {message}; see {self.prog} --help")
        raise SystemExit(EXIT_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Writes synthetic abdominal CT scans with exact labels in the KiTS layout. "
        "A case depends on the seed and its number alone.",
    )
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder for case_00000, ...; made if missing")
    add("--cases", type=_count, metavar="N", help="how many (default: 1; with --anatomy: all)")
    add("--seed", type=_seed, default=0, metavar="S", help="seed of the whole set (default: 0)")
    add("--size", type=_size, metavar="Z,Y,X", help="voxels (default: drawn as in KiTS)")
    add("--spacing", type=_spacing, metavar="z,y,x", help="voxel size in mm (default: drawn)")
    add(
        "--for-training",
        type=_lesson,
        metavar="N",
        dest="lesson",
        help="scans to learn from: N x N pixels (such as 192), slices of 1.5 to 5 mm; with "
        "--anatomy at most N x N of the segmentation's; 'kidneys' for what lies around them "
        "alone, with pixels of 0.6 to 2 mm",
    )
    add(
        "--anatomy",
        type=Path,
        metavar="DIR",
        help="KiTS folder whose segmentations give kidneys, tumours and grid",
    )
    add(
        "--varied",
        action="store_true",
        help="with --for-training: unusual kidneys and tumours often, scans that reach far; every "
        "other one of 'kidneys' as --anatomy draws it around its own labels",
    )
    add("--overwrite", action="store_true", help="replace cases that are there already")
    add_telling(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    plan = Plan(
        out=options.out,
        seed=options.seed,
        size=options.size,
        spacing_mm=options.spacing,
        lesson=options.lesson,
        varied=options.varied,
        overwrite=options.overwrite,
    )

    def progress(done: int, count: int, text: str) -> None:
        if not options.quiet:
            say(f"{NAME}: {done}/{count} {text}")

    if options.lesson is not None and (options.size, options.spacing) != (None, None):
        raise UsageError(
            "--for-training: found --size or --spacing with it; expected neither, it draws its own "
            "grids; leave them out"
        )
    if options.varied and (options.lesson is None or options.anatomy is not None):
        raise UsageError(
            "--varied: found it without --for-training or with --anatomy; expected procedural "
            "cases to learn from; leave it out"
        )
    if options.anatomy is None:
        make_cases(plan, options.cases or 1, progress)
        return EXIT_OK
    if options.size is not None or options.spacing is not None:
        raise UsageError(
            "--anatomy: found --size or --spacing with it; expected neither, the segmentations "
            "have a grid; leave them out"
        )
    found = find_segmentations(options.anatomy)
    if options.cases is not None and options.cases > len(found):
        raise UsageError(
            f"--cases: found {options.cases}; expected at most the {len(found)} segmentations in "
            f"{options.anatomy}; ask for fewer"
        )
    make_cases_around(plan, found[: options.cases], progress)
    return EXIT_OK


def _count(text: str) -> int:
    return _whole(text, lowest=1)


def _lesson(text: str) -> Lesson:
    return "kidneys" if text == "kidneys" else _whole(text, lowest=32)


def _seed(text: str) -> int:
    return _whole(text, lowest=0)


def _whole(text: str, *, lowest: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number from {lowest}")
    return int(text)


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and int(p) >= 2 for p in parts):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected three whole numbers from 2, such as 96,512,512"
        )
    z, y, x = (int(part) for part in parts)
    return z, y, x


def _spacing(text: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        z = y = x = 0.0
    if not all(0.05 <= step <= 50 for step in (z, y, x)):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected three numbers of mm from 0.05 to 50, such as 3,0.8,0.8"
        )
    return z, y, x
