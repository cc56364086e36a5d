"""Ordinary phantoms: how often a warning comes that was not planted, and the worst masks.

``python -m kits_bench.ordinary [--bundle B] -o RECORD --pictures FOLDER`` runs a bundle over
procedural phantoms with a seed of their own. What may be said about each is known from how it was
made: its phase, its kidneys, and whether its labels end at the scan's edge.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_bench.accuracy import Result, accuracy_of, codes_of, kept_result, run_case, worst_first
from kits_bench.frozen_test.rendering import STAMP, write_case
from kits_bench.machine import machine_facts
from kits_bench.records import write_record
from kits_runtime.cli.console import EXIT_OK, exit_code_of, say
from kits_runtime.files import replacing
from kits_runtime.grid import box_of
from kits_runtime.nifti import read_scan
from kits_runtime.png import write_png
from kits_runtime.preview import preview
from kits_runtime.qc import quality_warnings
from kits_runtime.segmenter import Segmenter
from kits_runtime.statistics import class_statistics
from kits_runtime.volume import volume_from_array
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.grids import draw_grid
from kits_trt.phantom.model import Patient
from kits_trt.phantom.rendering import Grid, render

SEED = 33_190
CASES = 32
PICTURES = 3
_MOST_SLICES = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m kits_bench.ordinary")
    parser.add_argument("--bundle", type=Path, help="default: the one in the package")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("-o", "--out", type=Path, required=True, help="the record")
    parser.add_argument("--work", type=Path, default=Path("out/ordinary"), help="scans, masks")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end after so many")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the worst masks")
    options = parser.parse_args(argv)
    return exit_code_of(lambda: _run(options), name="ordinary", debug=False)


def _run(options: argparse.Namespace) -> int:
    work: Path = options.work
    (work / "masks").mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    results, expected, by_truth = [], {}, {}
    with Segmenter.from_bundle(options.bundle) as segmenter:
        for number in range(options.cases):
            if time.monotonic() > end:
                say(f"ordinary: {number} of {options.cases} done; call again to go on")
                return EXIT_OK
            result = _result_of(segmenter, number, work)
            expected[result.case], by_truth[result.case] = codes_in(work / "scans" / result.case)
            results.append(result)
            say(f"ordinary: {result}, expected {sorted(expected[result.case])}")
        sha256 = segmenter.bundle.sha256
    if options.pictures is not None:
        _write_pictures(worst_first(results)[:PICTURES], work, options.pictures)
    record = {
        "kind": "ordinary",
        "bundle": {"sha256": sha256},
        "machine": machine_facts(),
        "seed": SEED,
        **accuracy_of(results),
        "alarms": alarms_of({r.case: set(r.warnings) for r in results}, expected),
        "alarms_with_true_masks": alarms_of(by_truth, expected),
        "worst_first": [result.case for result in worst_first(results)[:PICTURES]],
        "cases": [asdict(result) for result in results],
    }
    write_record(options.out, record)
    return EXIT_OK


def _result_of(segmenter: Segmenter, number: int, work: Path) -> Result:
    patient = draw_patient(SEED, number)
    folder = work / "scans" / f"phantom_{number:05d}"

    def make() -> Result:
        if not folder.is_dir():
            write_phantom(patient, folder)
        return run_case(segmenter, folder, phase=patient.phase, out=work / "masks")

    kept = work / "results" / segmenter.bundle.sha256[:12] / f"{folder.name}.json"
    return kept_result(kept, make)


def codes_in(folder: Path) -> tuple[set[str], set[str]]:
    """The codes that a written phantom deserves by how it was made, and that its truth raises."""
    stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    return set(stamp["expected"]), set(stamp["by_truth"])


def write_phantom(patient: Patient, folder: Path) -> None:
    """Writes a phantom on its drawn grid with half as many pixels, and what may be said of it."""
    drawn = draw_grid(patient)
    every = -(-drawn.shape[0] // _MOST_SLICES)
    z, y, x = drawn.spacing_mm
    grid = Grid(
        shape=(drawn.shape[0] // every, drawn.shape[1] // 2, drawn.shape[2] // 2),
        spacing_mm=(z * every, 2 * y, 2 * x),
        centre_mm=drawn.centre_mm,
    )
    hu, labels = render(
        patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
    )
    scan = volume_from_array(hu, kits_affine(grid.spacing_mm))
    facts = {n: class_statistics(scan, labels, v) for v, n in ((1, "kidney"), (2, "tumour"))}
    raised = quality_warnings(scan, labels, reach=box_of(scan.shape), statistics=facts)
    stamp = {"expected": sorted(expected_codes(patient, labels)), "by_truth": codes_of(raised)}
    write_case(folder, {"imaging": hu, "segmentation": labels}, grid.spacing_mm, stamp)


def expected_codes(patient: Patient, labels: NDArray[np.uint8]) -> set[str]:
    """The warnings that a perfect mask of this phantom deserves, from how it was made."""
    codes = set()
    if patient.phase == "unenhanced":
        codes.add("unenhanced")
    if len({kidney.side for kidney in patient.kidneys}) < 2:
        codes.add("one-kidney")
    faces = (labels.take(end, axis) for axis in range(3) for end in (0, -1))
    if any(face.any() for face in faces):
        codes.add("cut-off")
    return codes


def alarms_of(raised: Mapping[str, set[str]], expected: Mapping[str, set[str]]) -> dict[str, Any]:
    """How many scans raised a code that was not planted, and how many lack one that was."""
    false = [codes - expected[case] for case, codes in raised.items()]
    missed = [expected[case] - codes for case, codes in raised.items()]
    planted = Counter(code for codes in expected.values() for code in codes)
    return {
        "scans": len(raised),
        "scans_with_a_false_alarm": sum(map(bool, false)),
        "false_by_code": dict(sorted(Counter(code for codes in false for code in codes).items())),
        "planted_by_code": dict(sorted(planted.items())),
        "missed_by_code": dict(sorted(Counter(code for codes in missed for code in codes).items())),
    }


def _write_pictures(worst: Sequence[Result], work: Path, pictures: Path) -> None:
    """For each of the worst the found mask above the true one."""
    pictures.mkdir(parents=True, exist_ok=True)
    for place, result in enumerate(worst, start=1):
        case = work / "scans" / result.case
        files = (work / "masks" / f"{result.case}.nii.gz", case / "segmentation.nii.gz")
        volume = read_scan(case / "imaging.nii.gz").volume
        shown = []
        for path, title in zip(files, ("found", "true"), strict=True):
            labels = read_scan(path).volume.data.astype(np.uint8)
            shown.append(preview(volume, labels, [], title=f"{result.case} {title}"))
        with replacing(pictures / f"worst-{place}.png") as stream:
            write_png(stream, halved(np.concatenate(shown)))


def halved(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of half the height and width: the mean of two pixels by two."""
    rows, columns = (size // 2 for size in picture.shape[:2])
    blocks = picture[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, 3)
    mean: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return mean


if __name__ == "__main__":
    sys.exit(main())
