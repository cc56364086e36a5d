import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
)

from kits_runtime.errors import ScanError
from kits_runtime.volume import (
    Orientation,
    Volume,
    empty_labels,
    labels_in_source_order,
    orientation_from_affine,
    source_affine,
    volume_from_array,
)

SHAPE = (3, 4, 5)
unhurried = settings(deadline=None)  # a busy machine is no failure
KITS_AFFINE = np.array([[0, 0, -0.8, 11.0], [0, -0.7, 0, 22.0], [-2.5, 0, 0, 33.0], [0, 0, 0, 1.0]])
# Every order and direction of three axes, as nibabel writes them: the new place and the direction
# of each axis.
ARRANGEMENTS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]
every_arrangement = pytest.mark.parametrize("ornt", ARRANGEMENTS, ids=lambda o: str(o.T.tolist()))


def voxels(dtype: npt.DTypeLike = np.int16) -> npt.NDArray[Any]:
    return np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE)


def rotation(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Returns a random orthogonal matrix, half of them left-handed."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix


def with_rotation(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    affine = KITS_AFFINE.copy()
    affine[:3, :3] = matrix @ affine[:3, :3]
    return affine


def turned(degrees: float, world_axis: int) -> npt.NDArray[np.float64]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = [axis for axis in range(3) if axis != world_axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


OBLIQUE = {
    "straight": np.eye(3),
    "tilted": turned(17, 0) @ turned(-8, 2),
    "45 degrees about z": turned(45, 2),
    "45 degrees about x": turned(45, 0),
    "45 degrees about y and z": turned(45, 1) @ turned(45, 2),
    "all cosines alike": np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]])
    / np.sqrt([[3.0], [2.0], [6.0]]),
}


def test_a_kits_scan_is_taken_as_it_is() -> None:
    data = voxels()

    volume = volume_from_array(data, KITS_AFFINE)

    assert volume.orientation == Orientation(axes=(0, 1, 2), flips=(False, False, False))
    assert np.shares_memory(volume.data, data)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_array_equal(volume.affine, KITS_AFFINE)
    assert volume.spacing_mm == pytest.approx((2.5, 0.7, 0.8))


def test_an_ras_scan_is_turned_by_hand() -> None:
    data = np.arange(24).reshape(2, 3, 4)  # x towards right, y towards anterior, z towards superior
    affine = np.diag([0.5, 0.6, 2.0, 1.0])

    volume = volume_from_array(data, affine)

    # The first model voxel is the most superior, anterior and right one.
    assert volume.data[0, 0, 0] == data[1, 2, 3]
    assert volume.data[3, 2, 1] == data[0, 0, 0]
    assert volume.data[1, 0, 1] == data[0, 2, 2]
    np.testing.assert_allclose(
        volume.affine,
        [[0, 0, -0.5, 0.5], [0, -0.6, 0, 1.2], [-2.0, 0, 0, 6.0], [0, 0, 0, 1]],
    )
    assert volume.spacing_mm == pytest.approx((2.0, 0.6, 0.5))


@every_arrangement
@pytest.mark.parametrize("matrix", OBLIQUE.values(), ids=OBLIQUE.keys())
def test_all_48_arrangements_give_the_same_volume(
    ornt: npt.NDArray[Any], matrix: npt.NDArray[np.float64]
) -> None:
    affine = with_rotation(matrix)
    expected = volume_from_array(voxels(), affine)

    data = apply_orientation(voxels(), ornt)
    arranged = volume_from_array(data, affine @ inv_ornt_aff(ornt, SHAPE))

    np.testing.assert_array_equal(arranged.data, expected.data)
    np.testing.assert_allclose(arranged.affine, expected.affine, rtol=0, atol=1e-12)


@every_arrangement
def test_rounding_to_float32_does_not_sway_a_tie(ornt: npt.NDArray[Any]) -> None:
    affine = with_rotation(turned(45, 2))
    noise = np.random.default_rng(ornt[:, 0] @ [1, 3, 9]).uniform(-1e-7, 1e-7, (4, 4))
    noise[3] = 0

    arranged = volume_from_array(
        apply_orientation(voxels(), ornt), affine @ inv_ornt_aff(ornt, SHAPE) + noise
    )

    np.testing.assert_array_equal(arranged.data, volume_from_array(voxels(), affine).data)


@every_arrangement
def test_the_way_back_restores_array_and_affine(ornt: npt.NDArray[Any]) -> None:
    affine = with_rotation(OBLIQUE["tilted"]) @ inv_ornt_aff(ornt, SHAPE)
    data = apply_orientation(voxels(), ornt)

    volume = volume_from_array(data, affine)

    np.testing.assert_array_equal(volume.orientation.to_source(volume.data), data)
    np.testing.assert_allclose(source_affine(volume), affine, rtol=0, atol=1e-12)


