"""What one stage of a system sees of a case: pieces, the stage's boxes on the stage's own grid.

A piece holds HU as they are after the resample step, and the steps that are left for each sample,
in which a statistic of the whole piece has become a number.

A mask by which the scan is multiplied right before it is resampled is kept apart, so that a sample
may have a worse one: ``hu`` is then the mean of what the mask lets through of each voxel, and
times ``share``, the mask resampled alike, it is what the runtime reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Step
from kits_trt.systems.augmentation import Group

Labels = NDArray[np.uint8]

KIDNEY, TUMOUR, CYST = 1, 2, 3
GROUPS: tuple[Group, ...] = ("background", "kidney", "tumour")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PieceMask:
    """The foreground of an earlier stage on a piece, as steps read it.

    ``share`` is how much of each voxel lies in it (float16), ``inside`` whether its centre does.
    """

    share: NDArray[np.float16]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One box of a stage, on (z, y, x).

    Attributes:
        shape: The voxels of the box.
        corner: Where in its plane (y, x) the arrays begin. They hold all of the box, but of one
            that is masked only what lies near the mask; elsewhere is air and background.
        hu: int16; see above where ``masked`` names a mask.
        labels: The case's labels by nearest neighbour: 1 kidney, 2 tumour, 3 cyst where kept.
        masks: By the name of the stage whose foreground they are.
        masked: The mask whose share ``hu`` is to be multiplied by before ``steps``.
        kept: Which slices the stage's windows are asked about.
        groups: What each slice shows, as a place in ``GROUPS``.
        places: The flat positions in ``labels`` of all that is labelled, 1 first, then 2, then 3.
        counts: How many positions each label has.
        spacing_mm: Of the stage's grid.
        steps: What is left to do with each sample.
    """

    shape: tuple[int, int, int]
    corner: tuple[int, int]
    hu: NDArray[np.int16]
    labels: Labels
    masks: Mapping[str, PieceMask]
    masked: str | None
    kept: NDArray[np.bool_]
    groups: NDArray[np.uint8]
    places: NDArray[np.int64]
    counts: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CasePieces:
    """The pieces of one case; none where the stage has nowhere to look."""

    name: str
    pieces: Sequence[Piece]


def group_of(labels: Labels) -> Group:
    """What labels show: tumour, else kidney (or cyst), else background."""
    if (labels == TUMOUR).any():
        return "tumour"
    return "kidney" if labels.any() else "background"


def groups_of_slices(labels: Labels) -> NDArray[np.uint8]:
    """For each slice of labels its place in ``GROUPS``."""
    return np.array([GROUPS.index(group_of(plane)) for plane in labels], np.uint8)


def labelled_places(labels: Labels) -> tuple[NDArray[np.int64], tuple[int, int, int]]:
    """The flat positions of labels 1, 2 and 3, one after the other, and how many each has."""
    labelled = np.flatnonzero(labels)
    values = labels.ravel()[labelled]
    found = [labelled[values == label] for label in (KIDNEY, TUMOUR, CYST)]
    kidney, tumour, cyst = (len(places) for places in found)
    return np.concatenate(found).astype(np.int64), (kidney, tumour, cyst)
