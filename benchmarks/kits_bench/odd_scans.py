"""Scans that are no ordinary abdominal CT, each with the warnings that it must raise.

``python -m kits_bench.odd_scans [--bundle B] -o RECORD`` runs a bundle over all of them, file to
files, and records time, memory, what was found and which warnings came.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from kits_bench.accuracy import codes_of
from kits_bench.machine import machine_facts
from kits_bench.records import write_record
from kits_runtime.cases import Case
from kits_runtime.cli.console import EXIT_OK, exit_code_of, say
from kits_runtime.errors import ParityError
from kits_runtime.pipeline import job_for, read_case, segment_case, write_case
from kits_runtime.segmenter import Segmenter
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.model import Patient
from kits_trt.phantom.phases import Phase
from kits_trt.phantom.rendering import render

Hu = NDArray[np.int16]
Affine = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Triple = tuple[float, float, float]

SEED = 60_601
_GRID = ((56, 160, 160), (5.0, 2.6, 2.6))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OddScan:
    """HU on (z, y, x) towards inferior, posterior and left, and the affine."""

    hu: Hu
    affine: Affine


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How to make one kind of scan, and which warnings it must raise.

    Attributes:
        build: Makes the scan.
        from_scan: Codes that its intensities alone must raise, whatever the mask is.
        must_warn: Whether a mask that is not empty must come with a warning.
        is_large: Whether it takes minutes and gigabytes.
    """

    build: Callable[[], OddScan]
    from_scan: tuple[str, ...] = ()
    must_warn: bool = True
    is_large: bool = False


def head() -> OddScan:
    """Scalp, skull, brain and ventricles."""
    z, y, x = _axes((44, 128, 128), (4.0, 1.9, 1.9))
    r = np.sqrt((z / 110) ** 2 + (y / 96) ** 2 + (x / 76) ** 2)
    inner = np.sqrt((z / 40) ** 2 + (y / 34) ** 2 + (x / 16) ** 2)
    layers = ((1.0, -60.0), (0.95, 900.0), (0.87, 36.0))
    return _layered(r, layers, ((inner < 1, 8.0),), spacing_mm=(4.0, 1.9, 1.9))


def chest() -> OddScan:
    """Fat, muscle, ribs, two lungs, heart and spine; nothing of the abdomen."""
    spacing_mm = (5.0, 2.8, 2.8)
    z, y, x = _axes((56, 144, 144), spacing_mm)
    r = np.sqrt((y / 120) ** 2 + (x / 175) ** 2) + 0 * z
    lungs = ((y / 82) ** 2 + ((np.abs(x) - 68) / 58) ** 2 + (z / 150) ** 2) < 1
    ribs = (np.abs(r - 0.80) < 0.03) & (np.abs((z + 0.2 * y) % 30 - 15) < 5)
    heart = ((y + 25) / 45) ** 2 + ((x - 15) / 55) ** 2 + ((z - 30) / 60) ** 2 < 1
    spine = ((y - 70) / 22) ** 2 + (x / 22) ** 2 + 0 * z < 1
    parts = ((lungs, -830.0), (ribs, 400.0), (heart, 120.0), (spine, 220.0))
    return _layered(r, ((1.0, -105.0), (0.87, 55.0)), parts, spacing_mm=spacing_mm)


def thigh() -> OddScan:
    """Fat, muscle and a bone with marrow."""
    spacing_mm = (5.0, 1.6, 1.6)
    z, y, x = _axes((50, 144, 144), spacing_mm)
    r = np.hypot(y, x) / 82 + 0 * z
    bone = np.hypot(y - 5, x + 6) + 0 * z
    parts = ((bone < 15, 1000.0), (bone < 8, -60.0))
    return _layered(r, ((1.0, -105.0), (0.83, 58.0)), parts, spacing_mm=spacing_mm)


def water() -> OddScan:
    """A cylinder of water in a shell of plastic."""
    spacing_mm = (5.0, 2.8, 2.8)
    z, y, x = _axes((40, 144, 144), spacing_mm)
    r = np.hypot(y, x) / 155 + 0 * z
    return _layered(r, ((1.0, 120.0), (0.96, 0.0)), (), spacing_mm=spacing_mm)


