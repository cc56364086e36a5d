from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from stages import native_grid, outcome, volume

from kits_runtime.grid import Box, Grid, box_of, grid_over
from kits_runtime.manifest.schema import (
    CentreInMask,
    CentreOnMask,
    Clip,
    ClipMeanSigma,
    MultiplyByMask,
    Resample,
    Scale,
    Step,
    ZScore,
)
from kits_runtime.outcome import Outcome, Outcomes
from kits_runtime.steps import AIR_HU, STEPS, Region, prepared_region, with_numbers
from kits_runtime.volume import Volume

SHAPE = (3, 4, 5)


def ramp(dtype: Any = np.int16) -> npt.NDArray[Any]:
    return (np.arange(60).reshape(SHAPE) * 10 - 300).astype(dtype)


def region(
    scan: Volume,
    *steps: Step,
    outcomes: Outcomes | None = None,
    box: Box | None = None,
    grid: Grid | None = None,
) -> Region:
    grid = grid or native_grid(scan.shape)
    return prepared_region(
        scan, grid, box or box_of(grid.shape), steps=steps, outcomes=outcomes or {}
    )


def test_without_steps_the_values_are_the_scan_s_as_float32() -> None:
    prepared = region(volume(ramp()))

    np.testing.assert_array_equal(prepared.values, ramp(np.float32), strict=True)
    assert prepared.air == AIR_HU == -1000


def test_clip_by_hand() -> None:
    prepared = region(volume(ramp()), Clip(lower_hu=-250.5, upper_hu=120.0))

    assert prepared.values[0, 0].tolist() == [-250.5, -250.5, -250.5, -250.5, -250.5]
    assert prepared.values[0, 1].tolist() == [-250, -240, -230, -220, -210]
    assert prepared.values[2, 3].tolist() == [120.0] * 5
    assert prepared.air == -250.5


def test_scale_maps_one_interval_onto_another_without_clipping() -> None:
    prepared = region(volume(ramp()), Scale(source=(-300.0, -100.0), target=(-1.0, 3.0)))

    np.testing.assert_allclose(prepared.values[0, 0], [-1, -0.8, -0.6, -0.4, -0.2], atol=1e-6)
    np.testing.assert_allclose(prepared.values[2, 3, 4], 10.8, rtol=1e-6)
    assert prepared.air == pytest.approx(-15.0)


def test_clip_and_scale_give_air_the_lower_end() -> None:
    window = (-79.0, 304.0)
    prepared = region(
        volume(ramp()),
        Clip(lower_hu=-79.0, upper_hu=304.0),
        Scale(source=window, target=(0.0, 1.0)),
    )

    assert prepared.air == 0.0
    assert prepared.values.min() == 0.0
    np.testing.assert_allclose(
        prepared.values, (np.clip(ramp(np.float64), -79, 304) + 79) / 383, atol=1e-6
    )


def test_z_score_with_given_numbers_by_hand() -> None:
    prepared = region(volume(ramp()), ZScore(mean=-300.0, std=20.0))

    assert prepared.values[0, 0].tolist() == [0, 0.5, 1, 1.5, 2]
    assert prepared.air == pytest.approx(-35.0)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_z_score_of_the_region_s_own_statistics(dtype: Any) -> None:
    data = ramp(dtype)
    prepared = region(volume(data), ZScore(mean=None, std=None))

    expected = (data.astype(np.float64) - data.mean(dtype=float)) / data.std(dtype=float)
    np.testing.assert_allclose(prepared.values, expected, atol=1e-6)
    assert prepared.air == pytest.approx((-1000 - data.mean(dtype=float)) / data.std(dtype=float))


def test_statistics_are_those_of_the_box_alone() -> None:
    data, box = ramp(), Box((1, 1, 1), (3, 3, 4))

    prepared = region(volume(data), ZScore(mean=None, std=None), box=box)

    own = data[box.slices].astype(np.float64)
    np.testing.assert_allclose(prepared.values, (own - own.mean()) / own.std(), atol=1e-6)


