"""The kernels' sources, compiled for the processor, and their twins, against the host's steps."""

import ctypes
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compiled_kernels import compiled_launch, compiler
from device_arrays import get, put, strict_arrays
from hypothesis import given
from hypothesis import strategies as st
from stages import unhurried

from kits_runtime.arrays import Arrays
from kits_runtime.decide import labels_from_scores
from kits_runtime.errors import BackendUnavailableError
from kits_runtime.grid import Grid, Taps, box_of, grid_over, linear_taps
from kits_runtime.kernels.calls import (
    Answer,
    Planes,
    blend_into,
    gathered,
    labelled,
    resampled,
)
from kits_runtime.kernels.launching import THREADS, blocks_for, cupy_launch
from kits_runtime.kernels.sources import KERNELS, OPTIONS, source
from kits_runtime.kernels.twins import TWINS, launch_twin
from kits_runtime.manifest.schema import Argmax, Decide, Resample, Threshold
from kits_runtime.resample import interpolate, resample_linear

Floats = npt.NDArray[np.float32]
lengths = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**32 - 1)

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture(
    scope="module",
    params=[
        "twin",
        pytest.param((1, 1), marks=needs_compiler),
        pytest.param((3, 5), marks=needs_compiler),
    ],
)
def arrays(request: pytest.FixtureRequest) -> Arrays:
    """Arrays on a device whose kernels are twins, or the sources in so many blocks and threads."""
    if request.param == "twin":
        return strict_arrays()
    return strict_arrays(launch=compiled_launch(*request.param))


def taps_of(grid: Grid) -> list[Taps]:
    return [grid.taps(axis, box_of(grid.shape)) for axis in range(3)]


@unhurried
@given(
    scan=lengths,
    model=lengths,
    seed=seeds,
    order=st.permutations(range(3)),
    backwards=st.sampled_from([1, -1]),
    dtype=st.sampled_from([np.int16, np.float32]),
)
def test_a_scan_in_any_arrangement_is_resampled_as_on_the_host(
    arrays: Arrays,
    scan: tuple[int, int, int],
    model: tuple[int, int, int],
    seed: int,
    order: list[int],
    backwards: int,
    dtype: type,
) -> None:
    rng = np.random.default_rng(seed)
    stored = rng.integers(-1000, 1000, [scan[axis] for axis in order]).astype(dtype)
    if dtype is np.float32:
        stored *= np.float32(0.37)
    data = stored.transpose(np.argsort(order))[::backwards]
    step = Resample(spacing_mm=(None, None, None), size_vox=model, interpolation="linear")
    z, y, x = taps_of(grid_over(data.shape, (1.0, 1.0, 1.0), step))

    device = put(stored).transpose(*np.argsort(order))[::backwards]
    plain = resampled(device, (z, y, x), [], arrays)
    maps = [(-150.0, 250.0, -150.0, 1 / 400, 0.0), (-np.inf, np.inf, 0.3, 1.7, -0.1)]
    mapped = resampled(device, (z, y, x), maps, arrays)

    expected = resample_linear(data, (z, y, x))
    np.testing.assert_array_equal(get(plain), expected)
    for low, high, origin, gain, offset in maps:
        np.clip(expected, np.float32(low), np.float32(high), out=expected)
        expected -= np.float32(origin)
        expected *= np.float32(gain)
        expected += np.float32(offset)
    np.testing.assert_array_equal(get(mapped), expected)


def test_resampling_by_hand(arrays: Arrays) -> None:
    data = np.array([[[0, 100]], [[200, 300]]], np.int16)
    middle = Taps(np.array([0]), np.array([1]), np.array([0.5], np.float32))
    first = Taps(np.array([0]), np.array([0]), np.array([0], np.float32))
    found = resampled(put(data), (middle, first, middle), [(0, 120, 20, 0.01, 3)], arrays)
    np.testing.assert_array_equal(get(found), np.float32([[[4.0]]]))


