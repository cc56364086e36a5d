import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import unhurried

from kits_runtime.windows import (
    Join,
    kept_ranges,
    padded,
    padding,
    window_starts,
    window_weights,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's imports warn about their own dependencies
    from monai.data.utils import compute_importance_map, dense_patch_slices


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int]:
    size = draw(st.integers(1, 40))
    stride = draw(st.integers(1, size))
    return draw(st.integers(size, 300)), size, stride


@pytest.mark.parametrize(
    ("length", "starts", "kept"),
    [
        (64, [0], [(0, 64)]),
        (65, [0, 1], [(0, 48), (48, 65)]),
        (95, [0, 31], [(0, 48), (48, 95)]),
        (96, [0, 32], [(0, 48), (48, 96)]),
        (97, [0, 32, 33], [(0, 48), (48, 80), (80, 97)]),
        (128, [0, 32, 64], [(0, 48), (48, 80), (80, 128)]),
        (
            300,
            [0, 32, 64, 96, 128, 160, 192, 224, 236],
            [
                (0, 48),
                (48, 80),
                (80, 112),
                (112, 144),
                (144, 176),
                (176, 208),
                (208, 240),
                (240, 272),
                (272, 300),
            ],
        ),
    ],
)
def test_the_64_32_rule_by_hand(
    length: int, starts: list[int], kept: list[tuple[int, int]]
) -> None:
    assert list(window_starts(length, 64, 32)) == starts
    assert list(kept_ranges(length, 64, 32)) == kept


@pytest.mark.parametrize("length", [128, 300, 301])
def test_inner_windows_of_the_64_32_rule_keep_their_slices_16_to_48(length: int) -> None:
    windows = list(zip(window_starts(length, 64, 32), kept_ranges(length, 64, 32), strict=True))

    for start, (first, last) in windows[1:-1]:
        assert (first - start, last - start) == (16, 48)


@unhurried
@given(axis=axes())
def test_kept_ranges_share_out_the_axis(axis: tuple[int, int, int]) -> None:
    length, size, _ = axis
    starts, kept = window_starts(*axis), kept_ranges(*axis)

    answers = [voxel for first, last in kept for voxel in range(first, last)]

    assert answers == list(range(length))
    for start, (first, last) in zip(starts, kept, strict=True):
        assert start <= first < last <= start + size


@unhurried
@given(axis=axes())
def test_windows_cover_every_voxel_and_stay_inside(axis: tuple[int, int, int]) -> None:
    length, size, stride = axis
    starts = window_starts(*axis)

    covered = {voxel for start in starts for voxel in range(start, start + size)}

    assert covered == set(range(length))
    assert all(0 < b - a <= stride for a, b in itertools.pairwise(starts))


@unhurried
@given(axis=axes())
def test_windows_start_where_those_of_monai_do(axis: tuple[int, int, int]) -> None:
    length, size, stride = axis

    patches = dense_patch_slices((length,), (size,), (stride,), return_slice=True)

    # MONAI may list the last window twice.
    assert list(window_starts(*axis)) == sorted({patch[0].start for patch in patches})


def test_an_axis_shorter_than_the_window_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="an axis of 63 voxels cannot hold a window of 64; pad"):
        window_starts(63, 64, 32)


@pytest.mark.parametrize(
    ("length", "size", "sides"),
    [(64, 64, (0, 0)), (70, 64, (0, 0)), (60, 64, (2, 2)), (59, 64, (2, 3))],
)
def test_padding_sits_around_the_middle(length: int, size: int, sides: tuple[int, int]) -> None:
    assert padding(length, size) == sides


def test_small_volumes_are_padded_with_air_around_the_middle() -> None:
    values = np.arange(1, 13, dtype=np.float32).reshape(2, 1, 6)

    wide, inner = padded(values, (5, 4, 3), air=-7.0)

    assert wide.shape == (5, 4, 6)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide[1:3, 1:2], values)
    np.testing.assert_array_equal(wide[inner], values)
    assert np.count_nonzero(wide == -7) == 5 * 4 * 6 - 12


def test_slices_are_padded_within_their_plane_only() -> None:
    values = np.ones((2, 3, 3), np.float32)

    wide, inner = padded(values, (4, 6), air=0.5)

    assert wide.shape == (2, 4, 6)
    assert inner == (slice(0, 2), slice(0, 3), slice(1, 4))
    assert wide[:, 3].tolist() == [[0.5] * 6] * 2


def test_volumes_that_hold_a_window_are_not_copied() -> None:
    values = np.ones((4, 5, 6), np.float32)

    wide, inner = padded(values, (4, 4, 4), air=0.0)

    assert wide is values
    np.testing.assert_array_equal(wide[inner], values)


@pytest.mark.parametrize("shape", [(8, 8, 8), (32, 64, 64), (5, 7, 3), (1, 4, 9), (64, 48), (9, 9)])
def test_gaussian_weights_are_those_of_monai(shape: tuple[int, ...]) -> None:
    reference = compute_importance_map(shape, mode="gaussian", sigma_scale=0.125)

    weights = window_weights(shape, "gaussian")

    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, reference.numpy(), rtol=2e-6, atol=0)
    assert weights.min() >= np.float32(1e-3)


@pytest.mark.parametrize("join", ["mean", "keep_centre"])
def test_other_windows_count_every_voxel_alike(join: Join) -> None:
    np.testing.assert_array_equal(window_weights((3, 4), join), np.ones((3, 4), np.float32))