def test_statistics_are_made_in_float64() -> None:
    # In float32 the sum of so many large numbers loses what differs.
    data = np.full((40, 50, 60), 30000, np.float32)
    data[::2] += 0.25
    prepared = region(volume(data), ZScore(mean=None, std=None))

    np.testing.assert_array_equal(prepared.values[::2], np.float32(1))
    np.testing.assert_array_equal(prepared.values[1::2], np.float32(-1))


def test_a_constant_region_has_z_scores_of_zero() -> None:
    prepared = region(volume(np.full(SHAPE, 40, np.int16)), ZScore(mean=None, std=None))

    assert not prepared.values.any()
    assert prepared.air == -1040


def test_clip_mean_sigma_by_hand() -> None:
    data = np.zeros((2, 2, 2), np.int16)
    data[0], data[1] = -100, 300  # mean 100, standard deviation 200

    prepared = region(volume(data), ClipMeanSigma(sigma=0.25, target=(0.0, 1.0)))
    wide = region(volume(data), ClipMeanSigma(sigma=2.0, target=(0.0, 1.0)))

    assert prepared.values[0].tolist() == [[0, 0], [0, 0]]  # clipped to 50 to 150
    assert prepared.values[1].tolist() == [[1, 1], [1, 1]]
    assert prepared.air == 0.0
    np.testing.assert_allclose(wide.values[:, 0, 0], [0.25, 0.75])  # -300 to 500
    assert wide.air == 0.0


def test_clip_mean_sigma_of_a_constant_region_is_the_middle_of_the_target() -> None:
    prepared = region(
        volume(np.full(SHAPE, 40, np.int16)), ClipMeanSigma(sigma=0.25, target=(0.0, 1.0))
    )

    np.testing.assert_allclose(prepared.values, 0.5)


def test_resample_halves_what_it_should() -> None:
    data = np.zeros((2, 2, 4), np.int16)
    data[..., :] = [0, 10, 20, 60]
    step = Resample(spacing_mm=(None, None, None), size_vox=(None, None, 2), interpolation="linear")

    prepared = region(volume(data), step, grid=grid_over((2, 2, 4), (1, 1, 1), step))

    assert prepared.values.tolist() == [[[5, 40], [5, 40]]] * 2
    assert prepared.air == AIR_HU


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_a_box_of_the_grid_has_the_values_that_the_whole_grid_has_there(
    interpolation: Any,
) -> None:
    data = np.random.default_rng(0).integers(-1000, 1000, (9, 10, 11)).astype(np.int16)
    step = Resample(
        spacing_mm=(None, 1.0, None), size_vox=(6, None, 17), interpolation=interpolation
    )
    grid = grid_over(data.shape, (2.5, 0.7, 0.8), step)
    assert grid.shape == (6, 7, 17)
    steps = (step, Clip(lower_hu=-500, upper_hu=300), Scale(source=(-500, 300), target=(0, 1)))
    whole = region(volume(data), *steps, grid=grid)
    box = Box((1, 2, 5), (5, 3, 17))

    part = region(volume(data), *steps, grid=grid, box=box)

    np.testing.assert_array_equal(part.values, whole.values[box.slices], strict=True)


