"""Renders the cases of the frozen test around a user's label maps, and keeps them on disk."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from kits_bench.frozen_test.configuration import Configuration, FrozenCase, labels_sha256
from kits_runtime.errors import ScanError
from kits_trt.evaluation.label_maps import read_labels
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.real_anatomy import patient_from_labels
from kits_trt.phantom.rendering import render

_HIGHEST_LABEL = 2
_SPACING_TOLERANCE = 1e-3
STAMP = "rendered.json"


def rendered_case(
    case: FrozenCase, configuration: Configuration, *, maps: Mapping[str, Path], cache: Path
) -> Path:
    """The folder with a case's scan and labels; rendered now if no earlier run left it.

    Raises:
        ScanError: The label map is missing or is not the one that was frozen.
    """
    folder = cache / case.case
    stamp = json.loads(json.dumps({**asdict(case), "configuration": configuration.sha256}))
    if _stamp_in(folder) == stamp:
        return folder
    labels = thinned_labels(case, maps)
    patient = patient_from_labels(
        labels, case.rendered_mm, seed=configuration.seed, case=case.number, phase=case.phase
    )
    z, y, x = labels.shape
    hu, given = render(patient, shape=(z, y, x), spacing_mm=case.rendered_mm)
    write_case(folder, {"imaging": hu, "segmentation": given}, case.rendered_mm, stamp)
    return folder


def thinned_labels(case: FrozenCase, maps: Mapping[str, Path]) -> NDArray[np.uint8]:
    """The label map of a case, checked against its hash, with the slices and pixels that stay.

    Raises:
        ScanError: The label map is missing or is not the one that was frozen.
    """
    if case.case not in maps:
        raise ScanError(
            f"{case.case}: found no label map of it; expected KiTS19's segmentation.nii.gz; "
            "give the challenge's folder with --anatomy"
        )
    path = maps[case.case]
    given = read_labels(path, _HIGHEST_LABEL)
    found = labels_sha256(given.labels)
    if found != case.labels_sha256:
        raise ScanError(
            f"{path}: found labels with SHA-256 {found[:16]}; expected {case.labels_sha256[:16]}; "
            "fetch KiTS19's own segmentation again"
        )
    if not np.allclose(given.spacing_mm, case.spacing_mm, atol=_SPACING_TOLERANCE):
        raise ScanError(
            f"{path}: found voxels of {given.spacing_mm} mm; expected {case.spacing_mm}; "
            "fetch KiTS19's own segmentation again"
        )
    kept = given.labels[:: case.every_slice, :: case.every_pixel, :: case.every_pixel]
    return np.ascontiguousarray(kept)


def write_case(
    folder: Path,
    scans: Mapping[str, NDArray[Any]],
    spacing_mm: tuple[float, float, float],
    stamp: Mapping[str, object],
) -> None:
    """Writes a case in the challenge's layout with a stamp that tells how; whole or not at all."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        for name, data in scans.items():
            image = nib.Nifti1Image(data, kits_affine(spacing_mm))  # type: ignore[no-untyped-call]
            with gzip.open(partial / f"{name}.nii.gz", "wb", 1) as stream:
                image.to_stream(stream)
        (partial / STAMP).write_text(json.dumps(stamp), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _stamp_in(folder: Path) -> object:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
