import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from stages import unhurried

from kits_runtime import resample
from kits_runtime.grid import Box, Grid, box_of, linear_taps
from kits_runtime.resample import (
    interpolate,
    nearest_index,
    resample_linear,
    resample_nearest,
    without_unread,
)
from kits_runtime.volume import Voxels

Shape = tuple[int, int, int]
sizes = st.integers(1, 17)
shapes = st.tuples(sizes, sizes, sizes)

# A scan's shape and the grid's: coarser, finer, both, as it is, and down to one voxel.
RATIOS: list[tuple[Shape, Shape]] = [
    ((13, 20, 18), (7, 11, 9)),
    ((7, 9, 11), (13, 30, 12)),
    ((9, 12, 10), (18, 5, 10)),
    ((6, 8, 10), (6, 8, 10)),
    ((9, 8, 7), (1, 1, 3)),
]


def scan_of(shape: Shape, dtype: Any = np.int16, seed: int = 0) -> Voxels:
    values = np.random.default_rng(seed).normal(0, 400, shape)
    voxels: Voxels = values.astype(dtype)
    return voxels


def linear(source: Voxels, grid: Grid, box: Box | None = None) -> npt.NDArray[np.float32]:
    box = box or box_of(grid.shape)
    z, y, x = (grid.taps(axis, box) for axis in range(3))
    return resample_linear(source, (z, y, x))


