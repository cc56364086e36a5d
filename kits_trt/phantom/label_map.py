"""A real label map, cropped to what is labelled and placed in patient coordinates."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, find_objects, label

from kits_trt.phantom.sampled import Sampled, distance_from_mask
from kits_trt.phantom.shapes import Bounds, Point

MARGIN_MM = 14.0
"""How far around a mask its distance is known."""
_SMALLEST_KIDNEY = 0.25
"""A second piece under this share of the first is a fragment, not the other kidney."""
_HORSESHOE_MM = (140.0, 40.0)
"""A horseshoe kidney is at least so wide, and at most so far from the middle of the field."""

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Box = tuple[slice, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelMap:
    """Labels of the labelled box; its first voxel lies at ``first_mm`` in the patient.

    ``reach_mm`` bounds the patient's warp, which the map's shapes do not follow.
    """

    labels: Labels
    spacing_mm: Point
    first_mm: Point
    reach_mm: float

    def millimetres(self, voxel: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patient coordinates of voxel coordinates."""
        placed: NDArray[np.float64] = np.asarray(self.first_mm) + voxel * np.asarray(
            self.spacing_mm
        )
        return placed

    def bounds(self) -> Bounds:
        """First and last labelled point."""
        last = self.millimetres(np.array(self.labels.shape) - 1.0)
        return self.first_mm, (float(last[0]), float(last[1]), float(last[2]))

    def sampled(self, mask: Mask, box: Box) -> Sampled:
        """The shape of a mask, known in a box grown by the margin."""
        margins = [int(np.ceil(MARGIN_MM / step)) for step in self.spacing_mm]
        inner = [
            slice(max(part.start - margin, 0), part.stop + margin)
            for part, margin in zip(box, margins, strict=True)
        ]
        crop = mask[tuple(inner)]
        before = [m - (p.start - i.start) for m, p, i in zip(margins, box, inner, strict=True)]
        whole = [p.stop - p.start + 2 * m for p, m in zip(box, margins, strict=True)]
        after = [w - b - n for w, b, n in zip(whole, before, crop.shape, strict=True)]
        crop = np.pad(crop, list(zip(before, after, strict=True)))
        starts = np.array([p.start - m for p, m in zip(box, margins, strict=True)], float)
        z, y, x = self.millimetres(starts).tolist()
        return Sampled(
            distance=distance_from_mask(crop, self.spacing_mm),
            first_mm=(z, y, x),
            spacing_mm=self.spacing_mm,
            reach_mm=self.reach_mm,
        )


def first_voxel_mm(labels: Labels, spacing_mm: Point, kidney_back_mm: float) -> Point:
    """Where the map's first voxel lies if the point between the kidneys lies where it should."""
    z, y, x = (-m * step for m, step in zip(_middle(labels, spacing_mm), spacing_mm, strict=True))
    return z, y + kidney_back_mm, x


def placed_map(labels: Labels, spacing_mm: Point, first_mm: Point, *, reach_mm: float) -> LabelMap:
    """The labelled box of a map whose first voxel lies at the given point."""
    box = mask_box(labels > 0)
    z, y, x = (
        first + part.start * step
        for first, part, step in zip(first_mm, box, spacing_mm, strict=True)
    )
    return LabelMap(
        labels=labels[box], spacing_mm=spacing_mm, first_mm=(z, y, x), reach_mm=reach_mm
    )


def mask_box(mask: Mask) -> Box:
    """The smallest box around a mask that is not empty."""
    box: Box = find_objects(mask.astype(np.uint8))[0]
    return box


def sinus_centre(mask: Mask, spacing_mm: Point) -> NDArray[np.float64] | None:
    """Middle (voxels) of what closing fills: maps leave the sinus' fat out; None if nothing."""
    coarse = tuple(max(1, round(3.0 / step)) for step in spacing_mm)
    small = np.pad(mask[:: coarse[0], :: coarse[1], :: coarse[2]], 6)
    filled = binary_closing(small, iterations=5) & ~small
    if filled.sum() < 20:
        return None
    found: NDArray[np.float64] = (np.argwhere(filled).mean(axis=0) - 6) * np.array(coarse)
    return found


def _middle(labels: Labels, spacing_mm: Point) -> Point:
    """Voxel coordinates (z, y, x) of the point between the kidneys.

    One piece says little about the midline; then the middle of the field has to do, unless the
    piece is a horseshoe: wider than any kidney, and in the middle already.
    """
    pieces, count = label(labels > 0)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    order = np.argsort(sizes)[::-1]
    found = find_objects(pieces)
    centres = np.array(
        [[(part.start + part.stop - 1) / 2 for part in found[place]] for place in order[:2]]
    )
    z, y, x = centres[0]
    if count > 1 and sizes[order[1]] > _SMALLEST_KIDNEY * sizes[order[0]]:
        z, y, x = centres.mean(axis=0)
        return float(z), float(y), float(x)
    across = found[order[0]][2]
    field_middle = (labels.shape[2] - 1) / 2
    wide = (across.stop - across.start) * spacing_mm[2] > _HORSESHOE_MM[0]
    if not wide or abs(x - field_middle) * spacing_mm[2] > _HORSESHOE_MM[1]:
        x = field_middle
    return float(z), float(y), float(x)
