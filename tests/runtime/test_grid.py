from fractions import Fraction
from math import ceil, floor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stages import unhurried

from kits_runtime.grid import (
    Box,
    Grid,
    Taps,
    bounding_box,
    box_of,
    grid_over,
    linear_taps,
    nearest_count,
    nearest_voxels,
)
from kits_runtime.manifest.schema import Resample

lengths = st.integers(1, 600)
small_lengths = st.integers(1, 40)


def line(grid: int, scan: int) -> Grid:
    """A grid whose three axes are alike."""
    return Grid((grid, grid, grid), (scan, scan, scan), (1.0, 1.0, 1.0))


def cube(start: int, stop: int) -> Box:
    return Box((start, start, start), (stop, stop, stop))


def centre_on(target: int, source: int, voxel: int) -> Fraction:
    """Where the centre of a target voxel lies on the source axis, voxel i reaching i to i + 1."""
    return Fraction(2 * voxel + 1, 2) * Fraction(source, target)


def test_boxes_meet_move_and_grow_by_hand() -> None:
    first, second = Box((1, 2, 3), (5, 6, 7)), Box((4, 0, 6), (9, 4, 8))

    assert first.shape == (4, 4, 4)
    assert first.within(second) == Box((4, 2, 6), (5, 4, 7))
    assert first.around(second) == Box((1, 0, 3), (9, 6, 8))
    assert first.moved_by((10, 0, -1)) == Box((11, 2, 2), (15, 6, 6))
    assert first.wider_by(2) == Box((-1, 0, 1), (7, 8, 9))
    assert first.wider_by((2, 0, 1)) == Box((-1, 2, 2), (7, 6, 8))
    assert second.seen_from(first) == Box((3, -2, 3), (8, 2, 5))
    assert second.slices == (slice(4, 9), slice(0, 4), slice(6, 8))


def test_boxes_that_do_not_meet_have_an_empty_part_in_common() -> None:
    part = cube(0, 2).within(cube(5, 9))

    assert part.empty
    assert part.shape == (0, 0, 0)
    assert np.ones((9, 9, 9))[part.slices].size == 0


@unhurried
@given(st.integers(0, 2**30))
def test_the_bounding_box_is_the_smallest_that_holds_the_foreground(seed: int) -> None:
    mask = np.random.default_rng(seed).random((4, 5, 6)) > 0.95

    box = bounding_box(mask)

    places = np.argwhere(mask)
    if not len(places):
        assert box is None
        return
    assert box is not None
    assert box.start == tuple(places.min(axis=0))
    assert box.stop == tuple(places.max(axis=0) + 1)


@pytest.mark.parametrize(
    ("length", "count"),
    [(244.4, 244), (244.5, 244), (244.5001, 244), (244.6, 245), (7.0, 7), (0.2, 0), (-0.4, 0)],
)
def test_halves_go_down_and_so_does_the_rounding_of_a_header(length: float, count: int) -> None:
    assert nearest_count(length) == count


def test_taps_by_hand() -> None:
    down = linear_taps(2, 4, start=0, stop=2, first=0, last=3)
    assert down.lower.tolist() == [0, 2]
    assert down.upper.tolist() == [1, 3]
    assert down.weight.tolist() == [0.5, 0.5]

    up = linear_taps(4, 2, start=0, stop=4, first=0, last=1)
    assert up.lower.tolist() == [0, 0, 0, 1]
    assert up.upper.tolist() == [0, 1, 1, 1]
    assert up.weight.tolist() == [0, 0.25, 0.75, 0]


def test_taps_are_held_inside_the_part_that_may_be_read() -> None:
    taps = linear_taps(4, 8, start=0, stop=4, first=3, last=4)

    assert taps.lower.tolist() == [3, 3, 4, 4]
    assert taps.upper.tolist() == [3, 3, 4, 4]
    assert not taps.weight.any()


