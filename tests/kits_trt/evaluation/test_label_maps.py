from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nifti_files import ARRANGEMENTS, header_like, write_nifti

from kits_runtime.errors import ScanError
from kits_trt.evaluation.label_maps import (
    LabelMap,
    check_same_grid,
    check_spacing,
    read_labels,
)

KITS_AFFINE = np.array([[0, 0, -0.8, 0], [0, -0.7, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
LABELS = np.random.default_rng(0).integers(0, 4, (4, 5, 6)).astype(np.uint8)


def saved(path: Path, data: Any, affine: Any = KITS_AFFINE) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def label_map(labels: Any = LABELS, affine: Any = KITS_AFFINE, name: str = "p.nii") -> LabelMap:
    return LabelMap(labels=labels, affine=np.asarray(affine, float), path=Path(name))


def test_a_kits_file_is_read_as_it_is_stored(tmp_path: Path) -> None:
    found = read_labels(saved(tmp_path / "a.nii.gz", LABELS), 3)
    assert found.labels.dtype == np.uint8
    assert (found.labels == LABELS).all()
    assert found.spacing_mm == pytest.approx((3, 0.7, 0.8))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_labels_are_the_same_in_every_type(dtype: str, tmp_path: Path) -> None:
    found = read_labels(saved(tmp_path / "a.nii", LABELS.astype(dtype)), 3)
    assert (found.labels == LABELS).all()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_all_48_arrangements_are_read_onto_the_same_axes(arrangement: Any, tmp_path: Path) -> None:
    image = nib.Nifti1Image(LABELS, KITS_AFFINE).as_reoriented(arrangement)
    found = read_labels(saved(tmp_path / "a.nii", np.asarray(image.dataobj), image.affine), 3)
    assert (found.labels == LABELS).all()
    check_same_grid(label_map(), found)


def test_scaled_labels_are_read_by_their_values(tmp_path: Path) -> None:
    header = header_like((4, 5, 6), "<i2", scl_slope=2, scl_inter=-2)
    found = read_labels(write_nifti(tmp_path / "a.nii", header, LABELS % 2 + 1), 3)
    assert sorted(np.unique(found.labels).tolist()) == [0, 2]


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (4, "uint8", "found 4 among"),
        (-1, "int16", "found -1 among"),
        (260, "uint16", "found 260 among"),
        (65_537, "int32", "found 65537 among"),
        (0.5, "float32", "found 0.5 among"),
        (1e9, "float64", "found 1e+09 among"),
    ],
)
def test_a_value_that_is_no_label_is_refused_by_name(
    value: float, dtype: str, shown: str, tmp_path: Path
) -> None:
    data = LABELS.astype(dtype)
    data[1, 2, 3] = value
    path = saved(tmp_path / "a.nii", data)
    with pytest.raises(ScanError) as refusal:
        read_labels(path, 3)
    assert str(refusal.value).startswith(str(path))
    assert shown in str(refusal.value)
    assert "expected the labels 0 to 3 alone" in str(refusal.value)


def test_many_strange_values_are_counted(tmp_path: Path) -> None:
    scan = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    with pytest.raises(ScanError, match="found 4, 5, 6, 7 and 112 more values among"):
        read_labels(saved(tmp_path / "a.nii", scan), 3)


def test_a_cyst_is_refused_where_the_protocol_has_none(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="found 3 among its voxels; expected the labels 0 to 2"):
        read_labels(saved(tmp_path / "a.nii", LABELS), 2)


def test_another_shape_is_refused_with_both_shapes() -> None:
    short = label_map(LABELS[1:], name="short.nii")
    with pytest.raises(ScanError, match=r"short.nii: found 3 x 5 x 6 .* expected 4 x 5 x 6"):
        check_same_grid(label_map(), short)


@pytest.mark.parametrize(("row", "column"), [(0, 3), (2, 3), (0, 2), (2, 0)])
def test_voxels_at_another_place_are_refused(row: int, column: int) -> None:
    moved = KITS_AFFINE.copy()
    moved[row, column] += 0.5
    with pytest.raises(ScanError, match="found an affine that puts a voxel"):
        check_same_grid(label_map(), label_map(affine=moved))


def test_the_farthest_voxel_is_what_an_affine_is_judged_by() -> None:
    # 3.02 instead of 3.0 mm moves the last of 4 slices by 0.06 mm, of 5 by 0.08: 0.07 is allowed.
    stretched = KITS_AFFINE.copy()
    stretched[2, 0] = -3.02
    check_same_grid(label_map(), label_map(affine=stretched))
    taller = np.zeros((5, 5, 6), np.uint8)
    with pytest.raises(ScanError, match=r"0.08 mm from .* expected at most 0.07 mm"):
        check_same_grid(label_map(taller), label_map(taller, stretched))


def test_the_rounding_of_a_header_is_no_other_grid() -> None:
    rounded = KITS_AFFINE.astype(np.float32).astype(float) + 1e-4
    check_same_grid(label_map(), label_map(affine=rounded))


def test_voxels_in_metres_are_refused_and_fine_ones_are_not() -> None:
    metres = KITS_AFFINE.copy()
    metres[:3] /= 1000
    with pytest.raises(ScanError, match=r"found voxels of 0.003 x 0.0007 x 0.0008 mm"):
        check_spacing(label_map(affine=metres))
    check_spacing(label_map(affine=np.diag([0.5, 0.1, 0.1, 1])))
