"""Views, intensities and masks: against scipy and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kits_trt.train.jitter import (
    HuJitter,
    Placement,
    PlacementJitter,
    disturb_hu,
    disturb_mask,
    draw_placement,
    view,
)

PLANES = np.random.default_rng(0).normal(size=(2, 9, 11)).astype(np.float32)


def test_a_straight_view_cuts_whole_pixels_and_fills_beyond_the_edge() -> None:
    # Four rows around 1.5 are rows 0..3; four columns around 9.5 are 8..11, of which 11 is outside.
    seen = view(PLANES, Placement(shape=(4, 4), centre=(1.5, 9.5)), fill=7.0, mode="bilinear")
    np.testing.assert_allclose(seen[:, :, :3], PLANES[:, :4, 8:], atol=1e-5)
    np.testing.assert_allclose(seen[:, :, 3], 7.0, atol=1e-5)


def test_a_mirrored_view_is_the_plane_flipped_left_to_right() -> None:
    placement = Placement(shape=(9, 11), centre=(4.0, 5.0), mirror_x=True)
    seen = view(PLANES, placement, fill=0.0, mode="bilinear")
    np.testing.assert_allclose(seen, PLANES[:, :, ::-1], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.6, 1.8),
    y=st.floats(2, 6),
    x=st.floats(3, 7),
)
def test_views_agree_with_scipys_affine_transform(
    degrees: float, scale: float, y: float, x: float
) -> None:
    shape = (5, 6)
    placement = Placement(shape=shape, centre=(y, x), degrees=degrees, scale=scale)
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    offset = np.array([y, x]) - matrix @ ((np.array(shape) - 1) / 2)
    expected = ndimage.affine_transform(
        PLANES[0].astype(np.float64), matrix, offset, output_shape=shape, order=1,
        mode="grid-constant", cval=0.0,
    )  # fmt: skip
    found = view(PLANES[:1], placement, fill=0.0, mode="bilinear")[0]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_drawn_placements_stay_within_their_ranges() -> None:
    jitter = PlacementJitter(degrees=10.0, scale=0.2, shift=3.0, mirror_x=True)
    rng = np.random.default_rng(3)
    drawn = [draw_placement(rng, jitter, shape=(4, 4), centre=(5.0, 6.0)) for _ in range(300)]
    assert all(abs(one.degrees) <= 10 for one in drawn)
    assert all(1 / 1.2 <= one.scale <= 1.2 for one in drawn)
    assert all(abs(one.centre[0] - 5) <= 3 and abs(one.centre[1] - 6) <= 3 for one in drawn)
    assert 100 < sum(one.mirror_x for one in drawn) < 200
    assert max(one.scale for one in drawn) > 1.15
    assert min(one.scale for one in drawn) < 1 / 1.15


def test_a_scanner_without_faults_changes_no_flat_plane() -> None:
    faultless = HuJitter(gain=0.0, shift_hu=0.0, noise_hu=0.0, blur_vox=1.0)
    flat = np.full((2, 8, 8), 40.0, dtype=np.float32)
    for seed in range(8):
        found = disturb_hu(flat, np.random.default_rng(seed), faultless)
        np.testing.assert_allclose(found, flat, atol=1e-4)


def test_gain_and_shift_move_a_flat_plane_within_their_ranges() -> None:
    jitter = HuJitter(gain=0.1, shift_hu=5.0, noise_hu=0.0, blur_vox=1.0)
    flat = np.full((1, 4, 4), 100.0, dtype=np.float32)
    means = [disturb_hu(flat, np.random.default_rng(seed), jitter).mean() for seed in range(60)]
    assert 85 <= min(means) < 95
    assert 105 < max(means) <= 115


@pytest.mark.parametrize("seed", range(6))
def test_disturbed_masks_keep_most_of_a_kidney_and_grow_little(seed: int) -> None:
    rows, columns = np.mgrid[:96, :96]
    disc = np.hypot(rows - 48, columns - 48) <= 20
    mask = np.broadcast_to(disc, (5, 96, 96)).astype(np.float32)
    found = disturb_mask(mask, np.random.default_rng(seed))
    assert found.min() >= 0.0
    assert found.max() <= 1.0 + 1e-6
    core, reach = (
        ndimage.binary_erosion(disc, iterations=6),
        ndimage.binary_dilation(disc, iterations=6),
    )
    assert found[2][core].min() > 0.5
    assert found[2][~reach].max() < 0.5


def test_most_masks_are_disturbed_and_some_are_left_true() -> None:
    mask = np.zeros((5, 48, 48), dtype=np.float32)
    mask[:, 14:34, 14:34] = 1.0
    changed = [
        not np.array_equal(disturb_mask(mask, np.random.default_rng(seed)), mask)
        for seed in range(40)
    ]
    assert 20 < sum(changed) < 40