@every_arrangement
def test_turning_is_a_view(ornt: npt.NDArray[Any]) -> None:
    data = voxels()
    orientation = volume_from_array(data, KITS_AFFINE @ inv_ornt_aff(ornt, SHAPE)).orientation

    assert np.shares_memory(orientation.to_model(data), data)
    assert np.shares_memory(orientation.to_source(data), data)


def test_the_closest_axes_are_those_of_nibabel() -> None:
    rng = np.random.default_rng(7)
    for _ in range(500):
        matrix = rotation(rng)
        affine = np.eye(4)
        affine[:3, :3] = matrix * rng.uniform(0.3, 5, 3)

        orientation = orientation_from_affine(affine)

        # Clearest axis first, as newer versions of nibabel sort them themselves.
        clearest = np.argsort(-np.abs(matrix).max(axis=0))
        ornt = np.empty((3, 2))
        ornt[clearest] = io_orientation(affine[:, [*clearest, 3]])
        world = [int(ornt[axis, 0]) for axis in orientation.axes]
        runs_with_world = [ornt[axis, 1] > 0 for axis in orientation.axes]
        assert world == [2, 1, 0]
        assert list(orientation.flips) == runs_with_world


@unhurried
@given(
    index=st.tuples(*(st.integers(0, size - 1) for size in SHAPE)),
    ornt=st.sampled_from(ARRANGEMENTS),
)
def test_every_voxel_keeps_its_place_in_the_patient(
    index: tuple[int, int, int], ornt: npt.NDArray[Any]
) -> None:
    data = voxels()
    affine = with_rotation(OBLIQUE["tilted"]) @ inv_ornt_aff(ornt, SHAPE)

    volume = volume_from_array(data, affine)

    found = np.argwhere(volume.data == data[index])[0]
    np.testing.assert_allclose(
        volume.affine @ [*found, 1], affine @ [*index, 1], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("order", ["C", "F"])
@every_arrangement
def test_empty_labels_lie_in_memory_as_the_source_does(ornt: npt.NDArray[Any], order: Any) -> None:
    data = np.array(apply_orientation(voxels(), ornt), order=order)
    volume = volume_from_array(data, KITS_AFFINE @ inv_ornt_aff(ornt, SHAPE))

    labels = empty_labels(volume)

    stored = labels_in_source_order(volume, labels)
    assert labels.shape == volume.data.shape
    assert labels.dtype == np.uint8
    assert not labels.any()
    assert stored.flags.c_contiguous if order == "C" else stored.flags.f_contiguous
    assert [2 * stride for stride in stored.strides] == list(data.strides)


def test_empty_labels_follow_a_source_with_shuffled_memory() -> None:
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 2, 0)[::-1]
    volume = volume_from_array(data, KITS_AFFINE)

    stored = labels_in_source_order(volume, empty_labels(volume))

    assert stored.strides == (4, 1, 12)


@every_arrangement
def test_labels_go_back_to_the_voxels_they_describe(ornt: npt.NDArray[Any]) -> None:
    data = apply_orientation(voxels(), ornt)
    volume = volume_from_array(data, KITS_AFFINE @ inv_ornt_aff(ornt, SHAPE))
    labels = empty_labels(volume)
    labels[volume.data % 7 == 0] = 2

    np.testing.assert_array_equal(labels_in_source_order(volume, labels), 2 * (data % 7 == 0))


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 5, 4), np.uint8), np.zeros(SHAPE, np.int16), np.zeros(SHAPE, bool)]
)
def test_labels_of_another_grid_or_type_are_refused(labels: Any) -> None:
    volume = volume_from_array(voxels(), KITS_AFFINE)

    with pytest.raises(ValueError, match="expected uint8 on 3 x 4 x 5;"):
        labels_in_source_order(volume, labels)


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "<i2", "u2", "i4", ">i4", "u4", "i8", "u8"])
def test_integers_that_fit_become_int16(dtype: str) -> None:
    volume = volume_from_array(voxels(dtype), KITS_AFFINE)

    assert volume.data.dtype == np.int16
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, voxels(np.int64))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("i4", 32767, np.int16),
        ("i4", -32768, np.int16),
        ("i4", 32768, np.float32),
        ("i4", -32769, np.float32),
        ("u2", 65535, np.float32),
        ("u8", 2**40, np.float32),
    ],
)
def test_integers_beyond_int16_become_float32(dtype: str, value: int, expected: Any) -> None:
    data = voxels(dtype)
    data[1, 2, 3] = value

    volume = volume_from_array(data, KITS_AFFINE)

    assert volume.data.dtype == expected
    assert volume.data[1, 2, 3] == value


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", ">f8", "g"])
def test_real_numbers_become_native_float32(dtype: str) -> None:
    data = voxels(dtype) + np.array(0.25, dtype)

    volume = volume_from_array(data, KITS_AFFINE)

    assert volume.data.dtype == np.float32
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data, voxels(np.float64) + 0.25)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_native_arrays_are_not_copied(dtype: Any) -> None:
    data = voxels(dtype)

    assert np.shares_memory(volume_from_array(data, KITS_AFFINE).data, data)


