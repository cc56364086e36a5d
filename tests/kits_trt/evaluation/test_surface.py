import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kits_trt.evaluation import surface
from kits_trt.evaluation.surface import neighbour_codes, surface_dice

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's imports warn about their own dependencies
    from monai.metrics.surface_dice import compute_surface_dice

Mask = npt.NDArray[np.bool_]
SPACING_MM = (3.0, 0.7, 0.8)
TOLERANCE_MM = 1.0331


def by_monai(
    truth: Mask, prediction: Mask, spacing_mm: Any, tolerance_mm: float = TOLERANCE_MM
) -> float:
    """MONAI's surface Dice by surface elements; it needs both masks to hold a voxel."""
    tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns about its own calls
        result = compute_surface_dice(
            *tensors,
            [tolerance_mm],
            include_background=True,
            spacing=list(spacing_mm),
            use_subvoxels=True,
        )
    return float(result[0, 0])


def box(start: tuple[int, int, int], size: int, shape: tuple[int, int, int]) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[tuple(slice(first, first + size) for first in start)] = True
    return mask


def moved_boxes(size: int, by: int) -> tuple[Mask, Mask]:
    shape = (size + by + 2, size + 2, size + 2)
    return box((1, 1, 1), size, shape), box((1 + by, 1, 1), size, shape)


def test_a_voxel_sets_one_bit_at_each_of_its_eight_corners() -> None:
    mask = np.ones((1, 1, 1), np.bool_)
    assert neighbour_codes(mask).tolist() == [[[128, 64], [32, 16]], [[8, 4], [2, 1]]]


def test_a_full_array_has_codes_inside_and_a_surface_around() -> None:
    codes = neighbour_codes(np.ones((3, 4, 5), np.bool_))
    assert codes.shape == (4, 5, 6)
    assert (codes[1:-1, 1:-1, 1:-1] == 255).all()
    assert np.count_nonzero(codes == 255) == 2 * 3 * 4


def test_equal_masks_score_one_at_no_tolerance() -> None:
    mask = np.random.default_rng(0).random((4, 5, 6)) < 0.3
    assert surface_dice(mask, mask, spacing_mm=SPACING_MM, tolerance_mm=0) == 1


def test_empty_masks_score_one_together_and_zero_alone() -> None:
    empty, full = np.zeros((2, 3, 4), np.bool_), np.ones((2, 3, 4), np.bool_)
    assert surface_dice(empty, empty, spacing_mm=SPACING_MM, tolerance_mm=9) == 1
    assert surface_dice(empty, full, spacing_mm=SPACING_MM, tolerance_mm=9) == 0
    assert surface_dice(full, empty, spacing_mm=SPACING_MM, tolerance_mm=9) == 0


def test_arrays_without_voxels_score_as_empty_masks() -> None:
    nothing = np.zeros((0, 0, 0), np.bool_)
    assert surface_dice(nothing, nothing, spacing_mm=SPACING_MM, tolerance_mm=1) == 1


@pytest.mark.parametrize(("size", "by"), [(4, 1), (6, 2), (5, 3)])
def test_the_share_that_two_moved_boxes_have_in_common_is_that_derived_by_hand(
    size: int, by: int
) -> None:
    # Elements of a cube of k voxels: (k - 1)^2 on each face with area 1, k - 1 on each edge with
    # sqrt(1/2), and a corner has sqrt(3)/8. Moved by d along z, both share k - d rings without
    # their ends and one ring at the end of the cube.
    truth, prediction = moved_boxes(size, by)
    edge, corner = np.sqrt(0.5), np.sqrt(3) / 8
    whole = 6 * (size - 1) ** 2 + 12 * (size - 1) * edge + 8 * corner
    ring, end = 4 * (size - 1) + 4 * edge, 4 * (size - 1) * edge + 4 * corner
    common = (size - by) * ring + end
    found = surface_dice(truth, prediction, spacing_mm=(1, 1, 1), tolerance_mm=0)
    assert found == pytest.approx(common / whole)


