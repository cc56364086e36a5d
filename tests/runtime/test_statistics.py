import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist
from stages import unhurried, volume

from kits_runtime.components import NEIGHBOURS_26, components_of
from kits_runtime.grid import Box
from kits_runtime.statistics import class_statistics, ends_of_rows, longest_distance_mm

SPACING_MM = (3.0, 2.0, 1.0)


def labelled(*boxes: tuple[tuple[slice, slice, slice], int]) -> np.ndarray:
    labels = np.zeros((20, 30, 40), np.uint8)
    for where, value in boxes:
        labels[where] = value
    return labels


BOX = (slice(5, 10), slice(10, 16), slice(4, 12))


def test_a_box_has_the_size_and_the_diagonal_that_a_ruler_gives() -> None:
    labels = labelled((BOX, 1))
    facts = class_statistics(volume(np.zeros(labels.shape, np.int16), SPACING_MM), labels, 1)
    assert facts.volume_ml == pytest.approx(5 * 6 * 8 * 6 / 1000)
    # Between the centres of the outermost voxels: 4 x 3 mm, 5 x 2 mm, 7 x 1 mm.
    assert facts.largest_diameter_mm == pytest.approx(math.sqrt(12**2 + 10**2 + 7**2))
    assert facts.objects == 1
    assert not facts.touches_border


def test_an_ellipsoid_is_as_long_as_its_longest_axis() -> None:
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    mask = (z * 3 / 30) ** 2 + (y * 2 / 40) ** 2 + (x / 15) ** 2 <= 1
    ends = ends_of_rows(components_of(mask, NEIGHBOURS_26), 0)
    assert longest_distance_mm(ends, SPACING_MM) == pytest.approx(80, rel=0.002)


@unhurried
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0.02, 0.9),
    st.tuples(*[st.floats(0.4, 5.0)] * 3),
)
def test_the_longest_distance_is_that_of_all_pairs(
    seed: int, share: float, spacing_mm: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 7, 3)) < share
    mask.flat[rng.integers(mask.size)] = True
    points = np.argwhere(mask) * spacing_mm
    expected = pdist(points).max() if len(points) > 1 else 0
    found = longest_distance_mm(np.argwhere(mask), spacing_mm)
    assert found <= expected + 1e-6
    assert found >= 0.998 * expected - 1e-6


@unhurried
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_the_ends_of_rows_are_the_first_and_last_voxels_of_one_object(
    seed: int, share: float
) -> None:
    mask = np.random.default_rng(seed).random((4, 5, 9)) < share
    mask[2, 2, 4] = True
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    components = components_of(mask, NEIGHBOURS_26)
    for number in range(count):
        rows = [
            (z, y, np.flatnonzero(pieces[z, y] == number + 1))
            for z, y in np.argwhere((pieces == number + 1).any(axis=2))
        ]
        expected = [(z, y, x[0]) for z, y, x in rows] + [(z, y, x[-1]) for z, y, x in rows]
        np.testing.assert_array_equal(ends_of_rows(components, number), expected)


def test_sides_are_the_patients_and_divide_the_scan_in_its_middle() -> None:
    right, left = (slice(5, 7), slice(5, 7), slice(0, 3)), (slice(5, 7), slice(5, 7), slice(35, 40))
    astride = (slice(12, 13), slice(12, 13), slice(18, 23))
    labels = labelled((right, 1), (left, 1), (astride, 1))
    facts = class_statistics(volume(np.zeros(labels.shape, np.int16), SPACING_MM), labels, 1)
    assert facts.right_ml == pytest.approx((12 + 2) * 6 / 1000)
    assert facts.left_ml == pytest.approx((20 + 3) * 6 / 1000)
    assert facts.objects == 3


def test_the_diameter_is_that_of_the_object_with_the_most_voxels() -> None:
    stick = (slice(1, 2), slice(1, 2), slice(0, 39))
    labels = labelled((BOX, 2), (stick, 2))
    facts = class_statistics(volume(np.zeros(labels.shape, np.int16), SPACING_MM), labels, 2)
    assert facts.objects == 2
    assert facts.largest_diameter_mm == pytest.approx(math.sqrt(12**2 + 10**2 + 7**2))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_one_voxel_at_any_face_touches_the_border(axis: int, end: int) -> None:
    labels = labelled()
    where = [10, 10, 10]
    where[axis] = end
    labels[tuple(where)] = 1
    scan = volume(np.zeros(labels.shape, np.int16), SPACING_MM)
    assert class_statistics(scan, labels, 1).touches_border
    assert not class_statistics(
        scan, np.roll(labels, 1 if end == 0 else -1, axis), 1
    ).touches_border


def test_the_mean_is_that_of_the_labelled_voxels_alone() -> None:
    labels = labelled((BOX, 1))
    data = np.where(labels == 1, 30, -1000).astype(np.int16)
    data[5, 10, 4] = 30 + 5 * 6 * 8
    assert class_statistics(volume(data, SPACING_MM), labels, 1).mean_hu == pytest.approx(31)


def test_without_a_voxel_there_is_nothing_to_measure() -> None:
    labels = labelled((BOX, 1))
    facts = class_statistics(volume(np.zeros(labels.shape, np.int16), SPACING_MM), labels, 2)
    assert (facts.volume_ml, facts.right_ml, facts.left_ml, facts.objects) == (0, 0, 0, 0)
    assert (facts.largest_diameter_mm, facts.mean_hu) == (None, None)
    assert not facts.touches_border


def test_a_reach_around_the_labels_changes_nothing() -> None:
    labels = labelled((BOX, 1), ((slice(12, 13), slice(20, 25), slice(30, 36)), 1))
    data = np.random.default_rng(5).integers(-100, 300, labels.shape).astype(np.int16)
    scan = volume(data, SPACING_MM)
    reach = Box((3, 9, 4), (14, 27, 40))
    assert class_statistics(scan, labels, 1, reach=reach) == class_statistics(scan, labels, 1)
    assert class_statistics(scan, labels, 2, reach=Box((0, 0, 0), (0, 0, 0))).volume_ml == 0
