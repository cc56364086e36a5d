from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import outcome, unhurried

from kits_runtime.grid import Box, Grid, bounding_box, box_of
from kits_runtime.outcome import Outcome, zeros_stored_as

Shape = tuple[int, int, int]
sides = st.integers(1, 12)
shapes = st.tuples(sides, sides, sides)


def labels_of(shape: Shape, seed: int = 0, share: float = 0.3) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 3, shape) * (rng.random(shape) < share)).astype(np.uint8)


def placed_in_box() -> Outcome:
    """Labels on voxels 10 to 14, 20 to 25 and 30 to 36 of a grid of 40 cubed."""
    grid = Grid((40, 40, 40), (40, 40, 40), (1, 1, 1))
    placed = np.zeros((4, 5, 6), np.uint8)
    placed[1, 2, 3] = 1
    placed[3, 2, 5] = 2
    return outcome(placed, grid=grid, box=Box((10, 20, 30), (14, 25, 36)))


def test_what_was_found_is_counted_from_the_grid_s_start() -> None:
    own = placed_in_box()

    assert own.found(box_of((40, 40, 40))) == Box((11, 22, 33), (14, 23, 36))
    assert own.found(Box((0, 0, 34), (40, 40, 40))) == Box((13, 22, 35), (14, 23, 36))


@pytest.mark.parametrize(
    "within",
    [Box((0, 0, 0), (40, 40, 20)), Box((12, 0, 0), (13, 40, 40)), Box((5, 5, 5), (5, 9, 9))],
)
def test_nothing_is_found_where_nothing_is(within: Box) -> None:
    assert placed_in_box().found(within) is None


def test_a_stage_that_looked_nowhere_found_nothing() -> None:
    nowhere = Box((0, 0, 0), (0, 0, 0))
    grid = Grid((4, 4, 4), (8, 8, 8), (1, 1, 1))
    empty = outcome(np.zeros((0, 0, 0), np.uint8), grid=grid, box=nowhere)
    on_scan = replace(empty, on_scan=np.zeros((8, 8, 8), np.uint8), reach=nowhere)

    for own in (empty, on_scan):
        assert own.found(box_of((4, 4, 4))) is None
        mask = own.mask_on(Grid((5, 5, 5), (8, 8, 8), (1, 1, 1)), Box((1, 1, 1), (4, 5, 5)))
        assert mask.shape == (3, 4, 4)
        assert not mask.any()
    assert not on_scan.mask_on_scan(Box((2, 2, 2), (5, 5, 5))).any()


@unhurried
@given(seed=st.integers(0, 999), start=shapes)
def test_the_mask_on_the_scan_is_its_foreground(seed: int, start: Shape) -> None:
    labels = labels_of((12, 12, 12), seed, share=0.01)
    reach = bounding_box(labels) or Box((0, 0, 0), (0, 0, 0))
    own = replace(outcome(labels, on_scan=labels), reach=reach)
    box = Box(start, (12, 12, 12))

    mask = own.mask_on_scan(box)

    np.testing.assert_array_equal(mask, labels[box.slices] > 0)


def by_centres(
    labels: npt.NDArray[np.uint8], grid: Shape, box: Box, origin: Shape
) -> npt.NDArray[np.bool_]:
    """Voxel by voxel: is the centre in a voxel of the labels that is foreground?

    ``labels`` are those of another grid from ``origin`` on; ``grid`` and that are counted in the
    same unit, so that centres can be compared as whole numbers.
    """
    mask = np.zeros(box.shape, np.bool_)
    for place in np.ndindex(box.shape):
        source = [
            (2 * (p + a) + 1) * n // (2 * g) - o
            for p, a, n, g, o in zip(place, box.start, (6, 7, 5), grid, origin, strict=True)
        ]
        inside = all(0 <= s < n for s, n in zip(source, labels.shape, strict=True))
        mask[place] = inside and labels[tuple(source)] > 0
    return mask


@unhurried
@given(grid=shapes, seed=st.integers(0, 999))
def test_the_mask_on_another_grid_is_that_of_the_nearest_scan_voxel(grid: Shape, seed: int) -> None:
    labels = labels_of((6, 7, 5), seed, share=0.1)
    reach = bounding_box(labels) or Box((0, 0, 0), (0, 0, 0))
    own = replace(
        outcome(labels_of((6, 7, 5), seed + 1), on_scan=labels),
        reach=reach.wider_by(1).within(box_of((6, 7, 5))),
    )
    box = Box(
        tuple(n // 3 for n in grid),  # type: ignore[arg-type]
        grid,
    )

    mask = own.mask_on(Grid(grid, (6, 7, 5), (1, 1, 1)), box)

    np.testing.assert_array_equal(mask, by_centres(labels, grid, box, (0, 0, 0)))


@unhurried
@given(grid=shapes, seed=st.integers(0, 999))
def test_without_labels_on_the_scan_it_is_that_of_the_nearest_grid_voxel(
    grid: Shape, seed: int
) -> None:
    own_box = Box((1, 2, 1), (5, 6, 5))
    placed = labels_of(own_box.shape, seed)
    own = outcome(placed, grid=Grid((6, 7, 5), (60, 60, 60), (1, 1, 1)), box=own_box)

    mask = own.mask_on(Grid(grid, (60, 60, 60), (1, 1, 1)), box_of(grid))

    np.testing.assert_array_equal(mask, by_centres(placed, grid, box_of(grid), own_box.start))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_zeros_lie_in_memory_as_another_array_does(order: Shape) -> None:
    array = np.ones((4, 5, 6), np.int16).transpose(order)[:, ::-1]

    zeros = zeros_stored_as(array, (7, 8, 9), np.bool_)

    assert zeros.shape == (7, 8, 9)
    assert zeros.dtype == np.bool_
    assert not zeros.any()
    assert np.argsort(zeros.strides).tolist() == np.argsort(np.abs(array.strides)).tolist()
