import itertools
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stages import Join, slices, stage, unhurried

from kits_runtime.infer import (
    RunNet,
    Scores,
    Slab,
    WindowedInput,
    combined_scores,
    neighbour_slices,
    slabs,
    votes,
)
from kits_runtime.manifest.schema import Argmax, Patches, Stage, Threshold

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's imports warn about their own dependencies
    from monai.inferers.utils import sliding_window_inference

Array = npt.NDArray[np.float32]
JOINS: list[Join] = ["keep_centre", "mean", "gaussian"]
every_join = pytest.mark.parametrize("join", JOINS)

# Smaller than the window, equal, larger, odd, and mixtures.
SIZES = [(3, 3, 3), (4, 6, 8), (9, 12, 16), (5, 7, 13), (11, 3, 8), (1, 1, 1)]


def values_of(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def patches(shape: tuple[int, int, int], stride: tuple[int, int, int], join: Join) -> Patches:
    return Patches(shape=shape, stride=stride, join=join)


def whole(stream: Iterator[Slab], depth: int, classes: int, plane: tuple[int, int]) -> Array:
    """All slabs behind each other, NaN where one is None; they must add up to the depth."""
    scores = np.full((classes, depth, *plane), np.nan, np.float32)
    z = 0
    for slab in stream:
        assert slab.depth > 0
        if slab.scores is not None:
            assert slab.scores.dtype == np.float32
            assert slab.scores.shape == (classes, slab.depth, *plane)
            scores[:, z : z + slab.depth] = slab.scores
        z += slab.depth
    assert z == depth
    return scores


def run(values: Array, asked: Stage, *nets: RunNet, air: float = 0.0, **given: Any) -> Array:
    depth, height, width = values.shape
    stream = slabs(WindowedInput(values=values, air=air, **given), asked, nets)
    return whole(stream, depth, len(asked.decide.labels), (height, width))


def constant_net(*scores: float) -> RunNet:
    def net(taken: Array) -> Scores:
        columns = np.array(scores, np.float32).reshape(1, -1, *[1] * (taken.ndim - 2))
        return np.broadcast_to(columns, (len(taken), len(scores), *taken.shape[2:])).copy()

    return net


def middle_and_negative(taken: Array) -> Scores:
    """The middle channel and its negative, as two classes."""
    middle = taken[:, taken.shape[1] // 2]
    return np.stack([middle, -middle], axis=1)


@every_join
@pytest.mark.parametrize("shape", SIZES)
def test_blending_a_constant_returns_it_everywhere_in_3d(
    shape: tuple[int, int, int], join: Join
) -> None:
    asked = stage(windows=patches((4, 6, 8), (2, 4, 2), join))

    scores = run(values_of(shape), asked, constant_net(0.3, 0.7))

    np.testing.assert_allclose(scores[0], 0.3, rtol=1e-6)
    np.testing.assert_allclose(scores[1], 0.7, rtol=1e-6)


@every_join
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("depth", [1, 5])
def test_blending_a_constant_returns_it_everywhere_in_slices(
    shape: tuple[int, int, int], join: Join, depth: int
) -> None:
    windows = slices((6, 8), stride=(4, 2), join=join, depth=depth)

    scores = run(values_of(shape), stage(windows=windows), constant_net(0.3, 0.7))

    np.testing.assert_allclose(scores[0], 0.3, rtol=1e-6)
    np.testing.assert_allclose(scores[1], 0.7, rtol=1e-6)


@every_join
@pytest.mark.parametrize("shape", SIZES)
def test_a_net_that_looks_at_one_voxel_does_not_notice_the_windows(
    shape: tuple[int, int, int], join: Join
) -> None:
    values = values_of(shape)

    in_patches = run(
        values, stage(windows=patches((4, 6, 8), (2, 4, 2), join)), middle_and_negative
    )
    in_slices = run(
        values,
        stage(windows=slices((6, 8), stride=(4, 2), join=join, depth=3)),
        middle_and_negative,
    )

    for scores in (in_patches, in_slices):
        np.testing.assert_allclose(scores, [values, -values], rtol=1e-6, atol=1e-7)


def torch_net(dimensions: int, channels: int = 1) -> torch.nn.Module:
    """A net of random weights that sees beyond single voxels and feels its window's border."""
    torch.manual_seed(dimensions)
    conv = torch.nn.Conv3d if dimensions == 3 else torch.nn.Conv2d
    return torch.nn.Sequential(
        conv(channels, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 2, 3, padding=1)
    ).eval()


def numpy_net(module: torch.nn.Module) -> RunNet:
    def net(taken: Array) -> Scores:
        with torch.inference_mode():
            scores: Scores = module(torch.from_numpy(taken)).numpy()
        return scores

    return net


def by_monai(
    values: Array, module: torch.nn.Module, size: tuple[int, ...], overlap: float, join: Join
) -> Array:
    mode = {"mean": "constant", "gaussian": "gaussian"}[join]
    # MONAI pads with a constant of its choice around the middle, as ours does with air.
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = sliding_window_inference(
            torch.from_numpy(values)[None, None],
            size,
            3,
            module,
            overlap=overlap,
            mode=mode,
            cval=-2.0,
        )
    assert isinstance(result, torch.Tensor)
    scores: Array = result[0].numpy()
    return scores


@pytest.mark.parametrize("join", ["mean", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(19, 23, 17), (8, 12, 16), (5, 31, 9), (24, 24, 32)])
def test_patches_give_what_monai_s_sliding_window_gives(
    shape: tuple[int, int, int], overlap: float, join: Join
) -> None:
    size = (8, 12, 16)
    stride = (int(8 * (1 - overlap)), int(12 * (1 - overlap)), int(16 * (1 - overlap)))
    values, module = values_of(shape), torch_net(3)

    scores = run(values, stage(windows=patches(size, stride, join)), numpy_net(module), air=-2.0)

    reference = by_monai(values, module, size, overlap, join)
    np.testing.assert_allclose(scores, reference, rtol=0, atol=1e-5)


@every_join
def test_windows_asked_for_at_once_give_the_scores_of_one_by_one(join: Join) -> None:
    values, own = values_of((11, 13, 17)), stage(windows=patches((4, 6, 8), (2, 4, 6), join))
    begun = itertools.count()

    def slow_at_times(taken: Array) -> Scores:
        time.sleep(0.002 * (next(begun) % 3))
        return np.concatenate([taken, np.sin(taken), taken**2], axis=1)

    given = WindowedInput(values=values, air=0.0)
    expected, found = (
        whole(slabs(replace(given, at_once=n), own, [slow_at_times]), 11, 3, (13, 17))
        for n in (1, 3)
    )

    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("join", ["mean", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("plane", [(23, 17), (12, 16), (9, 31)])
def test_slices_give_what_monai_s_sliding_window_gives_plane_by_plane(
    plane: tuple[int, int], overlap: float, join: Join
) -> None:
    stride = (int(12 * (1 - overlap)), int(16 * (1 - overlap)))
    values, module = values_of((11, *plane)), torch_net(2)

    scores = run(
        values,
        stage(windows=slices((12, 16), stride=stride, join=join)),
        numpy_net(module),
        air=-2.0,
    )

    for z, own in enumerate(values):
        reference = by_monai(own, module, (12, 16), overlap, join)
        np.testing.assert_allclose(scores[:, z], reference, rtol=0, atol=1e-5)


@unhurried
@given(
    depth=st.integers(1, 40),
    size=st.integers(1, 12),
    stride=st.integers(1, 12),
    join=st.sampled_from(JOINS),
)
def test_slabs_cover_each_slice_once_and_in_order(
    depth: int, size: int, stride: int, join: Join
) -> None:
    stride = min(stride, size)
    values = np.broadcast_to(np.arange(depth, dtype=np.float32)[:, None, None], (depth, 3, 3))

    scores = run(
        np.ascontiguousarray(values),
        stage(windows=patches((size, 3, 3), (stride, 3, 3), join)),
        middle_and_negative,
    )

    np.testing.assert_allclose(scores[0], values, rtol=1e-6)


def test_keep_centre_takes_each_slice_from_the_window_that_answers_for_it() -> None:
    depth = 97
    values = np.zeros((depth, 2, 2), np.float32)
    calls = itertools.count()

    def number_of_the_call(taken: Array) -> Scores:
        number = np.full((1, 1, *taken.shape[2:]), next(calls), np.float32)
        return np.concatenate([number, np.zeros_like(number)], axis=1)

    scores = run(
        values,
        stage(windows=patches((64, 2, 2), (32, 2, 2), "keep_centre")),
        number_of_the_call,
    )

    assert scores[0, :, 0, 0].tolist() == [0.0] * 48 + [1.0] * 32 + [2.0] * 17


def test_small_volumes_reach_the_net_padded_with_air() -> None:
    seen: list[Array] = []

    def net(taken: Array) -> Scores:
        seen.append(taken.copy())
        return middle_and_negative(taken)

    run(
        np.ones((2, 3, 4), np.float32),
        stage(windows=patches((4, 4, 4), (4, 4, 4), "mean")),
        net,
        air=-0.25,
    )

    (patch,) = seen
    expected = np.full((1, 1, 4, 4, 4), -0.25, np.float32)
    expected[0, 0, 1:3, 0:3, :] = 1
    np.testing.assert_array_equal(patch, expected)


def test_neighbours_of_the_volume_by_hand() -> None:
    kept = np.array([0, 1, 0, 0, 1, 1, 0], np.bool_)

    rows = neighbour_slices(kept, slices((2, 2), depth=5, neighbours="volume"))

    assert rows[1].tolist() == [0, 0, 1, 2, 3]
    assert rows[4].tolist() == [2, 3, 4, 5, 6]
    assert rows[5].tolist() == [3, 4, 5, 6, 6]


def test_neighbours_of_the_kept_slices_by_hand() -> None:
    kept = np.array([0, 1, 0, 0, 1, 1, 0, 1], np.bool_)

    rows = neighbour_slices(kept, slices((2, 2), depth=5, neighbours="kept"))

    assert rows[1].tolist() == [1, 1, 1, 4, 5]
    assert rows[4].tolist() == [1, 1, 4, 5, 7]
    assert rows[5].tolist() == [1, 4, 5, 7, 7]
    assert rows[7].tolist() == [4, 5, 7, 7, 7]


def test_no_slice_kept_means_no_slice_asked() -> None:
    values = values_of((5, 2, 2))
    windows = slices((2, 2), only="other", neighbours="kept", depth=3)

    def net(_taken: Array) -> Scores:
        raise AssertionError("nobody asked")

    scores = run(values, stage(windows=windows), net, kept=np.zeros(5, np.bool_))

    assert np.isnan(scores).all()


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [("kept", [[1, 1, 4], [1, 4, 5], [4, 5, 5]]), ("volume", [[0, 1, 2], [3, 4, 5], [4, 5, 6]])],
)
def test_windows_of_slices_reach_the_net_with_their_neighbours(
    neighbours: str, expected: list[list[int]]
) -> None:
    values = np.arange(7, dtype=np.float32).reshape(7, 1, 1) * np.ones((1, 2, 3), np.float32)
    kept = np.array([0, 1, 0, 0, 1, 1, 0], np.bool_)
    seen: list[Array] = []

    def net(taken: Array) -> Scores:
        seen.append(taken[:, :, 0, 0].copy())
        return middle_and_negative(taken)

    windows = slices((2, 3), depth=3, neighbours=neighbours, only="other")
    scores = run(values, stage(windows=windows), net, kept=kept)

    assert np.concatenate(seen).tolist() == expected
    assert np.isnan(scores[0, ~kept]).all()
    np.testing.assert_array_equal(scores[0, kept], values[kept])


@unhurried
@given(kept=st.lists(st.booleans(), min_size=1, max_size=40))
def test_only_kept_slices_have_scores(kept: list[bool]) -> None:
    mask = np.array(kept)
    values = values_of((len(kept), 2, 3))
    windows = slices((2, 3), only="other")

    scores = run(values, stage(windows=windows), middle_and_negative, kept=mask)

    np.testing.assert_array_equal(scores[0, mask], values[mask])
    assert np.isnan(scores[:, ~mask]).all()


def test_scores_of_several_nets_are_averaged_by_hand() -> None:
    answers = [np.array([[[1.0], [0.0]]]), np.array([[[0.5], [0.5]]]), np.array([[[0.0], [0.4]]])]

    mean = combined_scores([a.astype(np.float32) for a in answers], stage(combine="mean"))

    np.testing.assert_allclose(mean, [[[0.5], [0.3]]], rtol=1e-6)


def test_several_nets_vote_by_hand() -> None:
    # Three voxels: nets say (1, 0, tie), (1, 1, 0), (0, 1, 1); a tie is background.
    answers = [
        np.array([[[0.2, 0.6, 0.5], [0.8, 0.4, 0.5]]], np.float32),
        np.array([[[0.1, 0.3, 0.9], [0.9, 0.7, 0.1]]], np.float32),
        np.array([[[0.7, 0.0, 0.0], [0.3, 1.0, 1.0]]], np.float32),
    ]

    share = combined_scores(answers, stage(combine="vote", decide=Argmax(labels=(0, 1))))

    np.testing.assert_allclose(share[0, 1], [2 / 3, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(share[0, 0], [1 / 3, 1 / 3, 2 / 3], rtol=1e-6)


def test_votes_of_a_threshold_are_given_for_each_channel() -> None:
    scores = np.array([[[0.5, 0.49], [0.9, 0.1]]], np.float32)

    given = votes(scores, Threshold(at_least=0.5, labels=(1, 2)))

    assert given.tolist() == [[[1, 0], [1, 0]]]


def test_nets_that_reuse_their_buffers_are_combined_all_the_same() -> None:
    values = values_of((9, 5, 5))

    def reusing(factor: float) -> RunNet:
        buffer = np.empty((8, 2, 5, 5), np.float32)

        def net(taken: Array) -> Scores:
            np.multiply(
                taken, np.float32([factor, -factor])[:, None, None], out=buffer[: len(taken)]
            )
            return buffer[: len(taken)]

        return net

    scores = run(values, stage(windows=slices((5, 5))), reusing(1.0), reusing(3.0))

    np.testing.assert_allclose(scores, [2 * values, -2 * values], rtol=1e-6)


@pytest.mark.parametrize(
    "windows",
    [
        patches((8, 16, 16), (4, 8, 8), "keep_centre"),
        patches((8, 16, 16), (4, 8, 8), "mean"),
        patches((8, 16, 16), (4, 8, 8), "gaussian"),
        slices((16, 16), stride=(8, 8), depth=3),
    ],
    ids=["keep_centre", "mean", "gaussian", "slices"],
)
def test_memory_does_not_grow_with_the_number_of_slices(windows: Any) -> None:
    def peak_bytes(depth: int) -> int:
        values = values_of((depth, 24, 24))
        given = WindowedInput(values=values, air=0.0)
        tracemalloc.start()
        for _slab in slabs(given, stage(windows=windows), [middle_and_negative]):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    short, long = peak_bytes(24), peak_bytes(240)

    scores_of_all_slices = 2 * 240 * 24 * 24 * 4
    assert long < 1.1 * short + 20_000
    assert long < scores_of_all_slices / 3


def test_the_values_are_not_changed() -> None:
    values = values_of((9, 7, 5))
    before = values.copy()

    for windows in (patches((4, 4, 4), (2, 2, 2), "gaussian"), slices((4, 4), depth=3)):
        run(values, stage(windows=windows), middle_and_negative)

    np.testing.assert_array_equal(values, before)