def noise() -> OddScan:
    """Noise alone, over the whole range of a CT."""
    values = np.random.default_rng(SEED).normal(0, 400, (40, 128, 128))
    return _as_scan(values, (5.0, 3.0, 3.0))


def constant() -> OddScan:
    """The same value everywhere."""
    return _as_scan(np.zeros((40, 96, 96)), (5.0, 3.0, 3.0))


def air() -> OddScan:
    """An empty scanner."""
    values = np.random.default_rng(SEED).normal(-1000, 10, (40, 96, 96))
    return _as_scan(values, (5.0, 3.0, 3.0))


def magnetic() -> OddScan:
    """An abdomen as an MR image shows it: fat bright, bone and air dark, nothing below zero."""
    scan = abdomen("unenhanced")
    levels = np.interp(scan.hu, (-1000, -300, -110, 0, 60, 300, 1500), (4, 8, 900, 150, 340, 60, 5))
    rng = np.random.default_rng(SEED)
    shaken = np.hypot(levels + rng.normal(0, 15, levels.shape), rng.normal(0, 15, levels.shape))
    return replace(scan, hu=np.rint(shaken).astype(np.int16))


def without_offset() -> OddScan:
    """A CT as its scanner stores it, 1024 above Hounsfield units."""
    scan = abdomen("arterial")
    return replace(scan, hu=(np.clip(scan.hu, -1024, None) + 1024).astype(np.int16))


def abdomen(phase: Phase, case: int = 0) -> OddScan:
    """An ordinary procedural phantom."""
    return _rendered(draw_patient(SEED, case, phase=phase))


def no_kidneys() -> OddScan:
    """An abdomen whose kidneys were removed."""
    return _rendered(replace(draw_patient(SEED, 0, phase="nephrographic"), kidneys=()))


def tiny_field() -> OddScan:
    """A field of view of 8 cm inside the abdomen."""
    patient = draw_patient(SEED, 1, phase="arterial")
    return _rendered(patient, ((32, 96, 96), (2.5, 0.8, 0.8)))


def half_a_kidney() -> OddScan:
    """A scan that begins in the middle of the kidneys."""
    patient = draw_patient(SEED, 0, phase="arterial")
    shape, spacing_mm = _GRID
    middle = float(np.mean([kidney.centre[0] for kidney in patient.kidneys]))
    down = middle + shape[0] * spacing_mm[0] / 2
    return _rendered(replace(patient, centre_mm=(down, *patient.centre_mm[1:])))


def metal() -> OddScan:
    """The first patient with a metal implant."""
    patients = (draw_patient(SEED, case, phase="nephrographic") for case in range(1000))
    return _rendered(next(p for p in patients if p.metal is not None))


def oblique() -> OddScan:
    """252 x 512 x 796 voxels on axes that are turned by 20 degrees."""
    patient = draw_patient(SEED, 2, phase="nephrographic")
    small = _rendered(patient, ((126, 128, 199), (1.8, 2.8, 2.0)))
    hu = small.hu.repeat(2, 0).repeat(4, 1).repeat(4, 2)
    turn = np.eye(4)
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn[1:3, 1:3] = [[c, -s], [s, c]]
    return OddScan(hu=hu, affine=turn @ kits_affine((0.9, 0.7, 0.5)))


def long_scan() -> OddScan:
    """1059 x 512 x 512 voxels, from the chest to the thighs."""
    patient = draw_patient(SEED, 3, phase="arterial")
    small = _rendered(patient, ((353, 128, 128), (2.1, 3.2, 3.2)))
    hu = small.hu.repeat(3, 0).repeat(4, 1).repeat(4, 2)
    return OddScan(hu=hu, affine=kits_affine((0.7, 0.8, 0.8)))


