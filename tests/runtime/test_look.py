from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from stages import native_grid, outcome, unhurried, volume

from kits_runtime.grid import Box, Grid, bounding_box, box_of
from kits_runtime.look import boxes_to_look_at, half_of, largest_box
from kits_runtime.manifest.schema import (
    AxisSize,
    Boxes,
    Foreground,
    Full,
    Look,
    MiddleOfBox,
    MiddleOfProjections,
    Millimetres,
    Part,
    Tight,
    Voxels,
    Whole,
)
from kits_runtime.outcome import Outcome

Shape = tuple[int, int, int]
AIR_SCAN = volume(np.full((20, 20, 20), -1000, np.int16), (1, 1, 1))
CUBE = Grid((20, 20, 20), (20, 20, 20), (1.0, 1.0, 1.0))


def looked_at(
    look: Look, found: Outcome | None = None, *, grid: Grid = CUBE, cut_halves: bool = False
) -> tuple[Box, ...]:
    outcomes = {} if found is None else {"earlier": found}
    return boxes_to_look_at(look, AIR_SCAN, grid, outcomes=outcomes, cut_halves=cut_halves)


def found_in(*boxes: Box, shape: Shape = (20, 20, 20), grid: Grid | None = None) -> Outcome:
    placed = np.zeros(grid.shape if grid else shape, np.uint8)
    for box in boxes:
        placed[box.slices] = 1
    return outcome(placed, grid=grid)


def around(
    size: AxisSize | tuple[AxisSize, AxisSize, AxisSize],
    *,
    per: Literal["all", "side"] = "all",
    border: Literal["clip", "shift"] = "clip",
    otherwise: Literal["empty", "whole", "half"] = "empty",
) -> Boxes:
    return Boxes(
        of="earlier",
        per=per,
        size=size if isinstance(size, tuple) else (size, size, size),
        centre=MiddleOfBox(),
        border=border,
        otherwise=otherwise,
    )


def test_the_whole_grid_is_looked_at() -> None:
    assert looked_at(Whole()) == (box_of((20, 20, 20)),)


@pytest.mark.parametrize(
    ("half", "box"),
    [
        ("superior", Box((0, 0, 0), (4, 7, 6))),
        ("inferior", Box((4, 0, 0), (9, 7, 6))),
        ("anterior", Box((0, 0, 0), (9, 3, 6))),
        ("posterior", Box((0, 3, 0), (9, 7, 6))),
        ("right", Box((0, 0, 0), (9, 7, 3))),
        ("left", Box((0, 0, 3), (9, 7, 6))),
    ],
)
def test_halves_lie_in_the_patient_s_frame(half: Any, box: Box) -> None:
    grid = native_grid((9, 7, 6))

    assert half_of(grid, half) == box
    assert looked_at(Part(half=half), grid=grid) == (box,)


@pytest.mark.parametrize(
    ("half", "place"),
    [
        ("superior", (0, 0, 99)),
        ("inferior", (0, 0, -99)),
        ("anterior", (0, 99, 0)),
        ("posterior", (0, -99, 0)),
        ("right", (99, 0, 0)),
        ("left", (-99, 0, 0)),
    ],
)
def test_a_half_holds_the_voxels_on_its_side_of_the_patient(
    half: Any, place: tuple[int, int, int]
) -> None:
    # RAS: x grows towards the patient's right, y towards anterior, z towards superior.
    scan = volume(np.zeros((8, 8, 8), np.int16))
    middle_mm = (scan.affine @ [3.5, 3.5, 3.5, 1])[:3]

    (box,) = boxes_to_look_at(
        Part(half=half), scan, native_grid((8, 8, 8)), outcomes={}, cut_halves=False
    )

    corners = [(scan.affine @ [*corner, 1])[:3] for corner in np.argwhere(np.ones(box.shape))]
    offset = (scan.affine @ [*box.start, 1])[:3] - (scan.affine @ [0, 0, 0, 1])[:3]
    towards = [
        np.sign(np.array(corner) + offset - middle_mm) @ np.sign(place) for corner in corners
    ]
    assert towards == [1.0] * len(corners)


def test_half_of_a_single_slice_is_empty_and_not_looked_at() -> None:
    assert looked_at(Part(half="superior"), grid=native_grid((1, 4, 4))) == ()
    assert looked_at(Part(half="inferior"), grid=native_grid((1, 4, 4))) == (box_of((1, 4, 4)),)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("above_hu", [-200.0, -200.5, -199.5])
