"""Reads a training case: its scan, and its labels on the scan's voxels in our values."""

from collections import Counter
from pathlib import Path

import numpy as np

from kits_runtime.errors import ScanError
from kits_runtime.nifti import read_scan
from kits_runtime.volume import Volume
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst, labels_from_stored
from kits_trt.data.stage_pieces import Labels
from kits_trt.evaluation.label_maps import GRID_TOLERANCE, farthest_mm

_SHOWN = 4


def read_case(case: TrainingCase, cyst: Cyst) -> tuple[Volume, Labels]:
    """A case's scan and its labels, both on (z, y, x).

    Raises:
        ScanError: A file is missing or unreadable, the label map has other values than it may or
            none but background, or it does not lie on the scan.
    """
    stored = read_stored_labels(case)
    wrong = wrong_values(case, stored) or nothing_labelled(case, stored)
    if wrong is not None:
        raise ScanError(wrong)
    scan = read_scan(case.scan).volume
    apart = apart_from(case, scan, stored)
    if apart is not None:
        raise ScanError(apart)
    return scan, labels_from_stored(stored.data.astype(np.uint8), case.classes, cyst)


def read_stored_labels(case: TrainingCase) -> Volume:
    """A case's label map as it is stored.

    Raises:
        ScanError: It is missing or unreadable.
    """
    return read_scan(labels_path(case)).volume


def labels_path(case: TrainingCase) -> Path:
    """Where a case's label map is.

    Raises:
        ScanError: It has none.
    """
    if case.labels is None:
        raise ScanError(
            f"{case.scan}: found no segmentation beside it; expected a label map of the scan; add "
            "it, or take the case away"
        )
    return case.labels


def wrong_values(case: TrainingCase, stored: Volume) -> str | None:
    """What is wrong with the values of a label map."""
    allowed = sorted(case.classes)
    counts: Counter[float] = Counter()
    for plane in stored.data:
        strange = plane[~np.isin(plane, allowed)]
        values, times = np.unique(strange, return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    if not counts:
        return None
    shown = ", ".join(f"{value:g}" for value in sorted(counts)[:_SHOWN])
    more = f" and {len(counts) - _SHOWN} more values" if len(counts) > _SHOWN else ""
    return (
        f"{case.labels}: found {counts.total()} voxels of {shown}{more}; expected the labels "
        f"{', '.join(map(str, allowed))} alone; correct the label map"
    )


def nothing_labelled(case: TrainingCase, stored: Volume) -> str | None:
    """What is wrong with a label map without anything in it."""
    if labels_shown(case, stored):
        return None
    return f"{case.labels}: found no labelled voxel; expected a kidney; leave this case out"


def labels_shown(case: TrainingCase, stored: Volume) -> set[int]:
    """What a label map shows beside background, in our values."""
    values = {int(value) for plane in stored.data for value in np.unique(plane)}
    return {case.classes.get(value, 0) for value in values} - {0}


def apart_from(case: TrainingCase, scan: Volume, stored: Volume) -> str | None:
    """How a label map does not lie voxel by voxel on its scan."""
    if scan.shape != stored.shape:
        return (
            f"{case.labels}: found {_shown(stored.shape)} voxels (z, y, x); expected "
            f"{_shown(scan.shape)} as in {case.scan}; bring the label map to the scan's grid"
        )
    apart_mm = farthest_mm(scan.affine, stored.affine, scan.shape)
    allowed_mm = GRID_TOLERANCE * min(scan.spacing_mm)
    if apart_mm <= allowed_mm:
        return None
    return (
        f"{case.labels}: found an affine that puts a voxel {apart_mm:.3g} mm from where "
        f"{case.scan} has it; expected at most {allowed_mm:.3g} mm; write the label map with the "
        "affine of the scan"
    )


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
