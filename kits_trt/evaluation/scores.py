"""The scores of one case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import bounding_box
from kits_runtime.volume import Scalar
from kits_trt.evaluation.protocols import Protocol, Region
from kits_trt.evaluation.surface import Mask, surface_dice

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScores:
    """How well one prediction meets its truth.

    Attributes:
        case: Its name.
        scores: By the protocol's names, each from 0 to 1.
        empty_truth: The regions without a voxel in the truth.
        empty_prediction: The regions without a voxel in the prediction.
    """

    case: str
    scores: Mapping[str, float]
    empty_truth: tuple[str, ...]
    empty_prediction: tuple[str, ...]

    @property
    def mean(self) -> float:
        """The mean of the scores, by which cases are ordered from worst to best."""
        return math.fsum(self.scores.values()) / len(self.scores)


def score_case(
    case: str,
    truth: Labels,
    *,
    prediction: Labels,
    spacing_mm: Sequence[float],
    protocol: Protocol,
) -> CaseScores:
    """The scores of a prediction; both label maps are on the same (z, y, x) grid."""
    truth, prediction = _cropped(truth, prediction)
    dice: dict[str, float] = {}
    surface: dict[str, float] = {}
    empty: tuple[list[str], list[str]] = ([], [])
    for region in protocol.regions:
        masks = _masks(truth, prediction, region)
        dice[f"Dice_{region.name}"] = dice_of(*masks)
        if region.tolerance_mm is not None:
            surface[f"SD_{region.name}"] = surface_dice(
                *masks, spacing_mm=spacing_mm, tolerance_mm=region.tolerance_mm
            )
        for names, mask in zip(empty, masks, strict=True):
            if not mask.any():
                names.append(region.name)
    composite = {"Composite": sum(dice.values()) / len(dice)} if protocol.has_composite else {}
    return CaseScores(
        case=case,
        scores={**dice, **surface, **composite},
        empty_truth=tuple(empty[0]),
        empty_prediction=tuple(empty[1]),
    )


def dice_of(truth: Mask, prediction: Mask) -> float:
    """Twice the common voxels over the voxels of both; 1 if both masks are empty."""
    voxels = int(np.count_nonzero(truth)) + int(np.count_nonzero(prediction))
    if not voxels:
        return 1.0
    return 2 * int(np.count_nonzero(truth & prediction)) / voxels


def _masks(truth: Labels, prediction: Labels, region: Region) -> tuple[Mask, Mask]:
    """The region in both label maps, cut to the box around it."""
    belongs = np.zeros(256, np.bool_)
    belongs[list(region.labels)] = True
    return _cropped(belongs[truth], belongs[prediction])


def _cropped(
    one: NDArray[Scalar], other: NDArray[Scalar]
) -> tuple[NDArray[Scalar], NDArray[Scalar]]:
    """Both arrays on the smallest box that holds what is not zero in either."""
    box = bounding_box(np.asarray((one != 0) | (other != 0)))
    if box is None:
        return one[:0, :0, :0], other[:0, :0, :0]
    return np.ascontiguousarray(one[box.slices]), np.ascontiguousarray(other[box.slices])