@pytest.mark.parametrize("step_mm", [0.7, 1.0, 2.3])
def test_boxes_moved_by_exactly_the_tolerance_agree_and_by_a_hair_more_do_not(
    step_mm: float,
) -> None:
    truth, prediction = moved_boxes(9, 3)
    spacing_mm = (step_mm, 1.0, 1.0)

    def at(tolerance_mm: float) -> float:
        return surface_dice(truth, prediction, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)

    assert at(3 * step_mm) == 1
    assert at(3 * step_mm * (1 - 1e-9)) < 1


def test_the_move_counts_in_mm_along_its_own_axis() -> None:
    truth, prediction = moved_boxes(12, 1)
    for axis in range(3):
        turned = [np.moveaxis(mask, 0, axis) for mask in (truth, prediction)]
        for step_mm, expected in ((1.0, True), (1.2, False)):
            spacing_mm = [5.0, 5.0, 5.0]
            spacing_mm[axis] = step_mm
            found = surface_dice(*turned, spacing_mm=spacing_mm, tolerance_mm=TOLERANCE_MM)
            assert (found == 1) is expected


def test_spheres_one_mm_apart_agree_at_two_mm_and_not_at_a_quarter() -> None:
    z, y, x = (np.arange(-12, 12.1, 0.5) for _ in range(3))
    square = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
    inner, outer = square <= 9**2, square <= 10**2
    spacing_mm = (0.5, 0.5, 0.5)
    assert surface_dice(inner, outer, spacing_mm=spacing_mm, tolerance_mm=2) == 1
    assert surface_dice(inner, outer, spacing_mm=spacing_mm, tolerance_mm=0.25) == 0


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_score_as_by_monai(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(2, 10, 3))
    truth, prediction = (random.random(shape) < random.uniform(0.05, 0.95) for _ in range(2))
    truth.flat[0] = prediction.flat[-1] = True
    spacing_mm = random.uniform(0.3, 4, 3).tolist()
    tolerance_mm = float(random.choice([0.5, 1.0331, 1.1498, 3.0]))
    found = surface_dice(truth, prediction, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    assert found == pytest.approx(by_monai(truth, prediction, spacing_mm, tolerance_mm), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_smooth_masks_that_nearly_agree_score_as_by_monai(seed: int) -> None:
    random = np.random.default_rng(seed)
    z, y, x = np.ogrid[:14, :30, :32]
    masks = []
    for _ in range(2):
        centre, radius = random.normal((7, 15, 16), 0.6), random.normal((4, 10, 11), 0.4)
        parts = zip((z, y, x), centre, radius, strict=True)
        masks.append(sum(((axis - c) / r) ** 2 for axis, c, r in parts) <= 1)
    found = surface_dice(*masks, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM)
    assert 0 < found < 1
    assert found == pytest.approx(by_monai(*masks, SPACING_MM), abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    bits=st.lists(st.integers(0, 3), min_size=27, max_size=27),
    flips=st.tuples(*[st.booleans()] * 3),
    order=st.permutations(range(3)),
)
def test_turning_mirroring_and_swapping_change_nothing(
    bits: list[int], flips: tuple[bool, ...], order: list[int]
) -> None:
    both = np.asarray(bits).reshape(3, 3, 3)
    truth, prediction = (both & 1).astype(bool), (both & 2).astype(bool)
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    turned = [mask[turn].transpose(order) for mask in (prediction, truth)]
    expected = surface_dice(truth, prediction, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM)
    found = surface_dice(
        *turned, spacing_mm=[SPACING_MM[axis] for axis in order], tolerance_mm=TOLERANCE_MM
    )
    assert found == pytest.approx(expected)


def test_scores_do_not_depend_on_how_many_corners_are_handled_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(3)
    truth, prediction = (random.random((6, 7, 8)) < 0.4 for _ in range(2))

    def found() -> float:
        return surface_dice(truth, prediction, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM)

    whole = found()
    monkeypatch.setattr(surface, "_CHUNK", 13)
    assert found() == whole


def test_masks_are_left_as_they_were() -> None:
    random = np.random.default_rng(4)
    masks = [random.random((3, 4, 5)) < 0.5 for _ in range(2)]
    copies = [mask.copy() for mask in masks]
    surface_dice(*masks, spacing_mm=SPACING_MM, tolerance_mm=TOLERANCE_MM)
    assert all((mask == copy).all() for mask, copy in zip(masks, copies, strict=True))
