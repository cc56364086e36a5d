"""What one stage of a system sees of a case: pieces, the stage's boxes on the stage's own grid.

They come from the runtime's own look and steps, with the truth in place of what earlier stages
would have found. A piece holds HU as they are after the resample step, and the steps that are left
for each sample, in which a statistic of the whole piece has become a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PieceMask:
    """The foreground of an earlier stage on a piece, as steps read it.

    ``share`` is how much of each voxel lies in it (float16), ``inside`` whether its centre does.
    """

    share: NDArray[np.float16]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """One box of a stage, all arrays on (z, y, x).

    Attributes:
        hu: int16; where ``masked`` names a mask, the mean of what lies inside it in each voxel that
            it touches.
        labels: The case's labels by nearest neighbour: 1 kidney, 2 tumour, 3 cyst where kept.
        masks: By the name of the stage whose foreground they are.
        masked: The mask whose share ``hu`` is to be multiplied by before ``steps``.
        kept: Which slices the stage's windows are asked about.
        places: The flat positions of all labelled voxels, those of label 1 first, then 2, then 3.
        counts: How many positions each label has.
        spacing_mm: Of the stage's grid.
        steps: What is left to do with each sample.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    masks: Mapping[str, PieceMask]
    masked: str | None
    kept: NDArray[np.bool_]
    places: NDArray[np.int64]
    counts: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    steps: tuple[Step, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The voxels along z, y and x."""
        z, y, x = self.hu.shape
        return z, y, x


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CasePieces:
    """The pieces of one case; none where the stage has nowhere to look."""

    name: str
    pieces: tuple[Piece, ...]
