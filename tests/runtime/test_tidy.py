from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from kits_runtime.grid import Box, Grid, box_of
from kits_runtime.infer import Slab
from kits_runtime.manifest.schema import (
    Clean,
    DropSmall,
    EigenvalueRatio,
    FillHoles,
    KeepLargest,
    KeepSurest,
    Overlap,
    Threshold,
)
from kits_runtime.tidy import CLEAN, Frame, Tidied, follow_on_scan, tidied, tidy_labels
from kits_runtime.wayback import WayBack

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]

AT_HALF = Threshold(at_least=0.5, labels=(1,))
# Where a net is hardly sure of background, or deep holes lie in weak foreground, blobs and holes
# reach far beyond their own voxels.
WIDE_BLOBS, WIDE_HOLES = (0.4, 1.0), (0.0, 0.55)
GRID_SHAPE = (12, 16, 20)
# Finer, coarser, as it is, and one of each.
SCAN_SHAPES = [(31, 40, 53), (9, 12, 15), (12, 16, 20), (25, 16, 13)]
every_scan = pytest.mark.parametrize("scan_shape", SCAN_SHAPES, ids=str)


def frame(shape: Shape = GRID_SHAPE, **changes: Any) -> Frame:
    plain = Frame(
        spacing_mm=(1.0, 1.0, 1.0),
        middle_x=shape[2] // 2,
        mask_of=lambda name: np.zeros(shape, np.bool_),
        sure=np.zeros(shape, np.uint8),
    )
    return replace(plain, **changes)


def mask_of(*boxes: Box, shape: Shape = GRID_SHAPE) -> Mask:
    mask = np.zeros(shape, np.bool_)
    for box in boxes:
        mask[box.slices] = True
    return mask


def on_scan_from(
    mask: Mask,
    scan_shape: Shape,
    *,
    box: Box | None = None,
    scores: tuple[float, float] = WIDE_BLOBS,
) -> Labels:
    """The labels that the way back makes of a mask that fills a box of the grid."""
    box = box or box_of(GRID_SHAPE)
    grid = Grid(GRID_SHAPE, scan_shape, (1, 1, 1))
    labels = np.zeros(scan_shape, np.uint8)
    back = WayBack(
        grid,
        box,
        decide=AT_HALF,
        placed=np.zeros(box.shape, np.uint8),
        on_scan=labels[grid.scan_box(box).slices],
    )
    background, foreground = scores
    values = np.where(mask, np.float32(foreground), np.float32(background))
    back.push(Slab(depth=box.shape[0], scores=values[None]))
    return labels


def follow(
    labels: Labels, before: Mask, after: Mask, *, fill: int = 1, box: Box | None = None
) -> None:
    grid = Grid(GRID_SHAPE, labels.shape, (1, 1, 1))
    own = box or box_of(GRID_SHAPE)
    inside = labels[grid.scan_box(own).slices]
    follow_on_scan(inside, Tidied(grid=grid, box=own, before=before, after=after, fill=fill))


KEPT, DROPPED = Box((2, 3, 2), (9, 11, 9)), Box((4, 5, 12), (8, 9, 16))


@every_scan
def test_dropping_a_component_removes_exactly_its_blob_on_the_scan(scan_shape: Shape) -> None:
    before = mask_of(KEPT, DROPPED)
    labels = on_scan_from(before, scan_shape)
    assert ndimage.label(labels)[1] == 2

    follow(labels, before, tidied(before, [KeepLargest(count=1, per="all")], frame()))

    np.testing.assert_array_equal(labels, on_scan_from(mask_of(KEPT), scan_shape))


