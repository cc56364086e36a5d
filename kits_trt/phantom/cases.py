"""Makes phantom cases as files, in the layout of the KiTS challenges.

``OUT/case_00000/{imaging,segmentation}.nii.gz``, array axes (z, y, x) towards inferior, posterior
and left (nibabel's axis codes I, P, L), an affine that is antidiagonal and negative, origin 0.
``OUT/phantom.json`` lists them.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from kits_runtime.errors import ScanError, UsageError
from kits_runtime.files import replacing_folder
from kits_runtime.record import versions
from kits_runtime.volume import orientation_from_affine
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.grids import (
    Size,
    Triple,
    draw_grid,
    draw_kidney_grid,
    draw_training_grid,
)
from kits_trt.phantom.kidneys import UNUSUAL, USUAL
from kits_trt.phantom.marker import Origin, mark_phantom, read_marked
from kits_trt.phantom.model import Patient
from kits_trt.phantom.real_anatomy import patient_from_labels
from kits_trt.phantom.rendering import Grid, render

Nifti = nib.Nifti1Image
Progress = Callable[[int, int, str], None]
Lesson = int | Literal["kidneys"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make. Size and spacing are drawn as in KiTS where they are None.

    With a ``lesson`` scans are made to learn from: that many pixels along both axes in plane, at
    most so many around a segmentation; or kidneys and little else, with pixels as scanners have.
    If these are ``varied``, every other one is drawn as one around a segmentation is.
    """

    out: Path
    seed: int
    size: Size | None = None
    spacing_mm: Triple | None = None
    lesson: Lesson | None = None
    varied: bool = False
    overwrite: bool = False


def make_cases(plan: Plan, count: int, progress: Progress) -> None:
    """Writes procedural cases 0 .. count - 1; each depends on the seed and its number alone.

    Raises:
        UsageError: A case is there already and may not be overwritten; nothing is written then.
    """
    names = [f"case_{case:05d}" for case in range(count)]
    _refuse_to_overwrite(plan, names)
    for case, name in enumerate(names):
        variety = UNUSUAL if plan.varied else USUAL
        patient = draw_patient(plan.seed, case, variety=variety)
        grid = _grid_of(plan, patient)
        hu, labels = render(
            patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
        )
        if plan.varied and plan.lesson == "kidneys" and case % 2 and labels.any():
            # A map shows sinuses and lesions otherwise than shapes do; both are to be learnt.
            patient = patient_from_labels(labels, grid.spacing_mm, seed=plan.seed, case=case)
            hu, _ = render(patient, shape=grid.shape, spacing_mm=grid.spacing_mm)
        affine = kits_affine(grid.spacing_mm)
        scans = {
            "imaging": _image(hu, affine),
            "segmentation": _image(labels, affine),
        }
        _write_case(plan.out / name, scans)
        mark_phantom(plan.out, name, _origin(plan, anatomy=False))
        progress(case + 1, count, f"{name}: {_shape_text(hu.shape)} voxels, {patient.phase}")


def _grid_of(plan: Plan, patient: Patient) -> Grid:
    if plan.lesson is None:
        return draw_grid(patient, size=plan.size, spacing_mm=plan.spacing_mm)
    if plan.lesson == "kidneys":
        return draw_kidney_grid(patient)
    return draw_training_grid(patient, plan.lesson, far=plan.varied)


def make_cases_around(plan: Plan, segmentations: Sequence[Path], progress: Progress) -> None:
    """Writes a case around each segmentation, with its folder's name, grid, affine and labels.

    To learn from, these are thinned or drawn anew around the kidneys, and the affine is that of
    procedural cases. Segmentations of procedural cases may be drawn around as well, which then
    are no real anatomy.

    Raises:
        ScanError: A segmentation cannot be read, or is not a label map with a kidney.
        UsageError: A case is there already and may not be overwritten; nothing is written then.
    """
    names = [path.parent.name for path in segmentations]
    _refuse_to_overwrite(plan, names)
    for done, (name, path) in enumerate(zip(names, segmentations, strict=True), start=1):
        scans = _scans_around(path, plan, case_number(name))
        _write_case(plan.out / name, scans)
        mark_phantom(plan.out, name, _origin(plan, anatomy=not _is_drawn(path.parent)))
        progress(done, len(names), f"{name}: {_shape_text(scans['imaging'].shape)} voxels")


def find_segmentations(folder: Path) -> list[Path]:
    """``segmentation.nii.gz`` (or .nii) in the folders of a KiTS-layout folder, by name.

    Raises:
        ScanError: The folder is missing, or there is none.
    """
    if not folder.is_dir():
        raise ScanError(
            f"{folder}: found no such folder; expected one with case_*/segmentation.nii.gz; "
            "check the path"
        )
    found = {path.parent: path for path in folder.glob("*/segmentation.nii")}
    found |= {path.parent: path for path in folder.glob("*/segmentation.nii.gz")}
    if not found:
        raise ScanError(
            f"{folder}: found no */segmentation.nii.gz; expected at least one case folder; "
            "give the folder that holds the case folders"
        )
    return [found[parent] for parent in sorted(found)]


def case_number(name: str) -> int:
    """The number in a case's name, or one that stands for the whole name."""
    match = re.search(r"(\d+)$", name)
    return int(match.group(1)) if match else zlib.crc32(name.encode())