def test_foreground_is_the_box_around_all_voxels_above_a_value(dtype: Any, above_hu: float) -> None:
    data = np.full((70, 12, 14), -1000, dtype)
    data[50, 3, 9], data[66, 8, 2] = -199, 400
    data[2, 0, 0] = -200
    scan = volume(data, (1, 1, 1))

    (box,) = boxes_to_look_at(
        Foreground(above_hu=above_hu),
        scan,
        native_grid((70, 12, 14), (1, 1, 1)),
        outcomes={},
        cut_halves=False,
    )

    assert box == bounding_box(data > above_hu)
    assert box.start[0] == (2 if above_hu == -200.5 else 50)


def test_foreground_on_a_coarser_grid_covers_all_of_it() -> None:
    data = np.full((20, 20, 20), -1000, np.int16)
    data[5:12, 8:10, 0:20] = 0
    scan, grid = volume(data, (1, 1, 1)), Grid((10, 7, 20), (20, 20, 20), (2.0, 20 / 7, 1.0))

    (box,) = boxes_to_look_at(Foreground(above_hu=-79.0), scan, grid, outcomes={}, cut_halves=False)

    # 5 to 12 of 20 is 2.5 to 6 of 10; 8 to 10 of 20 is 2.8 to 3.5 of 7.
    assert box == Box((2, 2, 0), (6, 4, 20))
    assert grid.scan_box(box).within(Box((5, 8, 0), (12, 10, 20))) == Box((5, 8, 0), (12, 10, 20))


def test_a_scan_of_air_is_looked_at_as_a_whole() -> None:
    assert looked_at(Foreground(above_hu=-79.0)) == (box_of((20, 20, 20)),)


@unhurried
@given(seed=st.integers(0, 2**20), flip=st.booleans())
def test_foreground_does_not_depend_on_memory_order(seed: int, flip: bool) -> None:
    data = (np.random.default_rng(seed).random((5, 40, 6)) > 0.97).astype(np.int16)
    stored = np.asfortranarray(data[::-1] if flip else data)
    grid = native_grid((5, 40, 6), (1, 1, 1))

    (box,) = boxes_to_look_at(
        Foreground(above_hu=0.0),
        volume(stored, (1, 1, 1)),
        grid,
        outcomes={},
        cut_halves=False,
    )

    assert box == (bounding_box(stored > 0) or box_of((5, 40, 6)))


def test_boxes_of_so_many_voxels_sit_on_the_middle_of_what_was_found() -> None:
    found = found_in(Box((4, 6, 9), (8, 12, 10)))  # middles 6, 9 and 9.5

    assert looked_at(around(Voxels(count=4)), found) == (Box((4, 7, 7), (8, 11, 11)),)
    assert looked_at(around(Voxels(count=5)), found) == (Box((3, 6, 7), (8, 11, 12)),)


def test_sizes_may_differ_by_axis() -> None:
    found = found_in(Box((4, 6, 9), (8, 12, 11)))
    size = (Full(), Tight(margin_mm=2.0), Voxels(count=6))

    assert looked_at(around(size), found) == (Box((0, 4, 7), (20, 14, 13)),)


def test_lengths_and_margins_are_millimetres_of_the_stage_s_own_grid() -> None:
    earlier = Grid((10, 20, 20), (30, 40, 40), (3.0, 1.0, 1.0))
    grid = Grid((15, 40, 10), (30, 40, 40), (2.0, 0.5, 2.0))
    found = found_in(Box((4, 8, 8), (6, 12, 12)), grid=earlier)

    # On the stage's grid what was found reaches from 6 to 9, 16 to 24 and 4 to 6.
    assert looked_at(around(Tight(margin_mm=0.0)), found, grid=grid) == (
        Box((6, 16, 4), (9, 24, 6)),
    )
    # 4 mm are 2, 8 and 2 voxels.
    assert looked_at(around(Tight(margin_mm=4.0)), found, grid=grid) == (
        Box((4, 8, 2), (11, 32, 8)),
    )
    # 12 mm are 6, 24 and 6 voxels around 7.5, 20 and 5.
    assert looked_at(around(Millimetres(length_mm=12.0)), found, grid=grid) == (
        Box((4, 8, 2), (10, 32, 8)),
    )


def test_a_length_below_a_voxel_still_is_one_voxel() -> None:
    (box,) = looked_at(around(Millimetres(length_mm=0.1)), found_in(Box((4, 4, 4), (5, 5, 5))))

    assert box == Box((4, 4, 4), (5, 5, 5))


@pytest.mark.parametrize(
    ("border", "expected"),
    [("clip", Box((0, 14, 5), (5, 20, 15))), ("shift", Box((0, 10, 5), (10, 20, 15)))],
)
def test_boxes_at_the_border_are_clipped_or_shifted_back(border: Any, expected: Box) -> None:
    found = found_in(Box((0, 18, 9), (1, 20, 11)))  # middles 0.5, 19 and 10

    (box,) = looked_at(around(Voxels(count=10), border=border), found)

    # Unmoved: -4.5 goes down to -5, 14 to 24, 5 to 15.
    assert box == expected


