from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from training_cases import SHAPE, SPACING_MM, anatomy, write_case, write_nifti

from kits_runtime.errors import ScanError
from kits_trt.data.case_files import read_case
from kits_trt.data.check import check_case, check_cases
from kits_trt.data.datasets import TrainingCase, find_training_cases
from kits_trt.data.label_values import Cyst, labels_from_stored
from kits_trt.phantom.cases import kits_affine


def one_case(folder: Path) -> TrainingCase:
    (case,) = find_training_cases(folder)
    return case


def messages(folder: Path) -> list[str]:
    found = check_case(one_case(folder))
    assert all(finding.bad and "\n" not in finding.message for finding in found)
    return [finding.message for finding in found]


def changed(labels: npt.NDArray[np.uint8], *values: int) -> npt.NDArray[np.uint8]:
    """The labels with the first voxels set to these values."""
    result = labels.copy()
    result.ravel()[: len(values)] = values
    return result


def test_a_sound_case_has_no_findings(tmp_path: Path) -> None:
    assert messages(write_case(tmp_path / "a").parent) == []


def test_labels_out_of_range_are_counted_and_named(tmp_path: Path) -> None:
    write_case(tmp_path / "a", labels=changed(anatomy()[1], 7, 9, 7))
    (message,) = messages(tmp_path)
    assert "found 3 voxels of 7, 9; expected the labels 0, 1, 2, 3 alone" in message
    with pytest.raises(ScanError, match="found 3 voxels of 7, 9"):
        read_case(one_case(tmp_path), "background")


def test_labels_that_are_no_whole_numbers_are_out_of_range(tmp_path: Path) -> None:
    labels = anatomy()[1].astype(np.float32)
    labels[0, 0, :2] = 0.5
    write_case(tmp_path / "a", labels=labels)
    assert "found 2 voxels of 0.5" in messages(tmp_path)[0]


def test_another_shape_and_another_place_are_told_with_numbers(tmp_path: Path) -> None:
    write_case(tmp_path / "a", labels=anatomy()[1][1:])
    (message,) = messages(tmp_path)
    assert "found 29 x 72 x 84 voxels (z, y, x); expected 30 x 72 x 84" in message

    moved = kits_affine(SPACING_MM)
    moved[0, 3] = 2.5
    write_nifti(tmp_path / "a" / "segmentation.nii.gz", anatomy()[1], moved)
    (message,) = messages(tmp_path)
    assert "puts a voxel 2.5 mm from" in message
    assert "expected at most 0.4 mm" in message


def test_an_empty_case_is_bad_and_one_without_tumour_is_not(tmp_path: Path) -> None:
    write_case(tmp_path / "a", labels=np.zeros(SHAPE, np.uint8))
    assert "found no labelled voxel" in messages(tmp_path)[0]

    write_case(tmp_path / "a", labels=np.minimum(anatomy()[1], 1))
    (note,) = check_case(one_case(tmp_path))
    assert not note.bad
    assert "found no tumour" in note.message


def test_one_slice_is_bad(tmp_path: Path) -> None:
    write_case(tmp_path / "a", anatomy()[0][:1], anatomy()[1][:1])
    first, second = messages(tmp_path)
    assert "imaging.nii.gz: found an array of 1 x 72 x 84 voxels" in first
    assert "segmentation.nii.gz: found an array of 1 x 72 x 84 voxels" in second


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, value: float) -> None:
    scan = anatomy()[0].astype(np.float32)
    scan[3, 4, 5:7] = value
    write_case(tmp_path / "a", scan)
    assert "found 2 voxels that are NaN, infinite" in messages(tmp_path)[0]


def test_a_truncated_file_and_a_missing_segmentation_are_both_named(tmp_path: Path) -> None:
    scan = write_case(tmp_path / "a") / "imaging.nii.gz"
    scan.write_bytes(scan.read_bytes()[:5000])
    (tmp_path / "a" / "segmentation.nii.gz").unlink()
    found = check_case(TrainingCase(name="a", scan=scan, labels=None, classes={0: 0, 1: 1}))
    assert [finding.bad for finding in found] == [True, True]
    assert "imaging.nii.gz: found" in found[0].message
    assert "imaging.nii.gz: found no segmentation beside it" in found[1].message


def test_all_cases_are_checked_in_order_whatever_is_wrong(tmp_path: Path) -> None:
    for name in "abc":
        write_case(tmp_path / name)
    (tmp_path / "a" / "imaging.nii.gz").write_bytes(b"no scan")
    write_case(tmp_path / "c", labels=changed(anatomy()[1], 4))
    told: list[tuple[int, int, str]] = []

    found = check_cases(find_training_cases(tmp_path), progress=lambda *news: told.append(news))

    assert [finding.case for finding in found] == ["a", "c"]
    assert told == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


@pytest.mark.parametrize(("cyst", "expected"), [("background", 0), ("kidney", 1), ("class", 3)])
def test_cysts_become_what_was_asked_for(cyst: Cyst, expected: int) -> None:
    stored = np.array([0, 1, 2, 3], np.uint8)
    told = labels_from_stored(stored, {0: 0, 1: 1, 2: 2, 3: 3}, cyst)
    assert told.tolist() == [0, 1, 2, expected]
    assert stored.tolist() == [0, 1, 2, 3]


def test_a_case_is_read_on_the_scan_s_axes_with_its_own_names(tmp_path: Path) -> None:
    hu, labels = anatomy()
    flipped = kits_affine(SPACING_MM)
    flipped[2, 0], flipped[2, 3] = SPACING_MM[0], -SPACING_MM[0] * (SHAPE[0] - 1)
    write_case(tmp_path / "a")
    write_nifti(tmp_path / "a" / "segmentation.nii.gz", labels[::-1], flipped)
    case = replace(one_case(tmp_path), classes={0: 0, 1: 2, 2: 1})

    volume, read = read_case(case, "background")

    np.testing.assert_array_equal(volume.data, hu)
    np.testing.assert_array_equal(read, np.array([0, 2, 1], np.uint8)[labels])
