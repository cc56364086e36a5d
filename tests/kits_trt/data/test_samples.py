from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from stages import slices, unhurried
from training_cases import lesson, patches, piece, recipe

from kits_runtime.manifest.schema import CentreInMask, Clip, MultiplyByMask, Scale
from kits_trt.data.frames import Cut, placed_frame
from kits_trt.data.plans import Lesson, SampleKey, plan_epoch
from kits_trt.data.samples import Sample, draw_sample, view_matrix
from kits_trt.data.stage_pieces import Piece
from kits_trt.systems.augmentation import (
    Augment,
    Blur,
    Change,
    Contrast,
    CutOut,
    EqualiseHistogram,
    Mirror,
    Noise,
    Place,
    RoughMask,
)
from kits_trt.systems.recipe import Crops, SliceRuns, SliceStacks

ALL = SliceStacks(per_case=1, shares={("background", "kidney", "tumour"): 1.0})
ALL_SLICES = SliceRuns(per_case=1, margin_slices=0)
RNG = np.random.default_rng(0)


def textured(*shape: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(7).integers(-200, 200, shape).astype(np.int16)


def stack_of(given: Piece, *changes: Change, index: int = 0, **more: Any) -> Sample:
    """The only slice stack of a piece of one slice, after these changes."""
    taught = lesson(recipe(ALL, *changes, **more), slices(given.shape[1:]), [given])
    middle = (0, given.shape[0] // 2)
    return draw_sample(taught, SampleKey(seed=1, epoch=2, index=index, case=0, middle=middle))


def looked(hu: npt.NDArray[Any], *changes: Change, index: int = 0) -> npt.NDArray[np.float32]:
    return stack_of(piece(np.asarray(hu)[None]), *changes, index=index).values[0]


# --- a function of its key


def every_change() -> tuple[Change, ...]:
    return (
        Place(degrees=20.0, zoom=(0.8, 1.2), shift=0.1),
        Mirror(axes=(0, 2)),
        Noise(up_to_hu=20.0),
        Contrast(gain=0.1, shift_hu=9.0),
        Blur(up_to_vox=1.0),
        EqualiseHistogram(lower_hu=-100.0, upper_hu=100.0),
        CutOut(up_to=0.5),
        RoughMask(),
    )


def test_equal_keys_give_equal_samples_and_the_piece_stays_as_it_was() -> None:
    labels = np.zeros((3, 16, 16), np.uint8)
    labels[:, 4:12, 4:12] = 1
    hu = textured(3, 16, 16)
    given = piece(hu, labels, mask=labels > 0, masked="kidney")
    taught = lesson(recipe(ALL, *every_change()), slices((16, 16), depth=3), [given])
    keys = [SampleKey(seed=1, epoch=2, index=i, case=0, middle=(0, 1)) for i in (5, 5, 6)]

    one, same, other = (draw_sample(taught, key) for key in keys)

    np.testing.assert_array_equal(one.values, same.values)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert (one.values != other.values).any()
    np.testing.assert_array_equal(given.hu, hu)
    np.testing.assert_array_equal(given.labels, labels)


def test_seed_epoch_and_index_each_make_another_sample() -> None:
    taught = lesson(recipe(ALL, Noise(up_to_hu=20.0)), slices((8, 8)), [piece(textured(1, 8, 8))])
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    seen = {
        draw_sample(
            taught, SampleKey(seed=s, epoch=e, index=i, case=0, middle=(0, 0))
        ).values.tobytes()
        for s, e, i in keys
    }
    assert len(seen) == 4


def test_labels_are_told_as_the_recipe_says() -> None:
    labels = np.array([[[0, 1], [2, 3]]])
    sample = stack_of(piece(np.zeros((1, 2, 2)), labels), target={2: 1, 1: 2})
    assert sample.labels.tolist() == [[0, 2], [1, 0]]
    assert sample.labels.dtype == np.uint8
    assert sample.case == "a"


# --- places


def test_a_quarter_turn_is_numpy_s() -> None:
    hu = textured(5, 5)
    given = piece(hu[None], (hu[None] > 0).astype(np.uint8))
    cut = Cut(rows=np.array([0]), corner=(0, 0), size=(5, 5), asked=slice(None))
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

    frame = placed_frame(given, cut, turn)

    # The pixel at (y, x) from the middle looks at (-x, y).
    np.testing.assert_allclose(frame.hu[0], np.rot90(hu, -1), atol=1e-3)
    np.testing.assert_array_equal(frame.labels[0], np.rot90(hu, -1) > 0)


def test_a_view_is_scipy_s_linear_interpolation_and_labels_its_nearest() -> None:
    hu, labels = textured(12, 15), (textured(12, 15) > 0).astype(np.uint8)
    given = piece(hu[None], labels[None], mask=labels[None])
    cut = Cut(rows=np.array([0]), corner=(-2, 1), size=(14, 11), asked=slice(None))
    matrix = view_matrix(
        [Place(degrees=40.0, zoom=(0.7, 1.4), shift=0.2), Mirror(axes=(2,))], cut.size, RNG
    )

    frame = placed_frame(given, cut, matrix)

    grid = np.stack(np.meshgrid(np.arange(14) - 6.5, np.arange(11) - 5.0, indexing="ij"))
    at = np.tensordot(matrix[:2, :2], grid, 1) + matrix[:2, 2, None, None]
    at += np.array([-2 + 6.5, 1 + 5.0])[:, None, None]
    linear = ndimage.map_coordinates(
        hu.astype(float), at, order=1, mode="grid-constant", cval=-1000
    )
    nearest = ndimage.map_coordinates(labels, np.rint(at), order=0, mode="constant", cval=0)
    share = ndimage.map_coordinates(labels.astype(float), at, order=1, mode="grid-constant")
    np.testing.assert_allclose(frame.hu[0], linear, atol=1e-2)
    np.testing.assert_array_equal(frame.labels[0], nearest)
    np.testing.assert_allclose(frame.shares["kidney"][0], share, atol=1e-4)
    np.testing.assert_array_equal(frame.insides["kidney"][0], nearest > 0)
    assert (linear == -1000).any()


def test_zoom_above_one_enlarges_what_is_seen() -> None:
    hu = np.zeros((21, 21))
    hu[8:13, 8:13] = 100
    assert (looked(hu, Place(zoom=(2.0, 2.0))) > 50).sum() == 81  # 9 x 9 pixels, as 5 were
    assert (looked(hu, Place(zoom=(0.5, 0.5))) > 50).sum() == 9
    assert looked(hu, Place(zoom=(0.5, 0.5)))[0, 0] == -1000


def test_shift_is_a_share_of_the_plane_and_degrees_a_range() -> None:
    place, size = Place(degrees=30.0, shift=0.1), (40, 100)
    drawn = np.stack([view_matrix([place], size, RNG) for _ in range(2000)])
    degrees = np.rad2deg(np.arctan2(drawn[:, 1, 0], drawn[:, 0, 0]))
    for values, reach in ((degrees, 30.0), (drawn[:, 0, 2], 4.0), (drawn[:, 1, 2], 10.0)):
        assert np.abs(values).max() <= reach + 1e-9
        # A uniform deviate's standard deviation is its reach over the root of 3.
        assert values.std() == pytest.approx(reach / 3**0.5, rel=0.05)


@given(st.sets(st.sampled_from([0, 1, 2])))
@unhurried
def test_mirrors_flip_values_and_labels_together(axes: set[int]) -> None:
    hu = textured(4, 6, 6)
    given = piece(hu, (hu > 0).astype(np.uint8))
    mirror = Mirror(axes=tuple(sorted(axes)), chance=1.0)
    taught = lesson(
        recipe(SliceRuns(per_case=1, margin_slices=0), mirror), patches(4, 6, 6), [given]
    )

    sample = draw_sample(taught, SampleKey(seed=0, epoch=0, index=0, case=0))

    np.testing.assert_array_equal(sample.values[0], np.flip(hu, sorted(axes)))
    np.testing.assert_array_equal(sample.labels, np.flip(hu, sorted(axes)) > 0)


def test_a_mirror_beside_a_place_is_the_same_mirror() -> None:
    hu = textured(3, 8, 8)
    given = piece(hu, (hu > 0).astype(np.uint8))
    still = Place(degrees=0.0)
    mirror = Mirror(axes=(0, 2), chance=1.0)
    taught = lesson(recipe(ALL_SLICES, still, mirror), patches(3, 8, 8), [given])
    sample = draw_sample(taught, SampleKey(seed=0, epoch=0, index=0, case=0))
    np.testing.assert_allclose(sample.values[0], hu[::-1, :, ::-1], atol=1e-3)
    np.testing.assert_array_equal(sample.labels, hu[::-1, :, ::-1] > 0)


# --- changes of HU


def test_noise_has_a_deviation_drawn_up_to_the_limit() -> None:
    sigmas = [looked(np.zeros((64, 64)), Noise(up_to_hu=20.0), index=i).std() for i in range(200)]
    assert 19 < max(sigmas) < 21
    assert np.mean(sigmas) == pytest.approx(10, abs=1.3)  # three deviations of a mean of 200
    assert np.abs(looked(np.zeros((64, 64)), Noise(up_to_hu=20.0)).mean()) < 1.0


def test_contrast_is_a_gain_and_a_shift() -> None:
    hu = textured(8, 8)
    drawn = []
    for index in range(200):
        seen = looked(hu, Contrast(gain=0.2, shift_hu=30.0), index=index)
        gain, shift = np.polyfit(hu.ravel(), seen.ravel(), 1)
        np.testing.assert_allclose(seen, gain * hu + shift, atol=1e-2)
        drawn.append((gain, shift))
    gains, shifts = np.array(drawn).T
    assert 0.8 <= gains.min() < 0.82 < 1.18 < gains.max() <= 1.2
    assert -30 <= shifts.min() < -27 < 27 < shifts.max() <= 30


def test_blur_is_scipy_s_gaussian_in_plane() -> None:
    hu = np.zeros((3, 31, 31))
    hu[1, 15, 15] = 1000
    sample = stack_of(piece(hu), Blur(up_to_vox=2.0, chance=1.0))
    seen = sample.values[0].astype(float)
    sigma = np.sqrt((seen.sum(0) * (np.arange(31) - 15) ** 2).sum() / seen.sum())
    assert 0.1 < sigma <= 2.0
    expected = ndimage.gaussian_filter(hu[1], sigma, truncate=3.0)
    np.testing.assert_allclose(seen, expected, atol=20)
    assert seen.sum() == pytest.approx(1000, rel=1e-4)


def test_an_equalised_histogram_is_between_the_old_and_a_flat_one() -> None:
    hu = np.clip(np.random.default_rng(0).normal(0, 20, (128, 128)), -99, 99).round()
    hu[0] = 500
    ranks = np.argsort(np.argsort(hu[1:], axis=None)).reshape(hu[1:].shape) / hu[1:].size
    flat = -100 + 200 * ranks
    parts = []
    for index in range(20):
        change = EqualiseHistogram(lower_hu=-100.0, upper_hu=100.0, chance=1.0)
        seen = looked(hu, change, index=index)
        assert (seen[0] == 500).all()
        part = float(((seen[1:] - hu[1:]) * (flat - hu[1:])).sum() / ((flat - hu[1:]) ** 2).sum())
        np.testing.assert_allclose(seen[1:], hu[1:] + part * (flat - hu[1:]), atol=2.5)
        parts.append(part)
    assert min(parts) < 0.2 < 0.8 < max(parts)


def test_a_cut_is_air_and_background_in_one_rectangle() -> None:
    labels = np.ones((1, 40, 20), np.uint8)
    areas = []
    for index in range(50):
        given = piece(np.zeros((1, 40, 20)), labels)
        sample = stack_of(given, CutOut(up_to=0.5, chance=1.0), index=index)
        hole = sample.values[0] == -1000
        np.testing.assert_array_equal(sample.labels == 0, hole)
        rows, columns = hole.any(axis=1).sum(), hole.any(axis=0).sum()
        assert rows <= 20
        assert columns <= 10
        assert hole.sum() == rows * columns
        areas.append(hole.sum())
    assert np.mean(areas) == pytest.approx(0.25**2 * 800, rel=0.4)


# --- masks


def disc(radius: float) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[-32:32, -32:32] + 0.5
    return np.repeat((np.hypot(y, x) < radius)[None], 3, axis=0).astype(float)


def masked_piece(**more: Any) -> Piece:
    hu = np.full((3, 64, 64), 100)
    return piece(hu, disc(18), mask=disc(18), masked="kidney", **more)


def test_a_rough_mask_moves_the_border_a_little_and_at_the_border_alone() -> None:
    shown = []
    for index in range(60):
        sample = stack_of(masked_piece(), RoughMask(chance=1.0), index=index)
        shown.append(sample.values[0] / 100)
        np.testing.assert_array_equal(sample.labels, disc(18)[1])
    inside, outside = disc(10)[1] > 0, disc(26)[1] == 0
    assert all(
        (share[inside] == pytest.approx(1, abs=1e-3)) and not share[outside].any()
        for share in shown
    )
    areas = np.array([share.sum() for share in shown]) / disc(18)[1].sum()
    assert 0.75 < areas.min() < 0.95 < 1.05 < areas.max() < 1.25
    assert np.mean(areas) == pytest.approx(1, abs=0.05)


def test_a_rough_mask_takes_in_and_loses_lumps_as_often_as_it_is_told() -> None:
    def changed(lumps: float) -> tuple[int, int]:
        change, gained, lost = RoughMask(chance=1.0, lumps=lumps), 0, 0
        for index in range(200):
            share = stack_of(masked_piece(), change, index=index).values[0] / 100
            gained += bool((share[disc(22)[1] == 0] > 0.5).any())
            lost += bool((share[disc(13)[1] > 0] < 0.5).any())
        return gained, lost

    assert changed(0.0) == (0, 0)
    assert all(40 < count < 100 for count in changed(0.5)), "most balls of a half reach so far"


def test_a_bite_takes_a_part_of_a_tumour_out_of_the_mask_and_no_label() -> None:
    labels = disc(18)
    labels[1, 20:26, 30:36] = 2
    given = piece(np.full((3, 64, 64), 100), labels, mask=disc(18), masked="kidney")
    bitten = 0
    for index in range(100):
        sample = stack_of(given, RoughMask(chance=1.0, bites=0.5), index=index)
        share = sample.values[0] / 100
        bitten += bool(share[labels[1] == 2].min() < 0.5)
        np.testing.assert_array_equal(sample.labels, stack_of(given).labels)
    healthy = stack_of(masked_piece(), RoughMask(chance=1.0, bites=1.0)).values[0]
    assert 30 < bitten < 70
    assert (healthy[disc(10)[1] > 0] > 99).all()


def test_without_roughness_the_mask_is_as_it_was() -> None:
    np.testing.assert_array_equal(stack_of(masked_piece()).values[0], 100 * disc(18)[1])


def test_noise_stays_within_the_mask_and_the_steps_come_last() -> None:
    steps = (
        CentreInMask(of="kidney", target_hu=45.0),
        Clip(lower_hu=-100.0, upper_hu=60.0),
        Scale(source=(-100.0, 100.0), target=(-1.0, 1.0)),
    )
    seen = stack_of(masked_piece(steps=steps), Noise(up_to_hu=40.0)).values[0]
    inside = disc(18)[1] > 0
    assert not seen[~inside].any()
    assert seen.max() == pytest.approx(0.6)
    assert seen[inside].std() > 0.01


def test_a_rough_mask_reaches_masks_that_are_read_after_the_grid() -> None:
    steps = (MultiplyByMask(of="kidney"),)
    given = piece(np.full((3, 64, 64), 100), disc(18), mask=disc(18), steps=steps)
    areas = [
        (stack_of(given, RoughMask(chance=1.0), index=i).values[0] == 100).sum() for i in range(20)
    ]
    assert len(set(areas)) > 10
    assert (stack_of(given).values[0] == 100).sum() == disc(18)[1].sum()


# --- chances and groups


def test_a_change_happens_as_often_as_its_chance() -> None:
    hu = textured(4, 4)
    mirror = Mirror(axes=(2,), chance=0.3)
    flipped = sum(bool((looked(hu, mirror, index=i) != hu).any()) for i in range(1000))
    assert flipped == pytest.approx(300, abs=50)  # more than three deviations


@pytest.mark.parametrize(("label", "flipped"), [(0, False), (1, False), (2, True)])
def test_a_change_is_kept_to_its_groups(label: int, flipped: bool) -> None:
    hu = textured(1, 4, 4)
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 1, 1] = label
    change = Augment(change=Mirror(axes=(2,), chance=1.0), groups=("tumour",))
    sample = stack_of(piece(hu, labels), augment=(change,))
    np.testing.assert_array_equal(sample.values, hu[:, :, ::-1] if flipped else hu)


def test_nothing_happens_to_samples_for_validation() -> None:
    given = piece(textured(1, 8, 8))
    taught = lesson(recipe(ALL, *every_change()), slices((8, 8)), [given])
    key = SampleKey(seed=0, epoch=0, index=0, case=0, middle=(0, 0), augmented=False)
    np.testing.assert_array_equal(draw_sample(taught, key).values, given.hu)


# --- draws


def sparse() -> Piece:
    """A piece whose voxels tell their place, with one target of three voxels near a corner."""
    z, y, x = np.mgrid[:20, :24, :28]
    labels = np.zeros((20, 24, 28), np.uint8)
    labels[3, 4, 5], labels[12, 12, 12], labels[19, 23, 27] = 1, 2, 1
    return piece((z * 24 + y) * 28 + x, labels)


def first_of(sample: Sample) -> tuple[int, ...]:
    place = np.unravel_index(int(sample.values[0, 0, 0, 0]), (20, 24, 28))
    return tuple(int(axis) for axis in place)


def crops_of(given: Piece, draw: Crops, count: int) -> list[tuple[SampleKey, Sample]]:
    taught = lesson(recipe(draw, target={1: 1}), patches(6, 6, 6), [given])
    plan = plan_epoch(taught, seed=0, epoch=0)
    assert len(plan) == count
    return [(key, draw_sample(taught, key)) for key in plan]


def test_centred_crops_have_the_target_in_the_middle_as_far_as_the_border_allows() -> None:
    starts = {True: set(), False: set()}
    for key, sample in crops_of(sparse(), Crops(per_case=1000, foreground_share=0.5), 1000):
        starts[bool(key.centred)].add(first_of(sample))
        z, y, x = first_of(sample)
        np.testing.assert_array_equal(
            sample.labels, sparse().labels[z : z + 6, y : y + 6, x : x + 6] == 1
        )
    # Voxel 3 of 6 is the middle; label 2 is no target here.
    assert starts[True] == {(0, 1, 2), (14, 18, 22)}
    assert len(starts[False]) > 400


def test_crops_without_a_share_lie_anywhere_alike() -> None:
    drawn = crops_of(sparse(), Crops(per_case=3000, foreground_share=None), 3000)
    starts = np.array([first_of(sample) for _, sample in drawn])
    for axis, count in enumerate((15, 19, 23)):
        hits = np.bincount(starts[:, axis], minlength=count)
        assert len(hits) == count
        assert (np.abs(hits - 3000 / count) < 4.5 * (3000 / count) ** 0.5).all()


def test_a_crop_larger_than_the_piece_is_padded_with_air_as_the_runtime_pads() -> None:
    given = piece(np.zeros((3, 4, 7)), np.ones((3, 4, 7)))
    taught = lesson(recipe(Crops(per_case=1, foreground_share=0.5)), patches(6, 4, 4), [given])
    sample = draw_sample(taught, SampleKey(seed=0, epoch=0, index=0, case=0, centred=True))
    assert (sample.values[0, 1:4] == 0).all()
    assert (sample.values[0, [0, 4, 5]] == -1000).all()
    np.testing.assert_array_equal(sample.labels == 1, sample.values[0] == 0)


def runs(depth: int, held: slice, margin: int, window: int) -> set[int]:
    labels = np.zeros((depth, 2, 2), np.uint8)
    labels[held] = 1
    hu = np.repeat(np.arange(depth), 4).reshape(depth, 2, 2)
    draw = SliceRuns(per_case=300, margin_slices=margin)
    taught: Lesson = lesson(recipe(draw, target={1: 1}), patches(window, 2, 2), [piece(hu, labels)])
    samples = [draw_sample(taught, key) for key in plan_epoch(taught, seed=0, epoch=0)]
    assert len(samples) == 300
    for sample in samples:
        first = int(sample.values[0, 0, 0, 0])
        if first >= 0:
            assert sample.values[0, :, 0, 0].tolist() == list(range(first, first + window))
    return {int(sample.values[0, 0, 0, 0]) for sample in samples}


def test_runs_lie_within_the_target_s_slices_and_the_margin() -> None:
    assert runs(30, slice(10, 20), margin=3, window=4) == set(range(7, 20))
    assert runs(30, slice(1, 29), margin=3, window=4) == set(range(27))
    assert runs(30, slice(0, 0), margin=3, window=4) == set(range(27))


def test_runs_longer_than_the_target_and_its_margin_hold_all_of_it() -> None:
    assert runs(30, slice(14, 16), margin=1, window=10) == set(range(7, 14))
    assert runs(30, slice(0, 2), margin=1, window=10) == {0}
    assert runs(6, slice(2, 4), margin=1, window=8) == {-1000}


def test_parts_of_a_run_lie_around_the_target_two_times_of_three() -> None:
    labels = np.zeros((4, 40, 60), np.uint8)
    labels[:, 30, 50] = 1
    hu = np.arange(40 * 60).reshape(1, 40, 60) + np.zeros((4, 1, 1), np.int64)
    draw = SliceRuns(per_case=600, margin_slices=0, part_vox=(8, 16))
    taught = lesson(recipe(draw, target={1: 1}), patches(4, 40, 60), [piece(hu, labels)])
    samples = [draw_sample(taught, key) for key in plan_epoch(taught, seed=0, epoch=0)]

    corners = [divmod(int(sample.values[0, 0, 0, 0]), 60) for sample in samples]
    assert {sample.values.shape for sample in samples} == {(1, 4, 8, 16)}
    assert {sample.labels.shape for sample in samples} == {(4, 8, 16)}
    assert all(0 <= y <= 32 and 0 <= x <= 44 for y, x in corners)
    holding = np.mean([bool(sample.labels.any()) for sample in samples])
    by_chance = 1 / 3 * (8 * 10) / (33 * 45)  # 23 <= y <= 30 and 35 <= x <= 44
    assert abs(holding - (2 / 3 + by_chance)) < 0.06
    around = {(y, x) for y, x in corners if 24 <= y <= 28 and 38 <= x <= 44}
    assert len(around) > 20