def test_boxes_larger_than_the_grid_are_the_grid() -> None:
    for border in ("clip", "shift"):
        look = around(Voxels(count=100), border=border)  # type: ignore[arg-type]
        assert looked_at(look, found_in(Box((3, 3, 3), (4, 4, 4)))) == (box_of((20, 20, 20)),)


RIGHT, LEFT = Box((2, 2, 2), (6, 6, 6)), Box((8, 8, 12), (12, 14, 18))


def test_each_side_gets_its_own_box_right_first() -> None:
    boxes = looked_at(around(Tight(margin_mm=1.0), per="side"), found_in(RIGHT, LEFT))

    assert boxes == (Box((1, 1, 1), (7, 7, 7)), Box((7, 7, 11), (13, 15, 19)))


def test_one_box_for_all_holds_both_sides() -> None:
    assert looked_at(around(Tight(margin_mm=0.0)), found_in(RIGHT, LEFT)) == (RIGHT.around(LEFT),)


def test_what_crosses_the_middle_is_found_on_both_sides() -> None:
    across = found_in(Box((5, 5, 7), (9, 9, 15)))

    boxes = looked_at(around(Tight(margin_mm=0.0), per="side"), across)

    assert boxes == (Box((5, 5, 7), (9, 9, 10)), Box((5, 5, 10), (9, 9, 15)))


def test_boxes_of_halves_end_at_the_middle() -> None:
    look = around(Voxels(count=14), per="side")

    right, left = looked_at(look, found_in(RIGHT, LEFT))
    cut_right, cut_left = looked_at(look, found_in(RIGHT, LEFT), cut_halves=True)

    assert not right.within(left).empty
    assert (cut_right.stop[2], cut_left.start[2]) == (10, 10)
    assert (cut_right, cut_left) == (
        right.within(half_of(CUBE, "right")),
        left.within(half_of(CUBE, "left")),
    )


@pytest.mark.parametrize(
    ("otherwise", "expected"),
    [
        ("empty", (RIGHT,)),
        ("half", (RIGHT, Box((0, 0, 10), (20, 20, 20)))),
        ("whole", (RIGHT, box_of((20, 20, 20)))),
    ],
)
def test_a_side_where_nothing_was_found_takes_the_fall_back(
    otherwise: Any, expected: tuple[Box, ...]
) -> None:
    look = around(Tight(margin_mm=0.0), per="side", otherwise=otherwise)

    assert looked_at(look, found_in(RIGHT)) == expected


@pytest.mark.parametrize(
    ("otherwise", "expected"),
    [
        ("empty", ()),
        ("half", (Box((0, 0, 0), (20, 20, 10)), Box((0, 0, 10), (20, 20, 20)))),
        ("whole", (box_of((20, 20, 20)),)),
    ],
)
def test_both_sides_take_the_fall_back_where_nothing_was_found_at_all(
    otherwise: Any, expected: tuple[Box, ...]
) -> None:
    look = around(Tight(margin_mm=0.0), per="side", otherwise=otherwise)

    assert looked_at(look, found_in()) == expected


def test_one_box_for_all_takes_the_fall_back() -> None:
    assert looked_at(around(Full(), otherwise="empty"), found_in()) == ()
    assert looked_at(around(Full(), otherwise="whole"), found_in()) == (box_of((20, 20, 20)),)


def test_a_fall_back_to_the_whole_is_cut_at_the_middle_too() -> None:
    look = around(Tight(margin_mm=0.0), per="side", otherwise="whole")

    boxes = looked_at(look, found_in(RIGHT), cut_halves=True)

    assert boxes == (RIGHT, half_of(CUBE, "left"))


def test_an_outcome_that_fills_only_a_box_is_found_at_its_place() -> None:
    grid = native_grid((20, 20, 20), (1, 1, 1))
    placed = np.zeros((5, 6, 7), np.uint8)
    placed[1:3, 2:3, 4:6] = 2
    own = outcome(placed, grid=grid, box=Box((10, 11, 12), (15, 17, 19)))

    assert looked_at(around(Tight(margin_mm=0.0)), own) == (Box((11, 13, 16), (13, 14, 18)),)


def projections(coronal: tuple[int, int], axial: tuple[int, int], **changes: Any) -> Boxes:
    centre = MiddleOfProjections(coronal_window_vox=coronal, axial_window_vox=axial)
    return replace(around(Voxels(count=2), **changes), centre=centre)


