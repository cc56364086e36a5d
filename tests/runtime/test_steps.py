from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from stages import native_grid, outcome, volume

from kits_runtime.grid import Box, Grid, box_of, grid_over
from kits_runtime.manifest.schema import (
    CentreInMask,
    CentreOnBrighterSide,
    Clip,
    ClipMeanSigma,
    DimOutsideMask,
    MultiplyByMask,
    Resample,
    Scale,
    Step,
    ZScore,
)
from kits_runtime.outcome import Outcome, Outcomes
from kits_runtime.resample import nearest_index
from kits_runtime.steps import AIR_HU, STEPS, Region, prepared_region, settled, with_numbers
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


BRIGHTER = CentreOnBrighterSide(of="kidney", quantile=0.5, target_hu=35.0)


def sides(*values_and_labels: tuple[int, int], width: int = 12) -> tuple[Volume, Outcomes]:
    """A scan with some voxels' values and labels, given from its right side to its left."""
    data = np.full((2, 2, width), 900, np.int16)
    labels = np.zeros(data.shape, np.uint8)
    for x, (value, label) in enumerate(values_and_labels):
        data[1, 0, x], labels[1, 0, x] = value, label
    return volume(data), {"kidney": outcome(labels, on_scan=labels)}


def test_the_brighter_side_is_brought_to_the_target_and_all_else_moves_along() -> None:
    right = [(10, 1), (20, 1), (60, 2), (500, 0), (500, 0), (500, 0)]
    left = [(30, 1), (50, 1), (80, 1), (500, 0), (500, 0), (500, 0)]

    for values in (right + left, left + right):
        scan, outcomes = sides(*values)
        steps = settled((Clip(lower_hu=-900.0, upper_hu=950.0), BRIGHTER), scan, outcomes)
        prepared = region(scan, *steps, outcomes=outcomes)
        np.testing.assert_array_equal(prepared.values, scan.data - 15)
        assert prepared.air == -900 - 15
    assert region(scan, *settled((BRIGHTER,), scan, outcomes)).air == AIR_HU - 15


def test_the_quantile_is_that_of_the_values_in_order() -> None:
    scan, outcomes = sides((10, 1), (60, 1), (20, 1), (30, 1), (50, 1))

    for quantile, value in ((0.0, 10), (0.24, 10), (0.25, 20), (0.75, 50), (1.0, 60)):
        (step,) = settled((replace(BRIGHTER, quantile=quantile),), scan, outcomes)
        assert step == ZScore(mean=value - 35.0, std=1.0)


def test_a_side_with_less_than_a_tenth_of_the_mask_does_not_count() -> None:
    few = [(100, 1)] * 11 + [(500, 0)] * 11
    scan, outcomes = sides(*few, *[(300, 1)], width=44)
    assert settled((BRIGHTER,), scan, outcomes) == (ZScore(mean=65.0, std=1.0),)
    scan, outcomes = sides(*few, *[(300, 1)] * 2, width=44)
    assert settled((BRIGHTER,), scan, outcomes) == (ZScore(mean=265.0, std=1.0),)


def test_values_are_read_at_the_voxels_of_the_mask_s_own_grid() -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 2, 6)
    grid = Grid((1, 1, 3), data.shape, (5.0, 1.4, 1.6))
    placed = np.ones(grid.shape, np.uint8)
    found = Outcome(
        grid=grid,
        box=box_of(grid.shape),
        placed=placed,
        on_scan=None,
        window=box_of(data.shape),
        reach=box_of(data.shape),
    )
    read = data[nearest_index(grid.shape, data.shape, box_of(grid.shape))]

    (step,) = settled((replace(BRIGHTER, quantile=0.0),), volume(data), {"kidney": found})

    assert step == ZScore(mean=float(read[0, 0, 1]) - 35, std=1.0), "the left two of three voxels"


def test_of_an_empty_mask_the_quantile_is_0_hu() -> None:
    scan, outcomes = sides()
    assert settled((BRIGHTER,), scan, outcomes) == (ZScore(mean=-35.0, std=1.0),)


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


