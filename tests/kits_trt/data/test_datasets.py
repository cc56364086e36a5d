import json
from pathlib import Path

import pytest

from kits_runtime.errors import ScanError, UsageError
from kits_trt.data.datasets import find_training_cases


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def nnunet(folder: Path, labels: object) -> Path:
    put(folder, "imagesTr/b_0000.nii.gz", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    put(folder, "labelsTr/b.nii.gz", "imagesTs/c_0000.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def test_kits_cases_come_by_name_with_either_ending(tmp_path: Path) -> None:
    put(tmp_path, "case_00002/imaging.nii", "case_00002/segmentation.nii")
    put(tmp_path, "case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz")
    put(tmp_path, "LICENSE", "notes/readme.txt")

    cases = find_training_cases(tmp_path)

    assert [case.name for case in cases] == ["case_00001", "case_00002"]
    assert cases[1].scan == tmp_path / "case_00002" / "imaging.nii"
    assert cases[1].labels == tmp_path / "case_00002" / "segmentation.nii"
    assert dict(cases[0].classes) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_of_kits21_the_segmentation_counts_before_the_vote_of_its_raters(tmp_path: Path) -> None:
    put(tmp_path, "a/imaging.nii.gz", "a/aggregated_MAJ_seg.nii.gz")
    put(tmp_path, "b/imaging.nii.gz", "b/aggregated_MAJ_seg.nii.gz", "b/segmentation.nii.gz")

    names = [case.labels.name for case in find_training_cases(tmp_path) if case.labels]

    assert names == ["aggregated_MAJ_seg.nii.gz", "segmentation.nii.gz"]


def test_a_case_without_a_segmentation_is_there_to_be_named(tmp_path: Path) -> None:
    put(tmp_path, "a/imaging.nii.gz", "a/segmentation.nii.gz", "b/imaging.nii.gz")

    assert [case.labels is None for case in find_training_cases(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "cyst": 1, "kidney": 5, "tumor": 2},
        {"0": "background", "1": "cyst", "5": "Kidney", "2": "Tumour"},
    ],
)
def test_nnunet_values_mean_what_their_names_say(tmp_path: Path, labels: object) -> None:
    cases = find_training_cases(nnunet(tmp_path, labels))

    assert [case.name for case in cases] == ["a", "b"]
    assert cases[0].scan == tmp_path / "imagesTr" / "a_0000.nii.gz"
    assert cases[0].labels == tmp_path / "labelsTr" / "a.nii.gz"
    assert dict(cases[0].classes) == {0: 0, 1: 3, 5: 1, 2: 2}


@pytest.mark.parametrize("labels", [{"spleen": 1}, {"kidney": [1, 2]}, ["kidney"], None])
def test_nnunet_labels_of_another_meaning_are_refused(tmp_path: Path, labels: object) -> None:
    with pytest.raises(ScanError, match=r"dataset.json: found labels that cannot be told .*tumour"):
        find_training_cases(nnunet(tmp_path, labels))


def test_a_folder_of_neither_layout_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "scan.nii.gz", "test/imaging.nii.gz")
    with pytest.raises(ScanError, match="found no training case; expected case_"):
        find_training_cases(tmp_path)
    with pytest.raises(ScanError, match="found no such folder"):
        find_training_cases(tmp_path / "absent")


def test_only_the_cases_asked_for_are_taken(tmp_path: Path) -> None:
    for name in "abc":
        put(tmp_path, f"{name}/imaging.nii.gz", f"{name}/segmentation.nii.gz")

    assert [case.name for case in find_training_cases(tmp_path, only=["c", "a"])] == ["a", "c"]
    with pytest.raises(UsageError, match="found no case 'd'; expected names such as 'a'"):
        find_training_cases(tmp_path, only=["a", "d"])
