"""Runs a bundle over the frozen test.

``python -m kits_bench.frozen_test --anatomy DIR [--bundle B] --subset dev -o OUT``

DIR is any folder with KiTS19's label maps, as the challenge publishes them. Scans are rendered into
``OUT/scans`` and results kept in ``OUT/results``, so that a run that was ended goes on where it
stopped; with ``--minutes`` it ends by itself. The record appears when all cases are done.

``--renderings 4`` renders each dev anatomy four times, once in each phase, further ones into
``OUT/rendering-1`` and so on. Nets are chosen by those, since twenty scans are few.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from kits_bench.accuracy import Result, accuracy_of, kept_result, run_case, worst_first
from kits_bench.frozen_test.configuration import (
    SUBSETS,
    VERSION,
    Configuration,
    FrozenCase,
    read_configuration,
    rendered_anew,
)
from kits_bench.frozen_test.probe import check_renderer
from kits_bench.frozen_test.rendering import rendered_case
from kits_bench.machine import machine_facts
from kits_bench.records import write_record
from kits_runtime.cli.console import EXIT_OK, exit_code_of, say
from kits_runtime.engines import BACKENDS
from kits_runtime.errors import UsageError
from kits_runtime.segmenter import Segmenter
from kits_trt.evaluation.pairs import label_files

NAME = "frozen-test"
_SHOWN_WORST = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; 0 also where cases remain to be done."""
    options = _parser().parse_args(argv)
    return exit_code_of(lambda: _run(options), name=NAME, debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kits_bench.frozen_test", description=__doc__)
    add = parser.add_argument
    add("--anatomy", type=Path, required=True, metavar="DIR", help="KiTS19 label maps")
    add("--bundle", type=Path, help="default: the one in the package")
    add("--backend", choices=("auto", *(row.name for row in BACKENDS)), default="auto")
    add("--subset", choices=SUBSETS, required=True, help="test is for final figures only")
    add("--version-of-test", type=int, default=VERSION, metavar="N")
    add("--renderings", type=int, default=1, metavar="N", help="of each dev anatomy (default: 1)")
    add("-o", "--out", type=Path, required=True, metavar="OUT", help="scans, results, record")
    add("--minutes", type=float, default=float("inf"), help="end after so many; call again")
    add("--debug", action="store_true", help="with tracebacks")
    return parser


def _run(options: argparse.Namespace) -> int:
    configuration = read_configuration(options.version_of_test)
    check_renderer(configuration.renderer)
    maps = label_files(options.anatomy)
    todo = _scans_to_run(configuration, options)
    end = time.monotonic() + 60 * options.minutes
    results = []
    with Segmenter.from_bundle(options.bundle, backend=options.backend) as segmenter:
        for number, (rendering, case, out) in enumerate(todo, start=1):
            if time.monotonic() > end:
                say(f"{NAME}: {number - 1} of {len(todo)} cases done; call again to go on")
                return EXIT_OK
            result = _result_of(segmenter, case, rendering, maps=maps, out=out)
            results.append(result)
            say(f"{NAME}: {number}/{len(todo)} {told(result)}")
        facts = {
            "subset": options.subset,
            "renderings": options.renderings,
            **_what_ran(segmenter, configuration),
        }
    several = f"-{options.renderings}-renderings" if options.renderings > 1 else ""
    path = options.out / f"{options.subset}{several}.json"
    write_record(path, record_of_results(results, facts))
    say(f"{NAME}: {path}")
    return EXIT_OK


def _scans_to_run(
    configuration: Configuration, options: argparse.Namespace
) -> list[tuple[Configuration, FrozenCase, Path]]:
    """Each scan's rendering, case and folder.

    Raises:
        UsageError: Test cases are to be rendered otherwise than they were frozen.
    """
    count = options.renderings
    if count < 1 or (count > 1 and options.subset != "dev"):
        raise UsageError(
            f"--renderings: found {count} of subset {options.subset}, expected 1, or more of dev; "
            "the test subset is rendered as it was frozen"
        )
    todo = []
    for number in range(count):
        rendering = rendered_anew(configuration, number)
        out = options.out / f"rendering-{number}" if number else options.out
        todo += [(rendering, case, out) for case in rendering.of(options.subset)]
    return todo


def told(result: Result) -> str:
    """One line about a result, for people."""
    codes = ", ".join(result.warnings)
    return (
        f"{result.case}: {result.phase}, {result.thickness_mm:g} mm, tumour {result.tumour_cm:g} "
        f"cm, Dice {result.dice_kidney:.3f} and {result.dice_tumour:.3f} {codes}"
    )


def record_of_results(results: Sequence[Result], facts: Mapping[str, object]) -> dict[str, object]:
    """The record: what ran, medians with intervals, the worst cases, and every case."""
    return {
        "kind": "frozen-test",
        **facts,
        "machine": machine_facts(),
        **accuracy_of(results),
        "worst_first": [result.case for result in worst_first(results)[:_SHOWN_WORST]],
        "cases": [asdict(result) for result in results],
    }


def _result_of(
    segmenter: Segmenter,
    case: FrozenCase,
    configuration: Configuration,
    *,
    maps: Mapping[str, Path],
    out: Path,
) -> Result:
    """The result of an earlier run of the same bundle on the same scan, or a new one."""
    key = f"{segmenter.bundle.sha256[:12]}-{segmenter.backend.name}-{configuration.sha256[:12]}"

    def make() -> Result:
        folder = rendered_case(case, configuration, maps=maps, cache=out / "scans")
        masks = out / "masks"
        masks.mkdir(parents=True, exist_ok=True)
        return run_case(segmenter, folder, phase=case.phase, out=masks)

    return kept_result(out / "results" / key / f"{case.case}.json", make)


def _what_ran(segmenter: Segmenter, configuration: Configuration) -> dict[str, object]:
    manifest, backend = segmenter.bundle.manifest, segmenter.backend
    return {
        "version": configuration.version,
        "configuration_sha256": configuration.sha256,
        "bundle": {
            "sha256": segmenter.bundle.sha256,
            "system": manifest.system,
            "preset": manifest.preset,
        },
        "backend": {"name": backend.name, "precision": backend.precision},
    }


if __name__ == "__main__":
    sys.exit(main())