def half_masked(on_scan: bool = True) -> Outcome:
    """A mask that is true at even x; on the scan, or on a grid of the same voxels."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[..., ::2] = 1
    return outcome(labels, on_scan=labels if on_scan else None)


def test_multiply_by_mask_zeroes_what_lies_outside() -> None:
    prepared = region(
        volume(ramp()), MultiplyByMask(of="kidney"), outcomes={"kidney": half_masked()}
    )

    np.testing.assert_array_equal(prepared.values[..., ::2], ramp()[..., ::2])
    assert not prepared.values[..., 1::2].any()
    assert prepared.air == 0.0


def test_air_follows_a_mask_through_the_steps_after_it() -> None:
    prepared = region(
        volume(ramp()),
        MultiplyByMask(of="kidney"),
        Clip(lower_hu=-100.0, upper_hu=250.0),
        Scale(source=(-100.0, 250.0), target=(0.0, 1.0)),
        outcomes={"kidney": half_masked()},
    )

    assert prepared.air == pytest.approx(100 / 350)
    np.testing.assert_allclose(prepared.values[..., 1::2], 100 / 350, rtol=1e-6)


def test_masks_before_the_resample_step_lie_on_the_scan() -> None:
    step = Resample(spacing_mm=(None, None, None), size_vox=(None, None, 1), interpolation="linear")
    data = np.full((2, 2, 2), 100, np.int16)
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[..., 0] = 1
    outcomes = {"kidney": outcome(labels, on_scan=labels)}
    grid = grid_over((2, 2, 2), (1, 1, 1), step)

    before = region(volume(data), MultiplyByMask(of="kidney"), step, outcomes=outcomes, grid=grid)
    after = region(volume(data), step, MultiplyByMask(of="kidney"), outcomes=outcomes, grid=grid)

    assert before.values.ravel().tolist() == [50] * 4  # 100 and 0 halved
    assert after.values.ravel().tolist() == [0] * 4  # the centre lies in the second column


def test_centre_in_mask_shifts_each_slice_to_the_mean() -> None:
    data = np.zeros((3, 2, 2), np.int16)
    data[0], data[1], data[2] = [[10, 20], [30, 40]], [[100, 0], [0, 0]], 7
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[0], labels[1] = [[1, 1], [0, 0]], [[2, 0], [0, 0]]

    prepared = region(
        volume(data),
        CentreInMask(of="kidney", target_hu=45.0),
        outcomes={"kidney": outcome(labels, on_scan=labels)},
    )

    assert prepared.values[0].tolist() == [[40, 50], [30, 40]]
    assert prepared.values[1].tolist() == [[45, 0], [0, 0]]
    assert prepared.values[2].tolist() == [[7, 7], [7, 7]]
    assert prepared.air == AIR_HU


def test_centre_on_mask_shifts_all_values_and_air_by_what_the_mask_is_off() -> None:
    data = np.full((3, 2, 2), 100, np.int16)
    data[0], data[1] = [[10, 20], [30, 40]], [[60, 0], [0, 0]]
    labels = np.zeros((3, 2, 2), np.uint8)
    labels[0], labels[1] = [[1, 1], [0, 0]], [[2, 0], [0, 0]]
    outcomes = {"kidney": outcome(labels, on_scan=labels)}
    centre = CentreOnMask(of="kidney", quantile=0.5, target_hu=35.0)  # of 10, 60 and 20 that is 20

    prepared = region(volume(data), centre, outcomes=outcomes)
    masked = region(volume(data), MultiplyByMask(of="kidney"), centre, outcomes=outcomes)

    np.testing.assert_array_equal(prepared.values, data + 15)
    assert prepared.air == AIR_HU + 15
    assert masked.values[0].tolist() == [[25, 35], [15, 15]]
    assert (masked.values[2] == 15).all()
    assert masked.air == 15


def test_an_empty_mask_is_taken_for_one_of_0_hu() -> None:
    nowhere = np.zeros(SHAPE, np.uint8)

    prepared = region(
        volume(ramp()),
        CentreOnMask(of="kidney", quantile=0.75, target_hu=45.0),
        outcomes={"kidney": outcome(nowhere, on_scan=nowhere)},
    )

    np.testing.assert_array_equal(prepared.values, ramp(np.float32) + 45)


def test_centre_in_mask_takes_the_mean_in_float64() -> None:
    data = np.full((2, 300, 300), 16384, np.float32)
    data[:, ::2] += 0.5
    labels = np.ones(data.shape, np.uint8)

    prepared = region(
        volume(data),
        CentreInMask(of="kidney", target_hu=0.0),
        outcomes={"kidney": outcome(labels, on_scan=labels)},
    )

    np.testing.assert_array_equal(prepared.values[:, ::2], np.float32(0.25))
    np.testing.assert_array_equal(prepared.values[:, 1::2], np.float32(-0.25))


def test_masks_on_the_grid_do_where_there_are_none_on_the_scan() -> None:
    step = Resample(
        spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="linear"
    )

    prepared = region(
        volume(ramp()),
        step,
        MultiplyByMask(of="kidney"),
        outcomes={"kidney": half_masked(on_scan=False)},
    )

    np.testing.assert_array_equal(prepared.values[..., ::2], ramp()[..., ::2])
    assert not prepared.values[..., 1::2].any()


ALL_STEPS: list[Step] = [
    Resample(spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="linear"),
    Resample(spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="nearest"),
    Clip(lower_hu=-100.0, upper_hu=100.0),
    Scale(source=(-100.0, 100.0), target=(0.0, 1.0)),
    ZScore(mean=None, std=None),
    ClipMeanSigma(sigma=0.5, target=(0.0, 1.0)),
    MultiplyByMask(of="kidney"),
    CentreInMask(of="kidney", target_hu=45.0),
    CentreOnMask(of="kidney", quantile=0.75, target_hu=45.0),
]


def test_every_kind_of_step_is_in_the_table() -> None:
    assert {type(step) for step in ALL_STEPS} == set(STEPS)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: step.kind)
def test_no_step_changes_the_scan(step: Step, dtype: Any) -> None:
    scan = volume(ramp(dtype))
    outcomes = {"kidney": half_masked()}

    prepared = region(scan, step, Scale(source=(0.0, 2.0), target=(0.0, 1.0)), outcomes=outcomes)
    prepared.values.fill(-7)

    np.testing.assert_array_equal(scan.data, ramp(dtype))
    np.testing.assert_array_equal(outcomes["kidney"].placed, half_masked().placed)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_without_steps_the_values_are_a_copy(dtype: Any) -> None:
    scan = volume(ramp(dtype))

    region(scan).values.fill(-7)

    np.testing.assert_array_equal(scan.data, ramp(dtype))


@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: step.kind)
def test_a_step_leaves_the_region_that_it_is_given_as_it_was(step: Step) -> None:
    scan = volume(ramp())
    given = Region(
        values=scan.data,
        grid=native_grid(SHAPE),
        box=box_of(SHAPE),
        source=box_of(SHAPE),
        on_scan=True,
        air=AIR_HU,
    )

    STEPS[type(step)](given, step, {"kidney": half_masked()})

    np.testing.assert_array_equal(given.values, ramp())
    assert given.air == AIR_HU


@pytest.mark.parametrize("step", ALL_STEPS, ids=lambda step: step.kind)
def test_values_do_not_depend_on_the_scan_s_order_in_memory(step: Step) -> None:
    data = np.random.default_rng(1).normal(0, 300, (6, 7, 8)).astype(np.float32)
    labels = (data > 0).astype(np.uint8)
    outcomes = {"kidney": outcome(labels, on_scan=labels)}

    rows = region(volume(data), step, outcomes=outcomes)
    columns = region(volume(np.asfortranarray(data)), step, outcomes=outcomes)

    np.testing.assert_array_equal(rows.values, columns.values, strict=True)
    assert rows.air == columns.air
    assert columns.values.flags.c_contiguous


def test_a_statistic_becomes_numbers_that_do_the_same_to_the_same_values() -> None:
    data = ramp()  # evenly spread: mean -5, standard deviation 10 * sqrt((60**2 - 1) / 12)
    std = 10 * np.sqrt(3599 / 12)

    (z_score,) = with_numbers(ZScore(mean=None, std=None), region(volume(data)), {})
    clip, scale = with_numbers(
        ClipMeanSigma(sigma=0.5, target=(0.0, 1.0)), region(volume(data)), {}
    )

    assert isinstance(z_score, ZScore)
    assert (z_score.mean, z_score.std) == pytest.approx((-5.0, std))
    assert isinstance(clip, Clip)
    assert (clip.lower_hu, clip.upper_hu) == pytest.approx((-5 - std / 2, -5 + std / 2))
    assert scale == Scale(source=(clip.lower_hu, clip.upper_hu), target=(0.0, 1.0))
    fixed = ZScore(mean=1.0, std=2.0)
    assert with_numbers(fixed, region(volume(data)), {}) == (fixed,)
