"""How well a mask does that never looks at the scan: the score below which nothing was learnt.

The mask is fixed in coordinates that run from 0 to 1 over each scan. Candidates are the places
that lie in kidney or tumour in at least some share of the teaching, or of the validating, cases;
the best of them by its mean Dice over the validating cases counts. Choosing on these cases flatters
the fixed mask, never the net that is compared with it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import box_of
from kits_runtime.resample import nearest_index

GRID = (64, 96, 96)
SHARES = tuple(step / 40 for step in range(1, 40))

Mask = NDArray[np.bool_]


def on_common_grid(mask: Mask) -> Mask:
    """A scan's mask at the middles of the voxels of a grid that all scans share."""
    rows = nearest_index(GRID, _shape(mask), box_of(GRID))
    return mask[np.ix_(*(row.ravel() for row in rows))]


def best_fixed_mask(teaching: Sequence[Mask], validating: Sequence[Mask]) -> float:
    """The highest mean Dice over the validating masks that one fixed mask reaches.

    All masks are on the common grid.
    """
    truths = np.stack(list(validating))
    best = 0.0
    for cases in (teaching, validating):
        if not len(cases):
            continue
        share = np.mean(np.stack(list(cases)), axis=0, dtype=np.float32)
        masks = (np.asarray(share >= np.float32(level)) for level in SHARES)
        best = max(best, *(_mean_dice(mask, truths) for mask in masks))
    return best


def _mean_dice(mask: Mask, truths: Mask) -> float:
    overlap = (truths & mask).sum(axis=(1, 2, 3))
    total = truths.sum(axis=(1, 2, 3)) + mask.sum()
    return float(np.mean(np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)))


def _shape(mask: Mask) -> tuple[int, int, int]:
    z, y, x = mask.shape
    return z, y, x