@pytest.mark.parametrize("dtype", ["u1", "i4", "f8", ">i2"])
def test_the_source_array_is_never_changed(dtype: str) -> None:
    data = voxels(dtype)
    before = data.copy()

    volume = volume_from_array(data, KITS_AFFINE)
    volume.data.fill(0)

    np.testing.assert_array_equal(data, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_no_numbers_are_refused(value: float) -> None:
    data = voxels(np.float64)
    data[0, 1, 1] = value

    with pytest.raises(ScanError, match="found 1 voxels that are NaN, infinite"):
        volume_from_array(data, KITS_AFFINE)


@pytest.mark.parametrize(
    "dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), object]
)
def test_colour_and_complex_voxels_are_refused(dtype: Any) -> None:
    with pytest.raises(ScanError, match="expected integers or real numbers"):
        volume_from_array(np.zeros(SHAPE, dtype), KITS_AFFINE)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 4, 4), (4, 4, 4, 1), (0, 4, 4)])
def test_anything_but_three_axes_of_two_voxels_is_refused(shape: tuple[int, ...]) -> None:
    shown = " x ".join(map(str, shape))
    with pytest.raises(ScanError, match=f"found an array of {shown} voxels"):
        volume_from_array(np.zeros(shape, np.int16), KITS_AFFINE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("entry", [(0, 0), (1, 3), (3, 3)])
def test_an_affine_that_is_not_finite_is_refused(value: float, entry: tuple[int, int]) -> None:
    affine = KITS_AFFINE.copy()
    affine[entry] = value

    with pytest.raises(ScanError, match="expected finite numbers"):
        volume_from_array(voxels(), affine)


def test_a_projective_affine_is_refused() -> None:
    affine = KITS_AFFINE.copy()
    affine[3, 0] = 0.1

    with pytest.raises(ScanError, match="last row of 0, 0, 0, 1"):
        volume_from_array(voxels(), affine)


def test_a_singular_affine_is_refused() -> None:
    without_z = KITS_AFFINE.copy()
    without_z[:, 0] = 0
    endless = KITS_AFFINE.copy()
    endless[0, 2] = 1e300
    doubled = KITS_AFFINE.copy()
    doubled[:3, 1] = doubled[:3, 0]

    with pytest.raises(ScanError, match=r"found a voxel spacing of \(0.0, 0.7, 0.8\) mm"):
        volume_from_array(voxels(), without_z)
    with pytest.raises(ScanError, match=r"found a voxel spacing of \(2.5, 0.7, inf\) mm"):
        volume_from_array(voxels(), endless)
    with pytest.raises(ScanError, match=r"found axes 90.00 degrees off a right angle"):
        volume_from_array(voxels(), doubled)


def test_a_tilted_gantry_is_refused_and_rounding_is_not() -> None:
    def sheared(degrees: float) -> npt.NDArray[np.float64]:
        affine = KITS_AFFINE.copy()
        affine[1, 0] = 2.5 * np.tan(np.radians(degrees))
        return affine

    volume_from_array(voxels(), sheared(0.49))
    with pytest.raises(ScanError, match=r"found axes 0.51 degrees off a right angle"):
        volume_from_array(voxels(), sheared(0.51))
    with pytest.raises(ScanError, match=r"found axes 12.00 degrees off"):
        volume_from_array(voxels(), sheared(-12))


def test_an_affine_of_another_shape_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"found shape \(3, 3\); expected \(4, 4\)"):
        volume_from_array(voxels(), np.eye(3))


def test_errors_name_the_scan() -> None:
    with pytest.raises(ScanError, match=r"^case_00042: found"):
        volume_from_array(voxels(complex), KITS_AFFINE, where="case_00042")


def test_volumes_compare_by_identity() -> None:
    first = volume_from_array(voxels(), KITS_AFFINE)
    second = Volume(data=first.data, affine=first.affine, orientation=first.orientation)

    assert first != second