def grid_between(target: Shape, source: Shape) -> Grid:
    return Grid(target, source, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_linear_values_are_those_of_scipy(source: Shape, target: Shape, dtype: Any) -> None:
    scan = scan_of(source, dtype)
    places = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(target, source, strict=True)]

    values = linear(scan, grid_between(target, source))

    reference = ndimage.map_coordinates(
        scan.astype(np.float64), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, reference, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_linear_values_are_those_of_torch(source: Shape, target: Shape) -> None:
    scan = scan_of(source)

    values = linear(scan, grid_between(target, source))

    batch = torch.from_numpy(scan.astype(np.float64))[None, None]
    reference = torch.nn.functional.interpolate(
        batch, target, mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(values, reference[0, 0].numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_a_box_has_the_values_that_the_whole_grid_has_there(source: Shape, target: Shape) -> None:
    scan, grid = scan_of(source), grid_between(target, source)
    whole = linear(scan, grid)
    box = Box((0, 0, 1), (target[0], max(1, target[1] // 2), target[2] - 1))

    part = grid.source_box(box)
    taps = [grid.taps(axis, box).counted_from(part.start[axis]) for axis in range(3)]
    values = resample_linear(scan[part.slices], (taps[0], taps[1], taps[2]))

    np.testing.assert_array_equal(values, whole[box.slices], strict=True)


def arrangements(array: Voxels) -> list[Voxels]:
    """The same values on the same axes, laid out in memory in each of the 48 ways."""
    views = []
    for order in itertools.permutations(range(3)):
        for flips in itertools.product([1, -1], repeat=3):
            steps = tuple(slice(None, None, flip) for flip in flips)
            stored = np.ascontiguousarray(array[steps].transpose(order))
            views.append(stored.transpose(np.argsort(order))[steps])
    return views


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_all_48_arrangements_have_the_same_values_bit_by_bit(
    source: Shape, target: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resample, "_PIECE_VOXELS", 300)
    scan, grid = scan_of(source), grid_between(target, source)
    expected = linear(scan, grid)

    views = arrangements(scan)

    assert len({view.strides for view in views}) == 48
    for view in views:
        np.testing.assert_array_equal(linear(view, grid), expected, strict=True)


@pytest.mark.parametrize("piece_voxels", [1, 150, 1000])
@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_borders_of_pieces_do_not_show(
    source: Shape, target: Shape, piece_voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, grid = scan_of(source), grid_between(target, source)
    in_one = linear(scan, grid)

    monkeypatch.setattr(resample, "_PIECE_VOXELS", piece_voxels)

    np.testing.assert_array_equal(linear(scan, grid), in_one, strict=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_threads_are_used_than_asked_for_and_values_stay_the_same(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = grid_between((15, 5, 6), (20, 9, 8))
    source, taps = scan_of((20, 9, 8)), [grid.taps(axis, box_of(grid.shape)) for axis in range(3)]
    expected, asked = linear(source, grid), []

    def pool(max_workers: int) -> ThreadPoolExecutor:
        asked.append(max_workers)
        return ThreadPoolExecutor(max_workers)

    monkeypatch.setattr(resample, "ThreadPoolExecutor", pool)
    found = resample_linear(source, (taps[0], taps[1], taps[2]), threads=threads)
    np.testing.assert_array_equal(found, expected)
    assert asked == [threads]


@unhurried
@given(source=shapes, target=shapes)
def test_a_constant_stays_constant(source: Shape, target: Shape) -> None:
    scan = np.full(source, -123, np.int16)

    np.testing.assert_array_equal(linear(scan, grid_between(target, source)), np.float32(-123))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_nothing_changes_on_the_scan_s_own_grid(dtype: Any) -> None:
    scan = scan_of((5, 6, 7), dtype)

    values = linear(scan, grid_between((5, 6, 7), (5, 6, 7)))

    np.testing.assert_array_equal(values, scan.astype(np.float32), strict=True)
    assert not np.shares_memory(values, scan)


@unhurried
@given(source=sizes, target=sizes, seed=st.integers(0, 99))
def test_leaving_out_voxels_that_no_tap_reads_changes_nothing(
    source: int, target: int, seed: int
) -> None:
    scan = scan_of((3, source, 4), np.float32, seed)
    taps = linear_taps(target, source, start=0, stop=target, first=0, last=source - 1)

    thin, own = without_unread(scan, 1, taps)

    read = len({*taps.lower.tolist(), *taps.upper.tolist()})
    assert thin.shape[1] in (read, source)
    assert thin.shape[1] == read or 2 * read > source
    np.testing.assert_array_equal(
        interpolate(thin, 1, own),  # type: ignore[arg-type]
        interpolate(scan, 1, taps),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("source", "target"), RATIOS)
def test_nearest_values_are_those_of_torch(source: Shape, target: Shape) -> None:
    scan, grid = scan_of(source), grid_between(target, source)

    values = resample_nearest(scan, grid, box_of(target), first=(0, 0, 0))

    batch = torch.from_numpy(scan.astype(np.float32))[None, None]
    reference = torch.nn.functional.interpolate(batch, target, mode="nearest-exact")
    np.testing.assert_array_equal(values, reference[0, 0].numpy(), strict=True)


@unhurried
@given(source=shapes, target=shapes, start=st.tuples(sizes, sizes, sizes))
def test_nearest_values_of_a_box_need_only_its_source_box(
    source: Shape, target: Shape, start: Shape
) -> None:
    scan, grid = scan_of(source), grid_between(target, source)
    z, y, x = (min(a, n) - 1 for a, n in zip(start, target, strict=True))
    box = Box((z, y, x), target)
    part = grid.source_box(box)

    values = resample_nearest(scan[part.slices], grid, box, first=part.start)

    index = nearest_index(grid.shape, grid.scan_shape, box)
    np.testing.assert_array_equal(values, scan[index].astype(np.float32))


@pytest.mark.parametrize("kind", ["linear", "nearest"])
def test_the_scan_is_not_changed(kind: Literal["linear", "nearest"]) -> None:
    scan, grid = scan_of((5, 6, 7), np.float32), grid_between((5, 9, 4), (5, 6, 7))
    before = scan.copy()

    if kind == "linear":
        linear(scan, grid).fill(0)
    else:
        resample_nearest(scan, grid, box_of(grid.shape), first=(0, 0, 0)).fill(0)

    np.testing.assert_array_equal(scan, before)