def kits_affine(spacing_mm: Triple) -> NDArray[np.float64]:
    """The affine of KiTS files: antidiagonal, negative, origin 0."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = [-step for step in spacing_mm]
    affine[3, 3] = 1
    return affine


def _origin(plan: Plan, *, anatomy: bool) -> Origin:
    return Origin(seed=plan.seed, version=versions()["kits-trt"], anatomy=anatomy)


def _is_drawn(case: Path) -> bool:
    """Whether the labels in a case's folder are a procedural phantom's, and no patient's."""
    origin = read_marked(case.parent).get(case.name)
    return origin is not None and not origin.anatomy


def _scans_around(path: Path, plan: Plan, case: int) -> dict[str, Nifti]:
    source = _loaded(path)
    affine = np.asarray(source.affine, np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ScanError(
            f"{path}: found a singular affine; expected three independent axes; repair its header"
        )
    stored = _checked_labels(source, path)
    arrangement = orientation_from_affine(affine)
    labels = np.ascontiguousarray(arrangement.to_model(stored))
    steps = np.linalg.norm(affine[:3, :3], axis=0)[list(arrangement.axes)]
    spacing_mm = (float(steps[0]), float(steps[1]), float(steps[2]))
    if isinstance(plan.lesson, int):
        labels, spacing_mm = _thinned(labels, spacing_mm, plan.lesson)
    if not labels.any():
        raise ScanError(
            f"{path}: found no labelled voxel; expected a kidney (1); leave this case out"
        )
    patient = patient_from_labels(labels, spacing_mm, seed=plan.seed, case=case)
    if plan.lesson == "kidneys":
        grid = draw_kidney_grid(patient)
        hu, labels = render(
            patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
        )
        spacing_mm = grid.spacing_mm
    else:
        z, y, x = labels.shape
        hu, _ = render(patient, shape=(z, y, x), spacing_mm=spacing_mm)
    if plan.lesson is not None:
        affine = kits_affine(spacing_mm)
        return {"imaging": _image(hu, affine), "segmentation": _image(labels, affine)}
    return {
        "imaging": _image_like(source, arrangement.to_source(hu)),
        "segmentation": _image_like(source, stored),
    }


def _thinned(
    labels: NDArray[np.uint8], spacing_mm: Triple, plane: int
) -> tuple[NDArray[np.uint8], Triple]:
    """Every so many pixels of a label map, so that at most ``plane`` are left along an axis."""
    depth_mm, *pixel_mm = spacing_mm
    y, x = (ceil(count / plane) for count in labels.shape[1:])
    kept = np.ascontiguousarray(labels[:, ::y, ::x])
    return kept, (depth_mm, pixel_mm[0] * y, pixel_mm[1] * x)


def _loaded(path: Path) -> Nifti:
    try:
        source = nib.load(path)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(source, Nifti):
        raise _unreadable(path, type(source).__name__)
    return source


def _unreadable(path: Path, found: str) -> ScanError:
    return ScanError(
        f"{path}: found no readable NIfTI ({' '.join(found.split())}); expected a .nii.gz label "
        "map; fetch or convert it again"
    )


def _checked_labels(source: Nifti, path: Path) -> NDArray[np.uint8]:
    try:
        data = np.asanyarray(source.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ScanError(
            f"{path}: found damaged voxels ({' '.join(str(error).split())}); expected a whole "
            "file; fetch it again"
        ) from error
    if data.ndim != 3:
        raise ScanError(
            f"{path}: found {data.ndim} axes; expected a volume with 3; give one label map a file"
        )
    values = np.unique(data)
    if not np.isin(values, (0, 1, 2, 3)).all():
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise ScanError(
            f"{path}: found values {shown}; expected labels 0, 1, 2 and 3 only; "
            "give the segmentation, not the scan"
        )
    labels: NDArray[np.uint8] = data.astype(np.uint8)
    return labels


def _image_like(source: Nifti, data: NDArray[Any]) -> Nifti:
    """An image with the source's affine and form codes."""
    image = _image(data, source.affine)
    for form in ("sform_code", "qform_code"):
        image.header[form] = source.header[form]
    return image


def _image(data: NDArray[Any], affine: NDArray[np.float64]) -> Nifti:
    return nib.Nifti1Image(data, affine)  # type: ignore[no-untyped-call]


def _refuse_to_overwrite(plan: Plan, names: Sequence[str]) -> None:
    there = [name for name in names if (plan.out / name).exists()]
    if there and not plan.overwrite:
        raise UsageError(
            f"{plan.out}: found {there[0]} already; expected no case of that name; "
            "choose another folder or add --overwrite"
        )


def _write_case(folder: Path, scans: dict[str, Nifti]) -> None:
    with replacing_folder(folder) as partial:
        for name, scan in scans.items():
            _write_packed(partial / f"{name}.nii.gz", scan)


def _write_packed(path: Path, scan: Nifti) -> None:
    """Without a time stamp and a name in the gzip header, equal scans are equal files."""
    with path.open("wb") as stream, gzip.GzipFile("", "wb", 1, stream, mtime=0) as packed:
        scan.to_stream(packed)


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join(str(count) for count in shape)
