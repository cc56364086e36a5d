"""The two stages' grids against numbers by hand and numpy's interpolation."""

import numpy as np
import pytest

from kits_trt.train.grids import (
    AIR_HU,
    Sample,
    cut,
    kidney_blocks,
    kidney_grid,
    kidney_patch,
    resample,
    tumour_grid,
    tumour_patch,
)


def sample_of(hu: np.ndarray, labels: np.ndarray | None = None) -> Sample:
    found = np.zeros(hu.shape, np.uint8) if labels is None else labels.astype(np.uint8)
    return Sample(hu=hu.astype(np.int16), labels=found)


def test_halving_a_line_averages_the_two_voxels_under_each_new_one() -> None:
    line = np.array([0, 10, 20, 40]).reshape(1, 1, 4)
    labels = np.array([0, 1, 2, 2]).reshape(1, 1, 4)
    halved = resample(sample_of(line, labels), (1, 1, 2))
    assert halved.hu.ravel().tolist() == [5, 30]
    # The new centres lie midway between two old ones; the upper neighbour is taken.
    assert halved.labels.ravel().tolist() == [1, 2]


@pytest.mark.parametrize("length", [5, 9, 14, 31])
def test_resampling_agrees_with_numpys_interpolation_between_centres(length: int) -> None:
    rng = np.random.default_rng(0)
    line = rng.integers(-1000, 1000, 14)
    places = (np.arange(length) + 0.5) * 14 / length - 0.5
    expected = np.interp(places, np.arange(14), line)
    for axis in range(3):
        shape, target = [1, 1, 1], [1, 1, 1]
        shape[axis], target[axis] = 14, length
        found = resample(sample_of(line.reshape(shape)), tuple(target)).hu.ravel()
        np.testing.assert_allclose(found, expected, atol=0.51)  # rounded to whole HU


def test_grids_have_the_spacings_they_promise() -> None:
    scan = sample_of(np.zeros((10, 64, 48)))
    assert kidney_grid(scan, (5.0, 1.7, 1.7)).hu.shape == (17, 128, 128)  # 50 mm / 3 mm
    assert tumour_grid(scan, (5.0, 1.5, 2.0)).hu.shape == (17, 64, 64)


def test_cutting_beyond_the_edges_fills() -> None:
    plane = np.arange(1, 7).reshape(2, 3)
    assert cut(plane, (-1, 1), (3, 4), fill=9).tolist() == [
        [9, 9, 9, 9],
        [2, 3, 9, 9],
        [5, 6, 9, 9],
    ]
    assert cut(plane, (5, 5), (1, 2), fill=9).tolist() == [[9, 9]]


def test_each_kidney_becomes_a_block_around_its_box_largest_first() -> None:
    labels = np.zeros((20, 40, 60))
    labels[5:10, 10:20, 4:10] = 1
    labels[8:16, 12:20, 40:52] = 1
    labels[9:11, 14:16, 50:56] = 2  # a tumour belongs to its kidney
    labels[0, 0, 0] = 1  # one voxel is no kidney
    hu = np.arange(labels.size).reshape(labels.shape) % 997
    blocks = kidney_blocks(sample_of(hu, labels), plane=(16, 32), margin=2, least_voxels=10)
    assert [block.hu.shape for block in blocks] == [(12, 16, 32), (9, 16, 32)]
    # First: slices 6..18, rows (12 + 20 - 16) // 2 = 8.., columns (40 + 56 - 32) // 2 = 32..
    np.testing.assert_array_equal(blocks[0].hu[:, :, :28], hu[6:18, 8:24, 32:60])
    assert (blocks[0].hu[:, :, 28:] == AIR_HU).all()
    np.testing.assert_array_equal(blocks[0].labels[:, :, :28], labels[6:18, 8:24, 32:60])
    # Second: columns (4 + 10 - 32) // 2 = -9, so nine columns of air come first.
    assert (blocks[1].hu[:, :, :9] == AIR_HU).all()


def test_kidney_patches_are_clipped_to_200_below_and_300_above() -> None:
    hu = np.array([-1000, -200, -75, 50, 300, 3000], dtype=np.int16)
    np.testing.assert_allclose(kidney_patch(hu), [0, 0, 0.25, 0.5, 1, 1])


def test_tumour_patches_bring_each_slices_kidney_to_45_hu() -> None:
    hu = np.array([[[100, 120, 700]], [[145, 145, 145]], [[50, 60, 70]]], dtype=np.float32)
    mask = np.array([[[1, 1, 0]], [[1, 1, 0.4]], [[0, 0, 0]]], dtype=np.float32)
    found = tumour_patch(hu, mask) * 100
    # Slice 0: mean 110, shift -65. Slice 1: mean 145, shift -100; 145 * 0.4 = 58 lies outside and
    # stays. Slice 2 has no kidney.
    expected = [[[35, 55, 0]], [[45, 45, 58]], [[0, 0, 0]]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_inputs_are_unchanged_afterwards() -> None:
    rng = np.random.default_rng(1)
    sample = sample_of(rng.integers(-100, 100, (6, 8, 8)), rng.integers(0, 3, (6, 8, 8)))
    hu, labels = sample.hu.copy(), sample.labels.copy()
    resample(sample, (3, 5, 5))
    kidney_blocks(sample, plane=(4, 4), margin=1, least_voxels=1)
    tumour_patch(sample.hu, (sample.labels > 0).astype(np.float32))
    np.testing.assert_array_equal(sample.hu, hu)
    np.testing.assert_array_equal(sample.labels, labels)
