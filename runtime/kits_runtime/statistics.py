"""What a mask says in numbers: size, side, extent and brightness of each class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.components import NEIGHBOURS_26, Components, Index, components_of
from kits_runtime.grid import Box, bounding_box, box_of
from kits_runtime.volume import Volume

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_DIRECTIONS = 1000
_DIRECTIONS_AT_ONCE = 20  # of a large kidney, some 20 000 ends of rows at once, make 3 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassStatistics:
    """One class of a mask.

    ``right_ml`` and ``left_ml`` divide the volume at the scan's middle, in the patient's frame.
    ``objects`` counts connected components and ``largest_diameter_mm`` is the longest distance
    between two voxel centres of the largest one. ``touches_border`` says that the class reaches the
    scan's first or last voxel along some axis, so that part of it may lie outside. Without a voxel
    the diameter and the mean are None.
    """

    volume_ml: float
    right_ml: float
    left_ml: float
    objects: int
    largest_diameter_mm: float | None
    mean_hu: float | None
    touches_border: bool


def class_statistics(
    volume: Volume, labels: Labels, value: int, *, reach: Box | None = None
) -> ClassStatistics:
    """The statistics of the voxels that carry a label; arrays are on (z, y, x).

    With a ``reach`` nothing outside this box is looked at: all of it must be background.
    """
    reach = reach or box_of(volume.shape)
    mask = labels[reach.slices] == value
    part = bounding_box(mask)
    if part is None:
        return ClassStatistics(
            volume_ml=0.0,
            right_ml=0.0,
            left_ml=0.0,
            objects=0,
            largest_diameter_mm=None,
            mean_hu=None,
            touches_border=False,
        )
    # In C order what follows takes half the time, whichever way the scan was stored.
    inside, box = np.ascontiguousarray(mask[part.slices]), part.moved_by(reach.start)
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    middle = max(0, volume.shape[2] // 2 - box.start[2])
    right = int(inside[:, :, :middle].sum())
    whole = int(inside.sum())
    components = components_of(inside, NEIGHBOURS_26)
    ends = ends_of_rows(components, int(components.sizes.argmax()))
    return ClassStatistics(
        volume_ml=whole * voxel_ml,
        right_ml=right * voxel_ml,
        left_ml=(whole - right) * voxel_ml,
        objects=components.count,
        largest_diameter_mm=longest_distance_mm(ends, volume.spacing_mm),
        mean_hu=float(volume.data[box.slices][inside].mean(dtype=np.float64)),
        touches_border=_touches(box, volume.shape),
    )


def ends_of_rows(components: Components, number: int) -> Index:
    """The (z, y, x) of the first, then of the last voxel of a component in every row along x."""
    own = np.flatnonzero(components.owner == number)
    z, y = components.z[own], components.y[own]
    new_row = np.flatnonzero((np.diff(z, prepend=-1) != 0) | (np.diff(y, prepend=-1) != 0))
    row_end = np.append(new_row[1:], len(own)) - 1
    first, last = components.start[own[new_row]], components.stop[own[row_end]] - 1
    z, y = z[new_row], y[new_row]
    return np.concatenate([np.stack([z, y, x], axis=1) for x in (first, last)])


def longest_distance_mm(ends: Index, spacing_mm: tuple[float, float, float]) -> float:
    """The longest distance between two voxel centres of an object.

    The voxels that lie outermost in a thousand directions, spread evenly over the half sphere, are
    compared pair by pair; for a body of any size the result falls short by less than 0.2 %.

    Args:
        ends: The (z, y, x) of the voxels that may be outermost: the ends of its rows.
        spacing_mm: Distance of neighbouring voxels along z, y and x.
    """
    ends_mm = ends * np.asarray(spacing_mm)
    rows = np.ascontiguousarray(ends_mm.T, np.float32)
    found = []
    for directions in np.split(_directions(), _DIRECTIONS // _DIRECTIONS_AT_ONCE):
        along = directions @ rows
        found += [along.argmax(axis=1), along.argmin(axis=1)]
    outer = ends_mm[np.unique(np.concatenate(found))]
    squares = (outer**2).sum(axis=1)
    apart = squares[:, None] + squares[None] - 2 * outer @ outer.T
    return float(np.sqrt(max(0.0, apart.max())))


def _directions() -> NDArray[np.float32]:
    """Directions on a half sphere, spread by the golden angle."""
    index = np.arange(_DIRECTIONS) + 0.5
    height = index / _DIRECTIONS
    radius = np.sqrt(1 - height**2)
    angle = np.pi * (1 + 5**0.5) * index
    spread = [height, radius * np.sin(angle), radius * np.cos(angle)]
    return np.stack(spread, axis=1).astype(np.float32)


def _touches(box: Box, shape: tuple[int, int, int]) -> bool:
    starts = any(start == 0 for start in box.start)
    return starts or any(stop == size for stop, size in zip(box.stop, shape, strict=True))