KINDS: Mapping[str, Kind] = {
    "head": Kind(build=head, from_scan=("small-section",)),
    "chest": Kind(build=chest),
    "thigh": Kind(build=thigh, from_scan=("small-section",)),
    "MR image": Kind(build=magnetic, from_scan=("not-ct",)),
    "stored without offset": Kind(build=without_offset, from_scan=("not-ct",)),
    "water": Kind(build=water, from_scan=("water",)),
    "noise": Kind(build=noise, from_scan=("not-ct",)),
    "constant": Kind(build=constant, from_scan=("not-ct",)),
    "air": Kind(build=air, from_scan=("not-ct",)),
    "kidneys removed": Kind(build=no_kidneys),
    "field of 8 cm": Kind(build=tiny_field),
    "begins in the kidneys": Kind(build=half_a_kidney),
    "metal": Kind(build=metal, must_warn=False),
    "oblique, 796 columns": Kind(build=oblique, must_warn=False, is_large=True),
    "1059 slices": Kind(build=long_scan, must_warn=False, is_large=True),
}


def _rendered(patient: Patient, grid: tuple[tuple[int, int, int], Triple] = _GRID) -> OddScan:
    shape, spacing_mm = grid
    hu, _ = render(patient, shape=shape, spacing_mm=spacing_mm)
    return OddScan(hu=hu, affine=kits_affine(spacing_mm))


def _axes(shape: tuple[int, int, int], spacing_mm: Triple) -> tuple[Floats, ...]:
    """Millimetres from the middle along z, y and x, ready to be broadcast."""
    along = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True))
    z, y, x = along
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _layered(
    r: Floats,
    layers: tuple[tuple[float, float], ...],
    parts: tuple[tuple[NDArray[np.bool_], float], ...],
    *,
    spacing_mm: Triple,
) -> OddScan:
    """Shells within a radius, then parts over them, air around, and noise."""
    values = np.full(r.shape, -1000.0)
    for radius, value in layers:
        values[r < radius] = value
    for where, value in parts:
        values[np.broadcast_to(where, values.shape) & (r < 1)] = value
    values += np.random.default_rng(SEED).normal(0, 12, values.shape)
    return _as_scan(values, spacing_mm)


def _as_scan(values: NDArray[np.float64], spacing_mm: Triple) -> OddScan:
    hu = np.clip(np.rint(values), -1024, 3071).astype(np.int16)
    return OddScan(hu=hu, affine=kits_affine(spacing_mm))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 6 where a scan raised too few warnings."""
    parser = argparse.ArgumentParser(prog="python -m kits_bench.odd_scans")
    parser.add_argument("--bundle", type=Path, help="default: the one in the package")
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the record")
    options = parser.parse_args(argv)
    return exit_code_of(lambda: _run(options), name="odd-scans", debug=False)


def _run(options: argparse.Namespace) -> int:
    rows = []
    with Segmenter.from_bundle(options.bundle) as segmenter, TemporaryDirectory() as folder:
        for name in options.only:
            rows.append(run_odd(segmenter, name, Path(folder)))
            say(f"odd-scans: {rows[-1]}")
        sha256 = segmenter.bundle.sha256
    record = {
        "kind": "odd-scans",
        "bundle": {"sha256": sha256},
        "machine": machine_facts(),
        "scans": rows,
    }
    write_record(options.out, record)
    return EXIT_OK if all(row["as_expected"] for row in rows) else ParityError.exit_code


def run_odd(segmenter: Segmenter, name: str, folder: Path) -> dict[str, Any]:
    """What a bundle made of one odd scan, file to files.

    Raises:
        KitsError: The scan could not be run, which none of them may cause.
    """
    kind = KINDS[name]
    made = kind.build()
    path = folder / "scan.nii"
    nib.save(nib.Nifti1Image(made.hu, made.affine), path)  # type: ignore[no-untyped-call]
    job = job_for(Case(name="odd", scan=path), folder / "out", with_picture=False)
    job.mask.parent.mkdir(exist_ok=True)
    done = segment_case(segmenter, read_case(job))
    run = write_case(done, segmenter.bundle.manifest.labels).run
    path.unlink()
    codes = codes_of(run.warnings)
    found_ml = {label: round(ml, 1) for label, ml in run.volumes_ml.items()}
    warned = bool(codes) or not any(found_ml.values())
    return {
        "scan": name,
        "size": list(made.hu.shape),
        "volumes_ml": found_ml,
        "warnings": list(codes),
        "total_ms": round(run.total_ms),
        "peak_rss_mb": round(run.peak_rss_mb),
        "as_expected": set(kind.from_scan) <= set(codes) and (warned or not kind.must_warn),
    }


if __name__ == "__main__":
    sys.exit(main())
