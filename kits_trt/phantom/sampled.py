"""Shapes that come as voxels: signed distances of a label map, interpolated."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from kits_trt.phantom.fields import Floats
from kits_trt.phantom.shapes import Block, Bounds, Point, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """A distance known on a grid. It lies where it lies: the patient's warp does not move it.

    ``reach_mm`` bounds the warp, so that the box can be carried back through it unharmed.
    """

    distance: Floats
    first_mm: Point
    spacing_mm: Point
    reach_mm: float

    def bounds(self) -> Bounds:
        """The grid's box, grown by the reach."""
        first = np.asarray(self.first_mm)
        size = (np.asarray(self.distance.shape) - 1) * np.asarray(self.spacing_mm)
        lower, upper = first - self.reach_mm, first + size + self.reach_mm
        return (
            (float(lower[0]), float(lower[1]), float(lower[2])),
            (float(upper[0]), float(upper[1]), float(upper[2])),
        )

    def signed_distance(self, block: Block) -> Floats:
        """Linear interpolation, axis by axis; beyond the grid the nearest value."""
        values = self.distance
        for axis, positions in enumerate(block.axes):
            place = (positions - np.float32(self.first_mm[axis])) / self.spacing_mm[axis]
            place = np.clip(place, 0, values.shape[axis] - 1)
            low = np.minimum(place.astype(np.int64), max(values.shape[axis] - 2, 0))
            high = np.minimum(low + 1, values.shape[axis] - 1)
            share = (
                (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            )
            below = np.take(values, low, axis=axis)
            values = below + share * (np.take(values, high, axis=axis) - below)
        return values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grown:
    """A shape with its surface moved outwards by so many mm; inwards where negative."""

    shape: Shape
    by_mm: float

    def bounds(self) -> Bounds:
        """The shape's box, grown alike; never shrunk."""
        grow = max(self.by_mm, 0.0)
        (a, b, c), (d, e, f) = self.shape.bounds()
        return (a - grow, b - grow, c - grow), (d + grow, e + grow, f + grow)

    def signed_distance(self, block: Block) -> Floats:
        """The shape's distance, less the growth."""
        return self.shape.signed_distance(block) - np.float32(self.by_mm)


def distance_from_mask(mask: NDArray[np.bool_], spacing_mm: Point) -> Floats:
    """Signed distance in mm of a mask with inside and outside, its stairs smoothed."""
    outside = distance_transform_edt(~mask, sampling=spacing_mm)
    inside = distance_transform_edt(mask, sampling=spacing_mm)
    # Both are measured to voxel centres; the surface runs half a voxel before them.
    half = 0.5 * min(spacing_mm)
    signed = np.where(mask, half - inside, outside - half).astype(np.float32)
    smooth: Floats = gaussian_filter(signed, 0.6, truncate=2.0)
    return smooth