@every_scan
@pytest.mark.parametrize("gap", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_components_one_voxel_apart_are_told_apart_on_the_scan(
    scan_shape: Shape, axis: int, gap: int
) -> None:
    kept_start, kept_stop = [2, 2, 2], [6, 6, 6]
    start, stop = kept_start.copy(), kept_stop.copy()
    start[axis] = kept_stop[axis] + gap
    stop[axis] = start[axis] + 2
    kept = Box(tuple(kept_start), tuple(kept_stop))  # type: ignore[arg-type]
    dropped = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
    before = mask_of(kept, dropped)
    labels = on_scan_from(before, scan_shape)

    follow(labels, before, mask_of(kept))

    np.testing.assert_array_equal(labels, on_scan_from(mask_of(kept), scan_shape))


@every_scan
@pytest.mark.parametrize("seed", range(4))
def test_dropping_leaves_what_the_kept_scores_alone_would_give(
    scan_shape: Shape, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = ndimage.gaussian_filter(rng.normal(size=GRID_SHAPE), 1.2) > 0.12
    after = tidied(before, [KeepLargest(count=1, per="all")], frame())
    assert (before & ~after).any()
    labels = on_scan_from(before, scan_shape)

    follow(labels, before, after)

    np.testing.assert_array_equal(labels, on_scan_from(after, scan_shape))


@every_scan
def test_a_box_inside_the_grid_is_followed_at_its_place(scan_shape: Shape) -> None:
    box = Box((1, 2, 3), (10, 14, 20))
    before = mask_of(KEPT, DROPPED)[box.slices]
    labels = on_scan_from(before, scan_shape, box=box)

    follow(labels, before, mask_of(KEPT)[box.slices], box=box)

    np.testing.assert_array_equal(
        labels, on_scan_from(mask_of(KEPT)[box.slices], scan_shape, box=box)
    )


@every_scan
def test_dropping_everything_leaves_nothing(scan_shape: Shape) -> None:
    before = mask_of(KEPT, DROPPED)
    labels = on_scan_from(before, scan_shape)

    follow(labels, before, tidied(before, [DropSmall(min_voxels=10_000)], frame()))

    assert not labels.any()


@every_scan
@pytest.mark.parametrize("scores", [WIDE_BLOBS, WIDE_HOLES, (0.2, 0.8)], ids=str)
def test_holes_are_filled_on_the_scan_up_to_their_walls(
    scan_shape: Shape, scores: tuple[float, float]
) -> None:
    solid = mask_of(Box((2, 3, 3), (10, 12, 15)))
    before = solid & ~mask_of(Box((4, 6, 6), (7, 9, 10)))
    filled = on_scan_from(solid, scan_shape, scores=scores) > 0
    labels = on_scan_from(before, scan_shape, scores=scores)
    hole = filled & (labels == 0)
    assert hole.any()

    follow(labels, before, tidied(before, [FillHoles(per_slice=False)], frame()), fill=2)

    np.testing.assert_array_equal(labels, np.where(hole, 2, filled))


def test_holes_of_a_slice_are_filled_in_that_slice_alone() -> None:
    before = mask_of(Box((4, 4, 4), (5, 12, 12))) & ~mask_of(Box((4, 6, 6), (5, 9, 9)))
    labels = on_scan_from(before, (36, 16, 20), scores=(0.0, 1.0))  # three scan slices each

    follow(labels, before, tidied(before, [FillHoles(per_slice=True)], frame()))

    filled = np.flatnonzero(labels[:, 7, 7])
    assert filled.tolist() == [12, 13, 14]
    assert not labels[:12].any()
    assert not labels[15:].any()


def test_what_needs_no_clean_up_stays_untouched() -> None:
    before = mask_of(KEPT)
    labels = on_scan_from(before, (31, 40, 53))
    expected = labels.copy()

    follow(labels, before, before.copy())

    np.testing.assert_array_equal(labels, expected)


def test_each_side_keeps_its_own_components() -> None:
    large, small, other = (
        Box((0, 0, 0), (5, 5, 5)),
        Box((8, 8, 0), (9, 9, 2)),
        Box((8, 8, 14), (11, 11, 17)),
    )
    mask = mask_of(large, small, other)

    kept = tidied(mask, [KeepLargest(count=1, per="side")], frame())
    of_all = tidied(mask, [KeepLargest(count=1, per="all")], frame())

    np.testing.assert_array_equal(kept, mask_of(large, other))
    np.testing.assert_array_equal(of_all, mask_of(large))


@pytest.mark.parametrize("middle_x", [-3, 0, 20, 27])
def test_an_array_on_one_side_has_no_other(middle_x: int) -> None:
    first, second = Box((0, 0, 0), (5, 5, 5)), Box((8, 8, 14), (11, 11, 17))

    kept = tidied(
        mask_of(first, second), [KeepLargest(count=1, per="side")], frame(middle_x=middle_x)
    )

    np.testing.assert_array_equal(kept, mask_of(first))


def test_clean_up_is_done_in_order() -> None:
    shell = mask_of(Box((2, 2, 2), (7, 7, 7))) & ~mask_of(Box((3, 3, 3), (6, 6, 6)))  # 98 voxels
    block = mask_of(Box((1, 9, 10), (6, 14, 14)))  # 100 voxels
    fill, keep = FillHoles(per_slice=False), KeepLargest(count=1, per="all")

    filled_first = tidied(shell | block, [fill, keep], frame())
    kept_first = tidied(shell | block, [keep, fill], frame())

    np.testing.assert_array_equal(filled_first, mask_of(Box((2, 2, 2), (7, 7, 7))))
    np.testing.assert_array_equal(kept_first, block)


def test_overlap_and_shape_get_what_they_need_of_the_frame() -> None:
    first, second = Box((0, 0, 0), (4, 4, 8)), Box((8, 8, 10), (10, 10, 18))
    mask = mask_of(first, second)
    asked: list[str] = []

    def other(name: str) -> Mask:
        asked.append(name)
        return mask_of(Box((0, 0, 0), (4, 4, 6)))  # three quarters of the first

    overlapping = tidied(mask, [Overlap(of="kidney", at_least=0.75)], frame(mask_of=other))
    missed = tidied(mask, [Overlap(of="kidney", at_least=0.76)], frame(mask_of=other))
    # 4 x 4 x 8 voxels of 2, 1 and 1 mm: variances of 64 - 4, 16 - 1 and 64 - 1 twelfths.
    round_enough = tidied(
        mask, [EigenvalueRatio(lowest=1.0, highest=63 / 60)], frame(spacing_mm=(2.0, 1.0, 1.0))
    )
    longer = tidied(
        mask, [EigenvalueRatio(lowest=1.06, highest=9.0)], frame(spacing_mm=(2.0, 1.0, 1.0))
    )

    assert asked == ["kidney", "kidney"]
    np.testing.assert_array_equal(overlapping, mask_of(first))
    assert not missed.any()
    assert round_enough[first.slices].any()
    assert not longer[first.slices].any()


def test_the_surest_find_is_that_with_most_voxels_above_0_in_what_is_sure() -> None:
    small, large = Box((1, 1, 1), (4, 4, 4)), Box((6, 6, 6), (11, 12, 12))
    sure = np.zeros(GRID_SHAPE, np.uint8)
    sure[2:4, 2:4, 2:4] = 1

    kept = tidied(mask_of(small, large), [KeepSurest(at_least=0.8)], frame(sure=sure))

    np.testing.assert_array_equal(kept, mask_of(small))


ALL: list[Clean] = [
    KeepLargest(count=1, per="all"),
    KeepLargest(count=1, per="side"),
    KeepSurest(at_least=0.8),
    DropSmall(min_voxels=30),
    FillHoles(per_slice=False),
    FillHoles(per_slice=True),
    EigenvalueRatio(lowest=1.0, highest=3.0),
    Overlap(of="kidney", at_least=0.5),
]


def test_every_kind_of_clean_up_is_in_the_table() -> None:
    assert {type(item) for item in ALL} == set(CLEAN)


@pytest.mark.parametrize("item", ALL, ids=str)
def test_inputs_are_unchanged(item: Clean) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=GRID_SHAPE), 1) > 0.1
    before = mask.copy()

    result = tidied(mask, [item], frame())

    np.testing.assert_array_equal(mask, before)
    assert not np.shares_memory(result, mask)
    labels = before.astype(np.uint8)
    follow(labels, before, result)
    np.testing.assert_array_equal(mask, before)


def test_labels_lose_what_is_dropped_and_keep_their_names() -> None:
    labels = np.zeros(GRID_SHAPE, np.uint8)
    labels[2:7, 2:7, 2:5], labels[2:7, 2:7, 5:7] = 1, 2
    labels[4, 4, 4] = 0
    labels[10, 14, 18] = 2
    expected = labels.copy()
    expected[4, 4, 4], expected[10, 14, 18] = 3, 0

    tidy_labels(
        labels,
        [FillHoles(per_slice=False), KeepLargest(count=1, per="all")],
        frame=frame(),
        fill=3,
    )

    np.testing.assert_array_equal(labels, expected)