@unhurried
@given(target=lengths, source=lengths)
@example(target=7, source=29)
@example(target=11, source=15)
def test_taps_lie_around_the_exact_centre(target: int, source: int) -> None:
    taps = linear_taps(target, source, start=0, stop=target, first=0, last=source - 1)

    for voxel in {0, target // 3, target // 2, target - 1, *range(min(target, 12))}:
        exact = centre_on(target, source, voxel) - Fraction(1, 2)
        exact = min(max(exact, Fraction(0)), Fraction(source - 1))
        assert taps.lower[voxel] == floor(exact)
        assert taps.upper[voxel] == ceil(exact)
        assert taps.weight[voxel] == np.float32(float(exact - floor(exact)))


@unhurried
@given(length=lengths, start=small_lengths, more=small_lengths)
def test_a_part_of_the_taps_is_the_taps_of_a_part(length: int, start: int, more: int) -> None:
    start = min(start, length - 1)
    stop = min(length, start + more)
    whole = linear_taps(length, 97, start=0, stop=length, first=0, last=96)

    part = linear_taps(length, 97, start=start, stop=stop, first=0, last=96)

    for name in ("lower", "upper", "weight"):
        np.testing.assert_array_equal(
            getattr(part, name), getattr(whole.part(start, stop), name), strict=True
        )


@unhurried
@given(length=lengths)
def test_taps_between_equal_grids_change_nothing(length: int) -> None:
    taps = linear_taps(length, length, start=0, stop=length, first=0, last=length - 1)

    assert taps.identity
    assert taps.lower.tolist() == list(range(length))
    assert taps.upper.tolist() == list(range(length))


def test_taps_that_leave_out_or_mix_voxels_are_not_the_identity() -> None:
    one = np.zeros(1, np.float32)
    assert not Taps(np.array([1]), np.array([1]), one).identity
    assert not Taps(np.array([0]), np.array([1]), one + np.float32(0.5)).identity


@unhurried
@given(target=lengths, source=lengths)
@example(target=49, source=2)
@example(target=47, source=6)
def test_the_nearest_voxel_is_the_one_in_which_the_centre_lies(target: int, source: int) -> None:
    found = nearest_voxels(target, source, start=0, stop=target)

    assert found.tolist() == [floor(centre_on(target, source, voxel)) for voxel in range(target)]


@unhurried
@given(grid=st.integers(1, 15), scan=small_lengths)
@example(grid=14, scan=29)
def test_a_scan_box_holds_exactly_the_voxels_whose_centres_lie_in_it(grid: int, scan: int) -> None:
    for start in range(grid):
        for stop in range(start + 1, grid + 1):
            box = line(grid, scan).scan_box(cube(start, stop))
            inside = [j for j in range(scan) if start <= centre_on(scan, grid, j) < stop]
            assert list(range(box.start[0], box.stop[0])) == inside


@unhurried
@given(grid=lengths, scan=lengths, cut=st.data())
def test_scan_voxels_belong_to_exactly_one_of_two_adjacent_boxes(
    grid: int, scan: int, cut: st.DataObject
) -> None:
    middle = cut.draw(st.integers(0, grid))

    left, right = (line(grid, scan).scan_box(cube(a, b)) for a, b in ((0, middle), (middle, grid)))

    assert left.start[0] == 0
    assert left.stop[0] == right.start[0]
    assert right.stop[0] == scan


@unhurried
@given(grid=st.integers(1, 60), scan=lengths)
@example(grid=2, scan=49)
@example(grid=4, scan=98)
def test_scan_voxels_of_a_box_are_nearest_to_voxels_of_that_box(grid: int, scan: int) -> None:
    for voxel in range(grid):
        scan_box = line(grid, scan).scan_box(cube(voxel, voxel + 1))

        own = nearest_voxels(scan, grid, start=scan_box.start[0], stop=scan_box.stop[0])

        assert (own == voxel).all()


@unhurried
@given(grid=small_lengths, other=small_lengths, seed=st.integers(0, 2**20))
def test_a_box_from_another_grid_is_the_smallest_that_covers_it(
    grid: int, other: int, seed: int
) -> None:
    start, stop = sorted(np.random.default_rng(seed).choice(other + 1, 2, replace=False).tolist())

    box = line(grid, 50).box_from(line(other, 50), cube(start, stop))

    assert box.start[0] == floor(Fraction(start * grid, other))
    assert box.stop[0] == ceil(Fraction(stop * grid, other))
    assert not box.empty


@unhurried
@given(grid=small_lengths, scan=small_lengths, seed=st.integers(0, 2**20))
def test_the_source_box_holds_every_voxel_that_is_read_and_no_more(
    grid: int, scan: int, seed: int
) -> None:
    start, stop = sorted(np.random.default_rng(seed).choice(grid + 1, 2, replace=False).tolist())
    box = cube(start, stop)

    source = line(grid, scan).source_box(box)

    taps = line(grid, scan).taps(0, box)
    read = {*taps.lower.tolist(), *taps.upper.tolist()}
    assert (source.start[0], source.stop[0]) == (min(read), max(read) + 1)


def test_the_way_back_holds_scores_beyond_the_outermost_centres() -> None:
    grid = line(4, 8)  # grid voxel p has its centre at scan coordinate 2p + 0.5

    taps = grid.taps_back(0, cube(1, 3))

    # Scan voxels 2 to 5 see grid coordinates 0.75, 1.25, 1.75, 2.25, held to 1 and 2.
    assert (grid.scan_box(cube(1, 3)).start[0], grid.scan_box(cube(1, 3)).stop[0]) == (2, 6)
    assert taps.lower.tolist() == [0, 0, 0, 1]
    assert taps.upper.tolist() == [0, 1, 1, 1]
    assert taps.weight.tolist() == [0, 0.25, 0.75, 0]


def resample(spacing_mm: object = (None,) * 3, size_vox: object = (None,) * 3) -> Resample:
    return Resample(spacing_mm=spacing_mm, size_vox=size_vox, interpolation="linear")  # type: ignore[arg-type]


def test_a_grid_covers_the_extent_of_the_scan() -> None:
    grid = grid_over(
        (90, 512, 512), (5.0, 0.8, 0.8), resample((3.22, None, 1.62), (None, 256, None))
    )

    assert grid.shape == (140, 256, 253)
    assert grid.scan_shape == (90, 512, 512)
    assert grid.spacing_mm == pytest.approx((450 / 140, 1.6, 409.6 / 253))


def test_without_a_resample_step_the_grid_is_the_scan_s_own() -> None:
    assert grid_over((9, 8, 7), (1, 2, 3), None) == Grid((9, 8, 7), (9, 8, 7), (1, 2, 3))
    assert grid_over((9, 8, 7), (1, 2, 3), resample()).shape == (9, 8, 7)


@pytest.mark.parametrize("slice_mm", [2.9999998, 3.0, 3.0000002])
def test_the_rounding_of_a_header_does_not_change_the_grid(slice_mm: float) -> None:
    grid = grid_over((163, 20, 20), (slice_mm, 1, 1), resample((2.0, None, None)))

    assert grid.shape == (244, 20, 20)


def test_a_grid_has_at_least_one_voxel_along_each_axis() -> None:
    assert grid_over((2, 9, 9), (0.5, 1, 1), resample((8.0, None, None))).shape == (1, 9, 9)


def test_the_middle_voxel_of_an_odd_row_belongs_to_the_left_half() -> None:
    assert Grid((1, 1, 8), (1, 1, 8), (1, 1, 1)).middle_x == 4
    assert Grid((1, 1, 9), (1, 1, 9), (1, 1, 1)).middle_x == 4


def test_the_box_of_a_whole_array_holds_all_of_it() -> None:
    array: npt.NDArray[np.float64] = np.ones((2, 3, 4))
    assert array[box_of((2, 3, 4)).slices].sum() == 24
