import itertools
import warnings

import numpy as np
import pytest

from kits_trt.evaluation.surface import neighbour_codes
from kits_trt.evaluation.surfels import code_bit, surfel_areas_mm2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's imports warn about their own dependencies
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

CORNERS = list(itertools.product((0, 1), repeat=3))
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.7, 0.8), (0.5, 2.0, 5.0)]
every_spacing = pytest.mark.parametrize("spacing_mm", SPACINGS)


def code_of(*inside: tuple[int, int, int]) -> int:
    return sum(code_bit(corner) for corner in inside)


def test_nothing_and_everything_have_no_surface() -> None:
    areas = surfel_areas_mm2((3, 0.7, 0.8))
    assert (areas[0], areas[255]) == (0, 0)
    assert (areas[1:255] > 0).all()


@every_spacing
def test_one_corner_is_cut_off_by_a_triangle(spacing_mm: tuple[float, ...]) -> None:
    z, y, x = spacing_mm
    triangle = np.sqrt((y * x) ** 2 + (z * x) ** 2 + (z * y) ** 2) / 8
    areas = surfel_areas_mm2(spacing_mm)
    for corner in CORNERS:
        assert areas[code_of(corner)] == pytest.approx(triangle)
        assert areas[255 - code_of(corner)] == pytest.approx(triangle)


@every_spacing
def test_a_flat_wall_has_the_area_of_a_voxels_face(spacing_mm: tuple[float, ...]) -> None:
    z, y, x = spacing_mm
    areas = surfel_areas_mm2(spacing_mm)
    for axis, face in enumerate((y * x, z * x, z * y)):
        wall = code_of(*(corner for corner in CORNERS if corner[axis]))
        assert areas[wall] == pytest.approx(face)


@every_spacing
def test_an_edge_is_bevelled_by_a_rectangle(spacing_mm: tuple[float, ...]) -> None:
    z, y, x = spacing_mm
    areas = surfel_areas_mm2(spacing_mm)
    assert areas[code_of((0, 0, 0), (1, 0, 0))] == pytest.approx(z * np.hypot(y, x) / 2)
    assert areas[code_of((0, 1, 0), (0, 1, 1))] == pytest.approx(x * np.hypot(z, y) / 2)


def test_corners_that_touch_nowhere_are_cut_off_apart() -> None:
    areas = surfel_areas_mm2((1, 1, 1))
    triangle = np.sqrt(3) / 8
    assert areas[code_of((0, 0, 0), (1, 1, 1))] == pytest.approx(2 * triangle)
    assert areas[code_of((0, 0, 0), (0, 1, 1))] == pytest.approx(2 * triangle)
    assert areas[255 - code_of((0, 0, 0), (0, 1, 1))] == pytest.approx(2 * triangle)
    even = [corner for corner in CORNERS if sum(corner) % 2 == 0]
    assert areas[code_of(*even)] == pytest.approx(4 * triangle)


def test_three_corners_around_one_leave_a_hexagon_of_known_area() -> None:
    # The corner and its three neighbours are inside: the midpoints around form a flat hexagon
    # with sides of sqrt(1/2).
    inside = [corner for corner in CORNERS if sum(corner) <= 1]
    assert surfel_areas_mm2((1, 1, 1))[code_of(*inside)] == pytest.approx(3 * np.sqrt(3) / 4)


def test_areas_do_not_depend_on_how_a_code_is_turned_or_mirrored() -> None:
    spacing_mm = (3.0, 0.7, 0.8)
    areas = surfel_areas_mm2(spacing_mm)
    for order in itertools.permutations(range(3)):
        turned_areas = surfel_areas_mm2([spacing_mm[axis] for axis in order])
        for flips in itertools.product((False, True), repeat=3):
            for code in range(256):
                inside = [corner for corner in CORNERS if code & code_bit(corner)]
                moved = [tuple(c[axis] ^ flips[axis] for axis in order) for c in inside]
                assert turned_areas[code_of(*moved)] == pytest.approx(areas[code])  # type: ignore[arg-type]


@every_spacing
def test_all_256_areas_are_those_of_the_surface_distance_method(
    spacing_mm: tuple[float, ...],
) -> None:
    table, kernel = create_table_neighbour_code_to_surface_area(spacing_mm)
    weights = np.asarray(kernel).reshape(2, 2, 2).astype(int)
    theirs = [
        float(table[sum(weights[corner] for corner in CORNERS if code & code_bit(corner))])
        for code in range(256)
    ]
    assert surfel_areas_mm2(spacing_mm) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("radius", [8, 15])
@every_spacing
def test_a_sphere_has_at_most_an_eighth_more_than_its_true_area(
    radius: int, spacing_mm: tuple[float, ...]
) -> None:
    # Binary voxels make stairs, so the surface is somewhat larger at any resolution.
    finest = min(spacing_mm)
    axes = [np.arange(-2 * radius, 2 * radius + 1) * finest for _ in spacing_mm]
    z, y, x = np.ogrid[tuple(slice(axis[0], axis[-1] + 1e-9, finest) for axis in axes)]
    ball = z**2 + y**2 + x**2 <= (radius * finest) ** 2
    area = surfel_areas_mm2((finest, finest, finest))[neighbour_codes(ball)].sum()
    assert 1.0 < area / (4 * np.pi * (radius * finest) ** 2) < 1.125
