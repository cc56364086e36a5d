"""Reads a truth and a prediction as label maps on one grid."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kits_runtime.errors import ScanError
from kits_runtime.nifti import read_scan
from kits_runtime.volume import Affine, Voxels, spacing_mm_from_affine

Labels = NDArray[np.uint8]

# Headers round, and programs that rewrite them round again; another grid is at least half a voxel
# away. In voxels of the finest axis.
GRID_TOLERANCE = 0.1
_SHOWN = 4
# The finest that a CT could have; a header in another unit than mm lies far below.
_FINEST_MM = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelMap:
    """Labels as read from a file.

    Attributes:
        labels: On model axes (z, y, x), in any memory order.
        affine: 4x4, from the (z, y, x) index to RAS millimetres.
        path: The file.
    """

    labels: Labels
    affine: Affine
    path: Path

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along z, y and x."""
        return spacing_mm_from_affine(self.affine)


def read_labels(path: Path, highest: int) -> LabelMap:
    """The label map in a NIfTI file, however its axes are arranged.

    Labels stored as real numbers are taken if each is whole; none is rounded.

    Raises:
        ScanError: The file cannot be read, or holds other values than 0 to the highest label.
    """
    volume = read_scan(path).volume
    if not _are_labels(volume.data, highest):
        raise ScanError(
            f"{path}: found {_strangers(volume.data, highest)} among its voxels; expected the "
            f"labels 0 to {highest} alone; give a label map of this protocol, not a scan or scores"
        )
    return LabelMap(labels=volume.data.astype(np.uint8), affine=volume.affine, path=path)


def check_spacing(truth: LabelMap) -> None:
    """Refuses voxels that are too small for a CT, so that a wrong unit cannot pass as a score.

    Raises:
        ScanError: The voxels are finer than 0.1 mm along an axis.
    """
    if min(truth.spacing_mm) < _FINEST_MM:
        shown = " x ".join(f"{step:g}" for step in truth.spacing_mm)
        raise ScanError(
            f"{truth.path}: found voxels of {shown} mm (z, y, x); expected at least {_FINEST_MM} "
            "mm along each axis, because tolerances are in mm; correct the header's unit"
        )


def check_same_grid(truth: LabelMap, prediction: LabelMap) -> None:
    """Refuses a prediction that does not lie voxel by voxel on the truth.

    Raises:
        ScanError: The shapes on model axes differ, or the same voxels lie at different places.
    """
    if truth.labels.shape != prediction.labels.shape:
        raise ScanError(
            f"{prediction.path}: found {_shown(prediction.labels)} voxels (z, y, x); expected "
            f"{_shown(truth.labels)} as in {truth.path}; bring the prediction to the scan's grid"
        )
    apart_mm = farthest_mm(truth.affine, prediction.affine, truth.labels.shape)
    allowed_mm = GRID_TOLERANCE * min(truth.spacing_mm)
    if apart_mm > allowed_mm:
        raise ScanError(
            f"{prediction.path}: found an affine that puts a voxel {apart_mm:.3g} mm from where "
            f"{truth.path} has it; expected at most {allowed_mm:.3g} mm; write the prediction "
            "with the affine of the scan"
        )


def farthest_mm(first: Affine, second: Affine, shape: tuple[int, ...]) -> float:
    """The farthest that two affines put a voxel apart; it is one of the eight outermost."""
    ends = itertools.product(*((0, size - 1) for size in shape))
    corners = np.asarray([(*corner, 1) for corner in ends], np.float64)
    return float(np.linalg.norm(corners @ (first - second)[:3].T, axis=1).max())


def _are_labels(data: Voxels, highest: int) -> bool:
    if data.min() < 0 or data.max() > highest:
        return False
    return data.dtype.kind == "i" or all(bool((part == np.rint(part)).all()) for part in data)


def _strangers(data: Voxels, highest: int) -> str:
    """The values that are no labels, a few of them."""
    strange = np.unique(data[(data < 0) | (data > highest) | (data != np.rint(data))])
    shown = ", ".join(f"{value:g}" for value in strange[:_SHOWN].tolist())
    more = f" and {strange.size - _SHOWN} more values" if strange.size > _SHOWN else ""
    return shown + more


def _shown(labels: Labels) -> str:
    return " x ".join(map(str, labels.shape))
