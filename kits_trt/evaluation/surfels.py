"""The area of the surface that runs through eight neighbouring voxels.

Eight voxel centres are the corners of a cube. Each corner is inside or outside of a mask, so there
are 256 codes, and each has a piece of surface in the cube, made as marching cubes make it: through
the midpoints of the edges that lead from inside to outside, joined face by face into polygons. Two
rules settle what this leaves open.

- A face whose diagonals disagree can be joined in two ways. The corners of which the cube has fewer
  are cut off one by one; with four inside and four outside those inside are.
- A polygon that is not flat has no area of its own. It is cut into triangles as a fan from the one
  of its points that gives the largest area where the voxels are cubes.

Both depend on the shape alone, so turned and mirrored codes have equal areas. These are the areas
by which the surface Dice of the KiTS challenges (Nikolov et al., arXiv 1809.04430) weighs.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

CODES = 256
Point = tuple[int, int, int]

# Corners are (z, y, x); points of the surface are sums of two corners, so twice their position.
_CORNERS: tuple[Point, ...] = tuple(itertools.product((0, 1), repeat=3))  # type: ignore[arg-type]


def code_bit(corner: Point) -> int:
    """The value that a corner inside of the mask adds to the code."""
    z, y, x = corner
    return 1 << (4 * z + 2 * y + x)


def surfel_areas_mm2(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """The area of each of the 256 codes; 0 for all outside (0) and all inside (255)."""
    faces_mm2 = np.asarray([prod(spacing_mm) / step for step in spacing_mm])
    areas: NDArray[np.float64] = np.linalg.norm(_vector_areas() * faces_mm2, axis=2).sum(axis=1)
    return areas


@cache
def _vector_areas() -> NDArray[np.float64]:
    """The triangles of each code on cubes of edge 1, (256, triangles, 3), filled up with zeros.

    A triangle is the vector along its normal that is as long as its area. Along an axis it is the
    area of the triangle's shadow, so it scales with the face of the voxel across that axis.
    """
    pieces = [
        [vector for loop in _loops(code) for vector in _widest_fan(loop)] for code in range(CODES)
    ]
    table = np.zeros((CODES, max(map(len, pieces)), 3))
    for code, piece in enumerate(pieces):
        if piece:
            table[code, : len(piece)] = piece
    return table


def _loops(code: int) -> list[list[Point]]:
    """The polygons of a code, each as its points in order."""
    inside = {corner: bool(code & code_bit(corner)) for corner in _CORNERS}
    cut_off = sum(inside.values()) <= len(_CORNERS) // 2
    joined: dict[Point, list[Point]] = {}
    for ring in _faces():
        for one, other in _segments(ring, inside, cut_off=cut_off):
            joined.setdefault(one, []).append(other)
            joined.setdefault(other, []).append(one)
    loops = []
    while joined:
        loop = [min(joined)]
        while True:
            ahead = [point for point in joined.pop(loop[-1]) if point in joined]
            if not ahead:
                break
            loop.append(ahead[0])
        loops.append(loop)
    return loops


def _faces() -> list[list[Point]]:
    """The six faces of the cube, each as its corners in order."""
    faces = []
    for axis, side in itertools.product(range(3), (0, 1)):
        ring = [(0, 0), (0, 1), (1, 1), (1, 0)]
        faces.append([_point((*two[:axis], side, *two[axis:])) for two in ring])
    return faces


def _segments(
    ring: Sequence[Point], inside: dict[Point, bool], *, cut_off: bool
) -> list[tuple[Point, Point]]:
    """The lines in which the surface meets a face; ``cut_off`` is the kind of corner cut off."""
    edges = list(zip(ring, (*ring[1:], ring[0]), strict=True))
    cuts = [_point([a + b for a, b in zip(*edge, strict=True)]) for edge in edges]
    is_cut = [inside[one] != inside[other] for one, other in edges]
    if all(is_cut):
        # Edge i - 1 leads to corner i and edge i away from it.
        return [
            (cuts[i - 1], cuts[i]) for i, corner in enumerate(ring) if inside[corner] == cut_off
        ]
    ends = [cut for cut, counts in zip(cuts, is_cut, strict=True) if counts]
    return [(ends[0], ends[1])] if ends else []


def _widest_fan(loop: Sequence[Point]) -> NDArray[np.float64]:
    """The triangles of a polygon as vector areas, (triangles, 3)."""
    points = np.asarray(loop) / 2
    fans = [_fan(np.roll(points, -apex, axis=0)) for apex in range(len(loop))]
    return max(fans, key=lambda fan: round(float(np.linalg.norm(fan, axis=1).sum()), 9))


def _fan(points: NDArray[np.float64]) -> NDArray[np.float64]:
    arms = points[1:] - points[0]
    return np.cross(arms[:-1], arms[1:]) / 2


def _point(values: Sequence[int]) -> Point:
    z, y, x = values
    return z, y, x
