from pathlib import Path

import pytest

from kits_runtime.errors import ScanError, UsageError
from kits_trt.evaluation.pairs import find_pairs


def put(folder: Path, *names: str) -> Path:
    """Makes empty files; finding pairs reads none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


KITS = ("case_00000/segmentation.nii.gz", "case_00001/segmentation.nii.gz")
FLAT = ("case_00001.nii.gz", "case_00000.nii.gz")


@pytest.mark.parametrize("truth", [KITS, FLAT, ("case_00000.nii", "case_00001.nii")])
@pytest.mark.parametrize("prediction", [KITS, FLAT])
def test_cases_meet_by_name_in_either_layout(
    truth: tuple[str, ...], prediction: tuple[str, ...], tmp_path: Path
) -> None:
    found = find_pairs(put(tmp_path / "t", *truth), put(tmp_path / "p", *prediction))
    assert [pair.case for pair in found.pairs] == ["case_00000", "case_00001"]
    assert {pair.truth.relative_to(tmp_path / "t").as_posix() for pair in found.pairs} == set(truth)
    found_names = {pair.prediction.relative_to(tmp_path / "p").as_posix() for pair in found.pairs}
    assert found_names == set(prediction)


def test_what_kits_infer_and_this_command_leave_beside_predictions_is_passed_over(
    tmp_path: Path,
) -> None:
    beside = ("case_00000.json", "case_00000.png", "summary.csv", "evaluation.csv", ".x.nii.gz")
    prediction = put(tmp_path / "p", *FLAT, *beside)
    truth = put(tmp_path / "t", *KITS, "case_00000/imaging.nii.gz", "kits.json")
    assert len(find_pairs(truth, prediction).pairs) == 2


def test_predictions_without_truth_are_named_and_not_scored(tmp_path: Path) -> None:
    prediction = put(tmp_path / "p", *FLAT, "case_00009.nii.gz")
    found = find_pairs(put(tmp_path / "t", *KITS), prediction)
    assert found.without_truth == ("case_00009",)
    assert len(found.pairs) == 2


def test_a_missing_prediction_is_refused_with_the_case(tmp_path: Path) -> None:
    truth = put(tmp_path / "t", *KITS, "case_00002/segmentation.nii.gz")
    prediction = put(tmp_path / "p", "case_00000.nii.gz")
    with pytest.raises(ScanError, match="no prediction of case_00001 and 1 more cases"):
        find_pairs(truth, prediction)


def test_named_cases_alone_are_scored(tmp_path: Path) -> None:
    truth, prediction = put(tmp_path / "t", *KITS), put(tmp_path / "p", "case_00001.nii.gz")
    found = find_pairs(truth, prediction, cases=["case_00001", "case_00001"])
    assert [pair.case for pair in found.pairs] == ["case_00001"]


def test_a_named_case_without_truth_is_a_usage_error(tmp_path: Path) -> None:
    truth, prediction = put(tmp_path / "t", *KITS), put(tmp_path / "p", *FLAT)
    with pytest.raises(
        UsageError, match=r"found 'case_7'; expected a case .* such as 'case_00000'"
    ):
        find_pairs(truth, prediction, cases=["case_7"])


def test_two_label_maps_of_one_case_are_refused(tmp_path: Path) -> None:
    truth = put(tmp_path / "t", *KITS)
    prediction = put(tmp_path / "p", *FLAT, "case_00001.nii")
    with pytest.raises(ScanError, match="two label maps of case_00001"):
        find_pairs(truth, prediction)


def test_a_missing_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    truth = put(tmp_path / "t", *KITS)
    with pytest.raises(ScanError, match="no such folder"):
        find_pairs(truth, tmp_path / "nowhere")
    with pytest.raises(ScanError, match="no label map"):
        find_pairs(put(tmp_path / "e", "notes.txt"), truth)