@unhurried
@given(
    values=lengths,
    window=lengths,
    windows=st.integers(1, 4),
    channels=st.integers(1, 3),
    seed=seeds,
)
def test_windows_are_cut_where_they_begin(
    arrays: Arrays,
    values: tuple[int, int, int],
    window: tuple[int, int, int],
    windows: int,
    channels: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    depth, height, width = np.minimum(values, window).tolist()
    region = rng.random(values, np.float32)
    rows = rng.integers(0, values[0] - depth + 1, (windows, channels))
    starts = [
        (int(rng.integers(values[1] - height + 1)), int(rng.integers(values[2] - width + 1)))
        for _ in range(windows)
    ]
    found = get(gathered(put(region), rows, starts, (depth, height, width), arrays))
    expected = [
        [region[z : z + depth, y : y + height, x : x + width] for z in own]
        for own, (y, x) in zip(rows, starts, strict=True)
    ]
    np.testing.assert_array_equal(found, np.array(expected))


@unhurried
@given(
    plane=lengths,
    window=lengths,
    windows=st.integers(1, 4),
    classes=st.integers(1, 3),
    seed=seeds,
)
def test_scores_are_laid_over_each_other_window_by_window(
    arrays: Arrays,
    plane: tuple[int, int, int],
    window: tuple[int, int, int],
    windows: int,
    classes: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    depth, height, width = window[0], min(window[1], plane[1]), min(window[2], plane[2])
    rows = min(depth, plane[0])
    z_from = int(rng.integers(depth - rows + 1))
    sums = rng.random((classes, rows, *plane[1:]), np.float32)
    counts = rng.random((rows, *plane[1:]), np.float32)
    scores = rng.standard_normal((windows, classes, depth, height, width)).astype(np.float32)
    weights = rng.random((depth, height, width), np.float32)
    answers = []
    for _ in range(windows):
        y, x = int(rng.integers(plane[1] - height + 1)), int(rng.integers(plane[2] - width + 1))
        ends = [sorted(rng.integers(0, n + 1, 2).tolist()) for n in (height, width)]
        ranges = [(a + first, b + first) for (a, b), first in zip(ends, (y, x), strict=True)]
        answers.append(Answer(start=(y, x), y=ranges[0], x=ranges[1]))
    found_sums, found_counts = put(sums), put(counts)

    blend_into(
        found_sums, found_counts, put(scores), put(weights), answers, z_from=z_from, arrays=arrays
    )

    for own, answer in zip(scores, answers, strict=True):
        for y in range(*answer.y):
            for x in range(*answer.x):
                at = (slice(z_from, z_from + rows), y - answer.start[0], x - answer.start[1])
                sums[:, :, y, x] += own[(slice(None), *at)] * weights[at]
                counts[:, y, x] += weights[at]
    np.testing.assert_array_equal(get(found_sums), sums)
    np.testing.assert_array_equal(get(found_counts), counts)


@unhurried
@given(
    model=lengths,
    scan=lengths,
    seed=seeds,
    decide=st.sampled_from(
        [
            Argmax(labels=(0, 2, 1)),
            Threshold(at_least=0.4, labels=(1, 2)),
            Threshold(at_least=-0.1, labels=(3,)),
        ]
    ),
    arrangement=st.permutations(range(4)),
)
def test_labels_are_those_of_interpolated_scores(
    arrays: Arrays,
    model: tuple[int, int, int],
    scan: tuple[int, int, int],
    seed: int,
    decide: Decide,
    arrangement: list[int],
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((len(decide.labels), model[0] + 1, *model[1:])).astype(np.float32)
    below = linear_taps(scan[0], model[0] + 1, start=0, stop=scan[0], first=0, last=model[0])
    plane = zip(scan[1:], model[1:], strict=True)
    within = [linear_taps(n, m, start=0, stop=n, first=0, last=m - 1) for n, m in plane]
    taps = [below, *within]
    slab = np.ascontiguousarray(scores[:, 1:].transpose(arrangement))
    planes = Planes(
        scores=put(slab).transpose(*np.argsort(arrangement)),
        before=put(scores[:, 0].transpose(0, 2, 1).copy()).transpose(0, 2, 1),
    )
    found = get(labelled(planes, [below.counted_from(1), *taps[1:]], decide, arrays))

    expected = scores
    for axis, own in enumerate(taps, start=1):
        expected = interpolate(expected, axis, own)
    np.testing.assert_array_equal(found, labels_from_scores(expected, decide))


def test_one_score_a_class_stands_for_a_whole_slab(arrays: Arrays) -> None:
    decide = Argmax(labels=(0, 1))
    background = np.array([1, 0], np.float32)
    before = np.array([[[0, 0, 4]], [[8, 8, 4]]], np.float32)  # foreground, foreground, a tie
    planes = Planes(scores=put(background.reshape(2, 1, 1, 1)), before=put(before))
    along_z = Taps(np.array([-1, -1, 0]), np.array([-1, 0, 0]), np.float32([0, 0.75, 0]))
    along_x = Taps(np.array([0, 1, 2]), np.array([0, 1, 2]), np.zeros(3, np.float32))
    only = Taps(np.array([0]), np.array([0]), np.zeros(1, np.float32))
    found = get(labelled(planes, [along_z, only, along_x], decide, arrays))
    # A quarter of 8 beats three quarters of 1; a quarter of 4 against 1.75 does not.
    np.testing.assert_array_equal(found[:, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


def test_nothing_is_started_for_no_voxels(arrays: Arrays) -> None:
    none = Taps(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32))
    data = put(np.ones((2, 2, 2), np.int16))
    assert get(resampled(data, (none, none, none), [], arrays)).shape == (0, 0, 0)


def test_every_kernel_of_the_sources_has_a_twin() -> None:
    text = source()
    named = set(re.findall(r"^RESAMPLE\((\w+),", text, re.MULTILINE))
    named |= set(re.findall(r'^extern "C" __global__ void (\w+)\(', text, re.MULTILINE))
    assert named == set(TWINS) == set(KERNELS)


def test_blocks_cover_all_items_and_stay_few() -> None:
    assert [blocks_for(n) for n in (0, 1, THREADS, THREADS + 1)] == [1, 1, 1, 2]
    assert blocks_for(2**40) == blocks_for(2**50) <= 2**31 - 1


def test_cupy_is_given_source_options_and_geometry() -> None:
    seen: list[Any] = []

    class Cupy:
        @staticmethod
        def RawModule(**settings: Any) -> Any:  # noqa: N802
            seen.append(settings)

            class Module:
                @staticmethod
                def get_function(name: str) -> Callable[..., None]:
                    return lambda *call: seen.append((name, call))

            return Module

    cupy_launch(Cupy)("gather", 3 * THREADS - 1, np.int32(7))
    assert seen == [
        {"code": source(), "options": OPTIONS},
        ("gather", ((3,), (THREADS,), (np.int32(7),))),
    ]
    assert "--fmad=false" in OPTIONS


def test_a_cupy_that_cannot_compile_is_said_with_what_to_do() -> None:
    class Cupy:
        @staticmethod
        def RawModule(**_settings: Any) -> Any:  # noqa: N802
            raise RuntimeError("failed to load\nlibnvrtc.so")

    with pytest.raises(
        BackendUnavailableError, match=r"\(failed to load libnvrtc.so\), exp"
    ) as said:
        cupy_launch(Cupy)
    assert "nvidia-cuda-nvrtc" in str(said.value)
    assert said.value.exit_code == 5


def nvrtc() -> Path | None:
    """NVIDIA's compiler, where a package brings it; it needs no GPU."""
    found = importlib.util.find_spec("nvidia")
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            return path
    return None


@pytest.mark.skipif(nvrtc() is None, reason="no package brings NVRTC")
@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
def test_nvidias_compiler_takes_the_sources(architecture: str) -> None:
    library, program = ctypes.CDLL(str(nvrtc())), ctypes.c_void_p()
    text = source().encode()
    made = library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    assert made == 0
    options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
    status = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    assert (status, log.value) == (0, b"")


def test_a_twin_is_not_started_for_nothing() -> None:
    launch_twin("gather", 0)
