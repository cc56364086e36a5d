"""How Dice falls with noise, slice thickness and pixel size, and by phase, on the same anatomies.

``python -m kits_bench.robustness --anatomy DIR [--bundle B] -o RECORD`` renders a few cases of the
frozen test's dev subset again and again, one setting changed at a time.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from kits_bench.accuracy import Result, kept_result, run_case, scores_of
from kits_bench.frozen_test.configuration import Configuration, FrozenCase, read_configuration
from kits_bench.frozen_test.probe import check_renderer
from kits_bench.frozen_test.rendering import thinned_labels, write_case
from kits_bench.machine import machine_facts
from kits_bench.records import write_record
from kits_runtime.cli.console import EXIT_OK, exit_code_of, say
from kits_runtime.errors import ScanError
from kits_runtime.segmenter import Segmenter
from kits_trt.evaluation.pairs import label_files
from kits_trt.phantom.phases import PHASES, Phase
from kits_trt.phantom.real_anatomy import patient_from_labels
from kits_trt.phantom.rendering import render

CASES = 3
# Thin slices, so that thicker ones can be had by leaving some out; not so many that it takes long.
THINNEST_MM = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to render a case; ``noise_hu`` is meant at 5 mm slices and 0.8 mm pixels."""

    sweep: str
    value: float | str
    phase: Phase = "arterial"
    noise_hu: float = 8.0
    slice_mm: float = 3.0
    every_pixel: int = 2


def settings() -> Iterator[Setting]:
    """Every setting, sweep by sweep."""
    for noise_hu in (4.0, 8.0, 16.0, 24.0, 40.0):
        yield Setting(sweep="noise, HU", value=noise_hu, noise_hu=noise_hu)
    for slice_mm in (1.0, 3.0, 5.0, 8.0):
        yield Setting(sweep="slice thickness, mm", value=slice_mm, slice_mm=slice_mm)
    for every in (1, 2, 4):
        yield Setting(sweep="pixels a side", value=512 // every, every_pixel=every, slice_mm=5.0)
    for phase in PHASES:
        yield Setting(sweep="phase", value=phase, phase=phase)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kits_bench.robustness")
    parser.add_argument("--anatomy", type=Path, required=True, help="KiTS19 label maps")
    parser.add_argument("--bundle", type=Path, help="default: the one in the package")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the record")
    parser.add_argument("--work", type=Path, default=Path("out/robustness"), help="results")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so many")
    options = parser.parse_args(argv)
    return exit_code_of(lambda: _run(options), name="robustness", debug=False)


def _run(options: argparse.Namespace) -> int:
    configuration = read_configuration()
    check_renderer(configuration.renderer)
    maps = label_files(options.anatomy)
    cases = _cases(configuration, maps)[: options.cases]
    results: dict[tuple[str, str], list[Result]] = {}
    end = time.monotonic() + 60 * options.minutes
    with Segmenter.from_bundle(options.bundle) as segmenter, TemporaryDirectory() as name:
        sha256, folder = segmenter.bundle.sha256, Path(name)
        (folder / "masks").mkdir()
        for case, setting in itertools.product(cases, settings()):
            if time.monotonic() > end:
                say(f"robustness: stopped at {case.case}, {setting}; call again to go on")
                return EXIT_OK
            where = (case, setting, configuration)
            make = partial(_measured, segmenter, where, maps=maps, folder=folder)
            key = f"{sha256[:12]}-{configuration.sha256[:12]}"
            point = f"{setting.sweep}, {setting.value}"
            result = kept_result(options.work / key / case.case / f"{point}.json", make)
            results.setdefault((setting.sweep, str(setting.value)), []).append(result)
            say(f"robustness: {point}: {result}")
    record = {
        "kind": "robustness",
        "configuration_sha256": configuration.sha256,
        "bundle": {"sha256": sha256},
        "machine": machine_facts(),
        "cases": [case.case for case in cases],
        "points": [
            {"sweep": sweep, "value": value, **scores_of(found)}
            for (sweep, value), found in results.items()
        ],
    }
    write_record(options.out, record)
    return EXIT_OK


def _cases(configuration: Configuration, maps: Mapping[str, Path]) -> list[FrozenCase]:
    """The cases of the dev subset that are thin and not too long, in order of their numbers."""
    thin = [
        case
        for case in configuration.of("dev")
        if case.spacing_mm[0] <= THINNEST_MM and case.every_slice <= 2
    ]
    if not any(case.case in maps for case in thin):
        raise ScanError(
            "robustness: found none of the frozen test's thin dev cases; expected KiTS19's label "
            "maps; give the challenge's folder with --anatomy"
        )
    return thin


def _measured(
    segmenter: Segmenter,
    what: tuple[FrozenCase, Setting, Configuration],
    *,
    maps: Mapping[str, Path],
    folder: Path,
) -> Result:
    case, setting, configuration = what
    where = write_setting(case, setting, configuration, maps=maps, folder=folder)
    return run_case(segmenter, where, phase=setting.phase, out=folder / "masks")


def write_setting(
    case: FrozenCase,
    setting: Setting,
    configuration: Configuration,
    *,
    maps: Mapping[str, Path],
    folder: Path,
) -> Path:
    """Renders a case with one setting into a folder of its own, replacing the one before."""
    every = max(1, round(setting.slice_mm / case.spacing_mm[0]))
    changed = replace(case, every_slice=every, every_pixel=setting.every_pixel)
    labels = thinned_labels(changed, maps)
    patient = patient_from_labels(
        labels,
        changed.rendered_mm,
        seed=configuration.seed,
        case=case.number,
        phase=setting.phase,
    )
    patient = replace(patient, scanner=replace(patient.scanner, noise_hu=setting.noise_hu))
    z, y, x = labels.shape
    hu, given = render(patient, shape=(z, y, x), spacing_mm=changed.rendered_mm)
    where = folder / case.case
    write_case(where, {"imaging": hu, "segmentation": given}, changed.rendered_mm, {})
    return where


if __name__ == "__main__":
    sys.exit(main())
