"""A region prepared a few slices at a time has the values of one that is prepared whole."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from device_arrays import get, put, strict_arrays
from hypothesis import given
from hypothesis import strategies as st
from stages import native_grid, outcome, stage, unhurried, volume

from kits_runtime.device.region import device_region
from kits_runtime.grid import Box, Grid, box_of, grid_over
from kits_runtime.manifest.schema import (
    CentreInMask,
    Clip,
    ClipMeanSigma,
    DimOutsideMask,
    MultiplyByMask,
    Resample,
    Scale,
    Step,
    ZScore,
)
from kits_runtime.outcome import Outcome
from kits_runtime.steps import prepared_region

lengths = st.tuples(*[st.integers(2, 9)] * 3)
value_steps = st.sampled_from(
    [
        Clip(lower_hu=-200.5, upper_hu=300.1),
        Scale(source=(-180.0, 300.0), target=(0.1, 1.3)),
        ZScore(mean=12.5, std=99.1),
        ZScore(mean=None, std=None),
        ClipMeanSigma(sigma=0.7, target=(-1.0, 1.0)),
        MultiplyByMask(of="earlier"),
        DimOutsideMask(of="earlier", within_mm=1.5, share=0.3),
        CentreInMask(of="earlier", target_hu=45.0),
    ]
)


def resample(model: tuple[int, int, int], interpolation: Any) -> Resample:
    return Resample(spacing_mm=(None, None, None), size_vox=model, interpolation=interpolation)


def earlier(data: npt.NDArray[Any]) -> Outcome:
    return outcome(data > 0, on_scan=(data > 0).astype(np.uint8))


@unhurried
@given(
    scan=lengths,
    model=st.none() | lengths,
    interpolation=st.sampled_from(["linear", "nearest"]),
    before=st.lists(value_steps, max_size=2),
    after=st.lists(value_steps, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    scan_rows=st.integers(4, 12),
    as_float=st.booleans(),
)
def test_any_steps_give_the_host_s_values(
    scan: tuple[int, int, int],
    model: tuple[int, int, int] | None,
    interpolation: str,
    before: list[Step],
    after: list[Step],
    seed: int,
    scan_rows: int,
    as_float: bool,
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(-1000, 1000, scan).astype(np.float32 if as_float else np.int16)
    made, step = volume(data), None
    if model is not None:
        step = resample(model, interpolation)
    steps = (*before, *([] if step is None else [step]), *after)
    grid = grid_over(scan, made.spacing_mm, step)
    ends = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in grid.shape]
    (z, z_end), (y, y_end), (x, x_end) = ends
    box, outcomes = Box((z, y, x), (z_end, y_end, x_end)), {"earlier": earlier(data)}

    host = prepared_region(made, grid, box, steps=steps, outcomes=outcomes)
    there = put(made.data)
    region = device_region(
        stage(steps=steps),
        (grid, box),
        outcomes=outcomes,
        scan=lambda part: there[part.slices],
        scan_rows=scan_rows,
        arrays=strict_arrays(),
    )

    assert region.shape == box.shape
    assert region.air == pytest.approx(host.air, rel=1e-12, abs=1e-12)
    np.testing.assert_array_equal(get(region.between(0, box.shape[0])), host.values)
    first, last = box.shape[0] // 3, box.shape[0]
    np.testing.assert_array_equal(get(region.between(first, last)), host.values[first:last])


def test_no_more_of_the_scan_is_asked_for_at_once_than_was_said() -> None:
    data = np.arange(40 * 4).reshape(40, 2, 2).astype(np.int16)
    step = resample((10, 2, 2), "linear")
    grid = grid_over((40, 2, 2), (1.0, 1.0, 1.0), step)
    asked: list[Box] = []

    def scan(part: Box) -> Any:
        asked.append(part)
        return put(data[part.slices])

    region = device_region(
        stage(steps=(step,)),
        (grid, box_of(grid.shape)),
        outcomes={},
        scan=scan,
        scan_rows=14,
        arrays=strict_arrays(),
    )
    values = get(region.between(0, 10))
    # A grid slice lies halfway between scan slices 4 p + 1 and 4 p + 2, three of them make a part.
    np.testing.assert_array_equal(values[:, 0, 0], 4 * (4 * np.arange(10) + 1.5))
    assert [part.start[0] for part in asked] == [1, 13, 25, 37]
    assert max(part.shape[0] for part in asked) == 10


def test_a_scan_of_one_value_has_a_deviation_of_one() -> None:
    data = np.full((3, 4, 5), 7, np.int16)
    there, grid = put(data), native_grid((3, 4, 5))
    region = device_region(
        stage(steps=(ZScore(mean=None, std=None),)),
        (Grid(grid.shape, grid.shape, grid.spacing_mm), box_of(grid.shape)),
        outcomes={},
        scan=lambda part: there[part.slices],
        scan_rows=4,
        arrays=strict_arrays(),
    )
    assert region.steps == (ZScore(mean=7.0, std=1.0),)
    assert not get(region.between(0, 3)).any()