@pytest.mark.parametrize("on_scan", [True, False])
def test_outside_of_a_mask_a_share_is_left_and_far_off_nothing(on_scan: bool) -> None:
    rng = np.random.default_rng(3)
    data = rng.integers(1, 1000, (12, 30, 40)).astype(np.int16)
    labels = (rng.random(data.shape) > 0.999).astype(np.uint8)
    brick = np.ones((3, 9, 7), np.bool_)  # of 2.6 mm: one voxel of 2, four of 0.7, three of 0.9
    scan = volume(data, spacing_mm=(2.0, 0.7, 0.9))

    alike = Resample(
        spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="nearest"
    )

    prepared = region(
        scan,
        *([] if on_scan else [alike]),
        DimOutsideMask(of="kidney", within_mm=2.6, share=0.25),
        outcomes={"kidney": outcome(labels, on_scan=labels if on_scan else None)},
        grid=Grid(data.shape, data.shape, scan.spacing_mm),
    )

    near = ndimage.binary_dilation(labels > 0, brick)
    assert 0 < labels.sum() < near.sum() < near.size
    shares = np.where(labels > 0, 1, np.where(near, 0.25, 0))
    np.testing.assert_array_equal(prepared.values, data * shares)
    assert prepared.air == 0.0


def test_a_part_is_near_to_a_mask_outside_of_it() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = 1

    prepared = region(
        volume(np.full(SHAPE, 7, np.int16), spacing_mm=(1.0, 1.0, 1.0)),
        DimOutsideMask(of="kidney", within_mm=2.0, share=1.0),
        outcomes={"kidney": outcome(labels, on_scan=labels)},
        box=Box((1, 1, 1), SHAPE),
        grid=Grid(SHAPE, SHAPE, (1.0, 1.0, 1.0)),
    )

    near = np.zeros(SHAPE)
    near[:3, :3, :3] = 7
    np.testing.assert_array_equal(prepared.values, near[1:, 1:, 1:])


def test_dim_outside_mask_counts_in_the_voxels_of_the_grid_it_is_on() -> None:
    coarse = Resample(
        spacing_mm=(None, None, 2.0), size_vox=(None, None, None), interpolation="linear"
    )
    labels = np.zeros((2, 2, 12), np.uint8)
    labels[..., 4:6] = 1
    outcomes = {"kidney": outcome(labels, on_scan=labels)}
    scan = volume(np.full((2, 2, 12), 5, np.int16), spacing_mm=(1.0, 1.0, 1.0))
    grid = grid_over(scan.shape, scan.spacing_mm, coarse)
    near = DimOutsideMask(of="kidney", within_mm=2.0, share=1.0)

    before = region(scan, near, coarse, outcomes=outcomes, grid=grid)
    after = region(scan, coarse, near, outcomes=outcomes, grid=grid)

    assert before.values[0, 0].tolist() == [0, 5, 5, 5, 0, 0]
    assert after.values[0, 0].tolist() == [0, 5, 5, 5, 0, 0]


ALL_STEPS: list[Step] = [
    Resample(spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="linear"),
    Resample(spacing_mm=(None, None, None), size_vox=(None, None, None), interpolation="nearest"),
    Clip(lower_hu=-100.0, upper_hu=100.0),
    Scale(source=(-100.0, 100.0), target=(0.0, 1.0)),
    ZScore(mean=None, std=None),
    ClipMeanSigma(sigma=0.5, target=(0.0, 1.0)),
    MultiplyByMask(of="kidney"),
    DimOutsideMask(of="kidney", within_mm=1.0, share=0.5),
    CentreInMask(of="kidney", target_hu=45.0),
]


def test_every_kind_of_step_is_in_the_table_or_settled_before() -> None:
    assert {type(step) for step in ALL_STEPS} == set(STEPS)
    assert {*STEPS, CentreOnBrighterSide} == set(get_args(Step))


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
