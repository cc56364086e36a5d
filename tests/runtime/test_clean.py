from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from kits_runtime.clean import (
    Mask,
    drop_small,
    fill_holes,
    keep_by_eigenvalue_ratio,
    keep_largest,
    keep_overlapping,
    keep_surest,
)

SPACING_MM = (3.0, 0.7, 0.8)
unhurried = settings(deadline=None)  # a busy machine is no failure


def round_enough(mask: Mask) -> Mask:
    return keep_by_eigenvalue_ratio(mask, SPACING_MM, lowest=1.0, highest=2.8)


def mostly_below(mask: Mask) -> Mask:
    other = np.zeros_like(mask)
    other[mask.shape[0] // 2 :] = True
    return keep_overlapping(mask, other, at_least=0.6)


STEPS: dict[str, Callable[[Mask], Mask]] = {
    "keep_largest": lambda mask: keep_largest(mask, count=2),
    "drop_small": lambda mask: drop_small(mask, min_voxels=3),
    "fill_holes": lambda mask: fill_holes(mask, per_slice=False),
    "fill_holes per slice": lambda mask: fill_holes(mask, per_slice=True),
    "keep_by_eigenvalue_ratio": round_enough,
    "keep_overlapping": mostly_below,
    "keep_surest": lambda mask: keep_surest(mask, mask),
}
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Draws masks from sparse to dense, so that there are both components and holes."""
    shape = draw(arrays.array_shapes(min_dims=3, max_dims=3, max_side=8))
    share = draw(st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < share


def components_by_scipy(mask: Mask) -> list[Mask]:
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return [labels == number for number in range(1, count + 1)]


def union(mask: Mask, components: list[Mask]) -> Mask:
    return np.logical_or.reduce([np.zeros_like(mask), *components])


def first_voxel(component: Mask) -> int:
    return int(np.flatnonzero(component)[0])


def drawn(*slices: str) -> Mask:
    """Returns the mask drawn with one text a slice, rows parted by spaces."""
    return np.array([[[c == "#" for c in row] for row in text.split()] for text in slices])


# All steps


@every_step
def test_an_empty_mask_stays_empty(step: Callable[[Mask], Mask]) -> None:
    mask = np.zeros((3, 4, 5), bool)

    result = step(mask)

    assert result is not mask
    np.testing.assert_array_equal(result, mask)


@every_step
def test_a_mask_without_voxels_is_no_problem(step: Callable[[Mask], Mask]) -> None:
    assert step(np.zeros((0, 4, 5), bool)).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("keep_largest", 1),
        ("drop_small", 0),
        ("fill_holes", 1),
        ("fill_holes per slice", 1),
        ("keep_by_eigenvalue_ratio", 0),
        ("keep_overlapping", 1),
        ("keep_surest", 1),
    ],
)
def test_a_single_voxel_stays_where_it_belongs(name: str, expected: int) -> None:
    mask = np.zeros((3, 4, 5), bool)
    mask[2, 0, 4] = True

    np.testing.assert_array_equal(STEPS[name](mask), mask & bool(expected))


@pytest.mark.parametrize(
    "name", ["keep_largest", "drop_small", "fill_holes", "fill_holes per slice"]
)
def test_a_full_mask_stays_full(name: str) -> None:
    assert STEPS[name](np.ones((3, 4, 5), bool)).all()


@every_step
@unhurried
@given(mask=masks())
def test_the_argument_is_unchanged_and_the_result_is_new(
    step: Callable[[Mask], Mask], mask: Mask
) -> None:
    before = mask.copy()
    mask.flags.writeable = False

    result = step(mask)

    np.testing.assert_array_equal(mask, before)
    assert result.dtype == np.bool_
    assert result.flags.writeable
    assert not np.shares_memory(result, mask)


@every_step
@unhurried
@given(mask=masks(), axes=st.permutations(range(3)), flips=st.tuples(*[st.booleans()] * 3))
def test_the_memory_order_does_not_matter(
    step: Callable[[Mask], Mask], mask: Mask, axes: list[int], flips: tuple[bool, ...]
) -> None:
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    strided = mask.transpose(axes)[turn].copy()[turn].transpose(np.argsort(axes))

    np.testing.assert_array_equal(step(strided), step(mask))


@pytest.mark.parametrize("name", [name for name in STEPS if name != "keep_overlapping"])
@unhurried
@given(mask=masks(), before=st.tuples(*[st.integers(0, 3)] * 3))
def test_air_around_the_foreground_does_not_matter(
    name: str, mask: Mask, before: tuple[int, int, int]
) -> None:
    step = STEPS[name]
    wide = np.pad(mask, [(margin, 2) for margin in before])
    inside = tuple(
        slice(margin, margin + size) for margin, size in zip(before, mask.shape, strict=True)
    )

    np.testing.assert_array_equal(step(wide)[inside], step(mask))
    assert step(wide).sum() == step(mask).sum()


@every_step
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_result_lies_in_memory_as_the_mask_does(
    step: Callable[[Mask], Mask], order: Any
) -> None:
    result = step(np.zeros((3, 4, 5), bool, order))

    assert result.flags.c_contiguous == (order == "C")
    assert result.flags.f_contiguous == (order == "F")


@every_step
@pytest.mark.parametrize("wrong", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), bool)])
def test_anything_but_a_3d_boolean_mask_is_refused(
    step: Callable[[Mask], Mask], wrong: npt.NDArray[Any]
) -> None:
    with pytest.raises(ValueError, match="expected bool"):
        step(wrong)


# keep_surest


def test_the_component_with_the_most_sure_voxels_stays_whole() -> None:
    mask = drawn("#####.##.#", "#####.##.#")
    sure = drawn("#......#.#", "........##")
    np.testing.assert_array_equal(keep_surest(mask, sure), drawn(".........#", ".........#"))
    sure[:, 0, 0] = sure[0, 0, 1] = True
    np.testing.assert_array_equal(keep_surest(mask, sure), drawn("#####.....", "#####....."))


def test_of_components_with_as_many_sure_voxels_the_larger_stays_then_the_first() -> None:
    mask = drawn("#.##.##.#", ".........")
    nowhere = np.zeros_like(mask)
    np.testing.assert_array_equal(keep_surest(mask, nowhere), drawn("..##.....", "........."))
    np.testing.assert_array_equal(keep_surest(mask, mask), drawn("..##.....", "........."))


# keep_largest and drop_small


def test_the_largest_components_are_kept() -> None:
    mask = drawn("##..# ##... ....# ....#", "##... ..... ..... .....")

    np.testing.assert_array_equal(
        keep_largest(mask, count=1), drawn("##... ##... ..... .....", "##... ..... ..... .....")
    )
    np.testing.assert_array_equal(
        keep_largest(mask, count=2), drawn("##... ##... ....# ....#", "##... ..... ..... .....")
    )
    np.testing.assert_array_equal(keep_largest(mask, count=9), mask)


def test_voxels_that_touch_by_a_corner_are_one_component() -> None:
    mask = drawn("#.. ... ...", "... .#. ...", "... ... ..#")

    np.testing.assert_array_equal(keep_largest(mask, count=1), mask)
    np.testing.assert_array_equal(drop_small(mask, min_voxels=3), mask)


def test_of_equal_components_the_first_is_kept() -> None:
    mask = drawn("..## .... ##..", "..## .... ##..")

    np.testing.assert_array_equal(
        keep_largest(mask, count=1), drawn("..## .... ....", "..## .... ....")
    )


@unhurried
@given(mask=masks(), count=st.integers(1, 4))
def test_largest_components_are_those_of_scipy(mask: Mask, count: int) -> None:
    components = components_by_scipy(mask)
    components.sort(key=lambda component: (-component.sum(), first_voxel(component)))

    np.testing.assert_array_equal(keep_largest(mask, count=count), union(mask, components[:count]))


@unhurried
@given(mask=masks(), min_voxels=st.integers(0, 30))
def test_small_components_are_those_of_scipy(mask: Mask, min_voxels: int) -> None:
    large = [part for part in components_by_scipy(mask) if part.sum() >= min_voxels]

    np.testing.assert_array_equal(drop_small(mask, min_voxels=min_voxels), union(mask, large))


@pytest.mark.parametrize("count", [0, -1])
def test_keeping_no_component_is_a_mistake(count: int) -> None:
    with pytest.raises(ValueError, match=f"count: found {count}; expected 1 or more"):
        keep_largest(np.ones((2, 2, 2), bool), count=count)


# fill_holes


def test_a_hollow_ball_is_filled_and_a_tube_only_per_slice() -> None:
    lid, ring = "##### ##### ##### ##### #####", "##### #...# #.#.# #...# #####"
    full = "##### ##### ##### ##### #####"
    ball, tube = drawn(lid, ring, lid), drawn(ring, ring, ring)

    np.testing.assert_array_equal(fill_holes(ball, per_slice=False), drawn(full, full, full))
    np.testing.assert_array_equal(fill_holes(tube, per_slice=False), tube)
    np.testing.assert_array_equal(fill_holes(tube, per_slice=True), drawn(full, full, full))


def test_a_wall_of_corners_is_closed_and_a_gap_is_not() -> None:
    diamond = drawn("..#.. .#.#. #...# .#.#. ..#..")
    open_diamond = drawn("..#.. .#.#. #.... .#.#. ..#..")

    np.testing.assert_array_equal(
        fill_holes(diamond, per_slice=True), drawn("..#.. .###. ##### .###. ..#..")
    )
    np.testing.assert_array_equal(fill_holes(open_diamond, per_slice=True), open_diamond)


def test_background_at_the_edge_of_the_volume_is_no_hole() -> None:
    bay = drawn("#.# #.# ###")

    np.testing.assert_array_equal(fill_holes(bay, per_slice=True), bay)


@unhurried
@given(mask=masks())
def test_holes_of_the_volume_are_those_of_scipy(mask: Mask) -> None:
    np.testing.assert_array_equal(
        fill_holes(mask, per_slice=False), ndimage.binary_fill_holes(mask)
    )


@unhurried
@given(mask=masks())
def test_holes_of_slices_are_those_of_scipy(mask: Mask) -> None:
    expected = np.array([ndimage.binary_fill_holes(part) for part in mask])

    np.testing.assert_array_equal(fill_holes(mask, per_slice=True), expected)


# keep_by_eigenvalue_ratio


def block(*size: int) -> Mask:
    """Returns a mask of one cuboid with a margin of one voxel."""
    return np.pad(np.ones(size, bool), 1)


@pytest.mark.parametrize(
    ("size", "spacing_mm", "ratio"),
    [
        # The variance of n evenly spaced points is (n^2 - 1) / 12 times the squared spacing.
        ((2, 3, 5), (1.0, 1.0, 1.0), 24 / 8),
        ((2, 3, 5), (1.0, 2.0, 1.0), 32 / 24),
        ((4, 4, 4), (1.0, 1.0, 1.0), 1.0),
        ((4, 4, 4), (1.0, 1.0, 1.5), 2.25),
        ((1, 3, 5), (9.0, 1.0, 1.0), 24 / 8),  # flat, yet it has two directions
    ],
)
def test_the_elongation_of_cuboids_is_that_of_the_formula(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float], ratio: float
) -> None:
    mask = block(*size)

    def stays(lowest: float, highest: float) -> bool:
        return bool(
            keep_by_eigenvalue_ratio(mask, spacing_mm, lowest=lowest, highest=highest).any()
        )

    assert stays(ratio - 1e-6, ratio + 1e-6)
    assert not stays(ratio + 1e-6, 99)
    assert not stays(0, ratio - 1e-6)


def test_each_component_is_judged_alone() -> None:
    mask = np.zeros((4, 12, 12), bool)
    mask[:, 0:4, 0:4] = True  # as broad as it is long
    mask[0:2, 6:8, 0:12] = True  # a rod
    long_only = mask.copy()
    long_only[:, 0:4, 0:4] = False

    np.testing.assert_array_equal(
        keep_by_eigenvalue_ratio(mask, (1, 1, 1), lowest=1.0, highest=2.8), mask & ~long_only
    )
    np.testing.assert_array_equal(
        keep_by_eigenvalue_ratio(mask, (1, 1, 1), lowest=2.8, highest=1e9), long_only
    )


@pytest.mark.parametrize(
    "mask",
    [
        drawn("#.. ... ..."),
        drawn("##. ... ..."),
        drawn("### ... ..."),
        drawn("#.. .#. ..#"),
        drawn("#.. ... ...", "... .#. ...", "... ... ..#"),
    ],
)
def test_lines_and_pairs_have_no_elongation(mask: Mask) -> None:
    assert not keep_by_eigenvalue_ratio(mask, SPACING_MM, lowest=0, highest=np.inf).any()


@unhurried
@given(
    mask=masks(),
    spacing_mm=st.tuples(*[st.floats(0.3, 5)] * 3),
    bounds=st.tuples(st.floats(1, 4), st.floats(1, 4)),
)
def test_the_elongation_is_that_of_numpys_covariance(
    mask: Mask, spacing_mm: tuple[float, float, float], bounds: tuple[float, float]
) -> None:
    lowest, highest = sorted(bounds)
    kept, doubtful = [], np.zeros_like(mask)
    for component in components_by_scipy(mask):
        places_mm = np.argwhere(component) * spacing_mm
        if len(places_mm) < 3 or np.linalg.matrix_rank(places_mm - places_mm[0]) < 2:
            continue
        _, second, first = np.linalg.eigvalsh(np.cov(places_mm.T))
        if np.isclose(first / second, [lowest, highest], rtol=1e-9).any():
            doubtful |= component
        elif lowest < first / second < highest:
            kept.append(component)

    result = keep_by_eigenvalue_ratio(mask, spacing_mm, lowest=lowest, highest=highest)

    np.testing.assert_array_equal(result & ~doubtful, union(mask, kept))


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, np.nan)])
def test_a_spacing_that_is_none_is_refused(spacing_mm: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected three positive numbers"):
        keep_by_eigenvalue_ratio(np.ones((2, 2, 2), bool), spacing_mm, lowest=1, highest=2)


# keep_overlapping


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        (0, "####. ..... #.#.#"),
        (0.5, "####. ..... ..#.#"),
        (0.75, "####. ..... ..#.."),
        (0.76, "..... ..... ..#.."),
        (1, "..... ..... ..#.."),
    ],
)
def test_components_stay_from_the_share_that_overlaps(at_least: float, expected: str) -> None:
    mask = drawn("####. ..... #.#.#", "..... ..... ....#")
    other = drawn(".###. ##### ..#.#", "#.... ..... .....")
    both = drawn(expected, "..... ..... " + ("....#" if expected.endswith("#") else "....."))

    np.testing.assert_array_equal(keep_overlapping(mask, other, at_least=at_least), both)


@pytest.mark.parametrize(("inside", "stays"), [(18, False), (19, True), (20, True)])
def test_a_share_of_95_percent_is_met_exactly(inside: int, stays: bool) -> None:
    mask = np.ones((1, 1, 20), bool)
    other = np.arange(20).reshape(mask.shape) < inside

    assert keep_overlapping(mask, other, at_least=0.95).any() == stays


@unhurried
@given(mask=masks(), seed=st.integers(0, 2**32), at_least=st.floats(0, 1))
def test_overlaps_are_those_of_scipy(mask: Mask, seed: int, at_least: float) -> None:
    other = np.random.default_rng(seed).random(mask.shape) < 0.7
    kept = [part for part in components_by_scipy(mask) if other[part].mean() >= at_least]

    np.testing.assert_array_equal(
        keep_overlapping(mask, other, at_least=at_least), union(mask, kept)
    )


def test_masks_on_different_grids_are_refused() -> None:
    mask = np.ones((2, 2, 2), bool)

    with pytest.raises(ValueError, match=r"found bool of shape \(2, 2, 3\); expected bool"):
        keep_overlapping(mask, np.ones((2, 2, 3), bool), at_least=0.5)
    with pytest.raises(ValueError, match="other: found uint8"):
        keep_overlapping(mask, np.ones((2, 2, 2), np.uint8), at_least=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_least", [-0.1, 1.1, 95, np.nan])
def test_a_share_beyond_0_to_1_is_refused(at_least: float) -> None:
    mask = np.ones((2, 2, 2), bool)

    with pytest.raises(ValueError, match="expected 0 to 1"):
        keep_overlapping(mask, mask, at_least=at_least)