def test_projections_leave_stray_voxels_out_of_the_middle() -> None:
    kidney, stray = Box((4, 4, 4), (10, 10, 10)), Box((18, 18, 17), (19, 19, 18))

    plain = looked_at(around(Voxels(count=2)), found_in(kidney, stray))
    filtered = looked_at(projections((3, 3), (3, 3)), found_in(kidney, stray))

    assert plain == (Box((10, 10, 10), (12, 12, 12)),)  # around 11.5, 11.5 and 11
    assert filtered == (Box((6, 6, 6), (8, 8, 8)),)


def test_projections_that_the_filter_empties_are_used_unfiltered() -> None:
    (box,) = looked_at(projections((9, 9), (9, 9)), found_in(Box((4, 6, 8), (5, 7, 9))))

    assert box == Box((3, 5, 7), (5, 7, 9))


def test_z_comes_from_the_coronal_map_and_y_and_x_from_the_axial_one() -> None:
    kidney = Box((4, 4, 4), (10, 10, 10))
    column = Box((4, 15, 15), (19, 16, 16))  # long in z: one voxel axially, a line coronally

    found = found_in(kidney, column)
    (axial_only,) = looked_at(projections((1, 1), (3, 3)), found)
    (both,) = looked_at(projections((3, 3), (3, 3)), found)

    assert axial_only == Box((10, 6, 6), (12, 8, 8))
    assert both == Box((6, 6, 6), (8, 8, 8))


@unhurried
@given(
    seed=st.integers(0, 2**20),
    coronal=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    axial=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_projections_are_filtered_as_by_scipy(
    seed: int, coronal: tuple[int, int], axial: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    placed = (ndimage.gaussian_filter(rng.normal(size=(12, 13, 14)), 1) > 0.12).astype(np.uint8)

    boxes = looked_at(projections(coronal, axial), outcome(placed), grid=native_grid((12, 13, 14)))

    def middle(counts: npt.NDArray[Any], window: tuple[int, int], axis: int) -> float:
        left = ndimage.median_filter(counts, size=window, mode="constant", cval=0) > 0
        hits = np.flatnonzero((left if left.any() else counts > 0).any(axis=1 - axis))
        return float(hits[0] + hits[-1] + 1) / 2

    if not placed.any():
        assert boxes == ()
        return
    centres = (
        middle(placed.sum(axis=1, dtype=int), coronal, 0),
        middle(placed.sum(axis=0, dtype=int), axial, 0),
        middle(placed.sum(axis=0, dtype=int), axial, 1),
    )
    starts = [int(np.ceil(centre - 1 - 0.51)) for centre in centres]
    (box,) = boxes
    expected = Box(tuple(starts), tuple(a + 2 for a in starts))  # type: ignore[arg-type]
    assert box == expected.within(box_of((12, 13, 14)))


sizes = st.one_of(
    st.just(Full()),
    st.builds(Tight, margin_mm=st.floats(0, 9)),
    st.builds(Millimetres, length_mm=st.floats(0.1, 30)),
    st.builds(Voxels, count=st.integers(1, 30)),
)


@unhurried
@given(
    size=st.tuples(sizes, sizes, sizes),
    shape=st.tuples(*[st.integers(2, 14)] * 3),
    per=st.sampled_from(["all", "side"]),
    border=st.sampled_from(["clip", "shift"]),
    otherwise=st.sampled_from(["empty", "whole", "half"]),
    cut_halves=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_box_is_larger_than_the_largest_that_is_foretold(
    size: tuple[AxisSize, AxisSize, AxisSize],
    shape: Shape,
    per: Any,
    border: Any,
    otherwise: Any,
    cut_halves: bool,
    seed: int,
) -> None:
    look = around(size, per=per, border=border, otherwise=otherwise)
    rng = np.random.default_rng(seed)
    found = outcome(rng.random(shape) < rng.choice([0.0, 0.005, 0.1]))
    grid = Grid(shape, shape, (2.5, 0.7, 0.8))
    most = largest_box(look, grid)
    for box in looked_at(look, found, grid=grid, cut_halves=cut_halves):
        assert all(n <= m for n, m in zip(box.shape, most, strict=True))


def test_the_largest_box_by_hand() -> None:
    grid = Grid((100, 300, 301), (100, 300, 301), (3.0, 1.0, 1.0))
    box = (Full(), Voxels(count=256), Millimetres(length_mm=10.0))
    assert largest_box(around(box), grid) == (100, 256, 10)
    assert largest_box(around(box, per="side", otherwise="half"), grid) == (100, 300, 151)
    assert largest_box(around(box, otherwise="whole"), grid) == grid.shape
    assert largest_box(Part(half="posterior"), grid) == (100, 150, 301)
    assert largest_box(Whole(), grid) == grid.shape
