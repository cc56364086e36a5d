import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nifti_files import ARRANGEMENTS

from kits_trt.evaluation.cli import main

AFFINE = np.array([[0, 0, -0.8, 0], [0, -0.7, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
HEADER = "caseID,Dice_kidney,Dice_masses,Dice_tumor,SD_kidney,SD_masses,SD_tumor"


def save(path: Path, labels: Any, affine: Any = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)


def body(tumour: int) -> Any:
    """A kidney of 4 x 8 x 8 voxels with so many of its first slices tumour."""
    labels = np.zeros((8, 12, 14), np.uint8)
    labels[2:6, 2:10, 3:11] = 1
    labels[2 : 2 + tumour, 4:8, 5:9] = 2
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases: a perfect one, one with half of the tumour, one with a tumour made up."""
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    for number, (there, found) in enumerate([(2, 2), (2, 1), (0, 2)]):
        save(truth / f"case_{number:05d}" / "segmentation.nii.gz", body(there))
        save(prediction / f"case_{number:05d}.nii.gz", body(found))
    return truth, prediction


def run(folders: tuple[Path, Path], *more: str) -> int:
    truth, prediction = folders
    return main(["--gt", str(truth), "--pred", str(prediction), *more])


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "evaluation.csv").open(newline="") as file:
        return list(csv.reader(file))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".gz")


def test_the_table_has_the_official_header_each_case_and_their_average(
    folders: tuple[Path, Path],
) -> None:
    assert run(folders, "-q") == 0
    header, *rows = rows_of(folders[1])
    assert ",".join(header) == HEADER
    assert [row[0] for row in rows] == ["case_00000", "case_00001", "case_00002", "average"]
    tumour = [float(row[3]) for row in rows]
    assert tumour == pytest.approx([1, 2 * 16 / (32 + 16), 0, (1 + 2 / 3) / 3], abs=1e-8)
    assert [float(row[1]) for row in rows] == [1, 1, 1, 1]
    assert [row[3] for row in rows[:2]] == ["1.00000000", "0.66666667"]


def test_the_summary_tells_means_empty_cases_and_the_worst_first(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    save(folders[1] / "case_00099.nii.gz", body(1))
    assert run(folders, "-q", "--out", str(tmp_path / "out"), "--gate", "dice_tumor=0.5") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["protocol"], summary["cases"]) == ("kits23", 3)
    tumour = summary["scores"]["Dice_tumor"]
    assert tumour["mean"] == pytest.approx((1 + 2 / 3) / 3)
    assert tumour["median"] == pytest.approx(2 / 3)
    assert tumour["interval_95_of_mean"] == [0, 1]
    assert summary["empty_cases"]["tumor"] == {"truth": 1, "prediction": 0, "both": 0}
    worst = [case["case"] for case in summary["worst_first"]]
    assert worst == ["case_00002", "case_00001", "case_00000"]
    assert summary["worst_first"][0]["Dice_tumor"] == 0
    (gate,) = summary["gates"]
    assert (gate["score"], gate["expected"], gate["met"]) == ("Dice_tumor", 0.5, True)
    assert summary["predictions_without_truth"] == ["case_00099"]
    assert left_in(folders[1]) == []


def test_people_see_the_worst_case_first_and_what_was_not_scored(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[1] / "case_00099.nii.gz", body(1))
    assert run(folders) == 0
    out, told = capsys.readouterr()
    assert out == ""
    lines = told.splitlines()
    assert lines[0].split()[2:] == HEADER.split(",")[1:]
    assert [line.split()[0] for line in lines[1:4]] == ["case_00002", "case_00001", "case_00000"]
    assert lines[1].split()[1:4] == ["1.0000", "0.0000", "0.0000"]
    assert "tumor is empty in 1 truths and 0 predictions" in told
    assert "not scored, without truth: case_00099" in told


def test_quiet_says_nothing(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_many_cases_are_cut_short_on_the_screen_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(23):
        save(tmp_path / "t" / f"{number}.nii", body(1)[2:4, 3:6, 4:7])
    assert run((tmp_path / "t", tmp_path / "t"), "--out", str(tmp_path / "o")) == 0
    assert "... and 3 better cases" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "o")) == 25


def test_kits19_gives_its_own_table(folders: tuple[Path, Path]) -> None:
    assert run(folders, "-q", "--protocol", "kits19", "--cases", "case_00001") == 0
    header, row, average = rows_of(folders[1])
    assert header == ["caseID", "Dice_kidney", "Dice_tumor", "Composite"]
    assert row == ["case_00001", "1.00000000", "0.66666667", "0.83333333"]
    assert average[1:] == row[1:]


@pytest.mark.parametrize("number", [3, 17, 30, 47])
def test_predictions_stored_in_another_arrangement_score_the_same(
    number: int, folders: tuple[Path, Path]
) -> None:
    truth, prediction = folders
    assert run(folders, "-q") == 0
    expected = rows_of(prediction)
    for path in (*prediction.glob("*.nii.gz"), truth / "case_00001" / "segmentation.nii.gz"):
        image: Any = nib.load(path)
        turned = image.as_reoriented(ARRANGEMENTS[number])
        save(path, np.asarray(turned.dataobj).copy(), turned.affine)
    assert run(folders, "-q") == 0
    assert rows_of(prediction) == expected


def test_gates_decide_the_exit_code_and_the_files_are_written_all_the_same(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    gates = ["--gate", "dice_kidney=1", "--gate", "dice_tumor=0.9", "--gate", "sd_tumor=0.99"]
    assert run(folders, "-q", *gates[:2]) == 0
    assert run(folders, "-q", *gates) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kits-eval: --gate: found a mean of dice_tumor 0.5556 (expected at leas")
    assert "dice_kidney" not in line
    assert left_in(folders[1]) == ["evaluation.csv", "summary.json"]
    summary = json.loads((folders[1] / "summary.json").read_text())
    assert [gate["met"] for gate in summary["gates"]] == [True, False, False]


def test_a_gate_on_an_unknown_score_is_misuse_and_nothing_is_scored(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folders, "--gate", "dice=0.5") == 2
    assert "found 'dice=0.5'" in capsys.readouterr().err
    assert left_in(folders[1]) == []


def wrong_shape(folder: Path) -> None:
    save(folder / "case_00001.nii.gz", body(1)[:-1])


def wrong_place(folder: Path) -> None:
    moved = AFFINE.copy()
    moved[2, 3] = 3
    save(folder / "case_00001.nii.gz", body(1), moved)


def wrong_label(folder: Path) -> None:
    save(folder / "case_00001.nii.gz", body(1) * 4)


def no_prediction(folder: Path) -> None:
    (folder / "case_00001.nii.gz").unlink()


def no_nifti(folder: Path) -> None:
    (folder / "case_00001.nii.gz").write_bytes(b"not a label map")


def cut_short(folder: Path) -> None:
    path = folder / "case_00001.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])


def one_slice(folder: Path) -> None:
    save(folder / "case_00001.nii.gz", body(1)[2:3])


def not_a_number(folder: Path) -> None:
    labels = body(1).astype(np.float32)
    labels[0, 0, 0] = np.nan
    save(folder / "case_00001.nii.gz", labels)


@pytest.mark.parametrize(
    "spoil",
    [
        *(wrong_shape, wrong_place, wrong_label, no_prediction),
        *(no_nifti, cut_short, one_slice, not_a_number),
    ],
)
def test_a_bad_prediction_ends_with_code_3_one_line_with_the_case_and_no_file(
    spoil: Any, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folders[1])
    assert run(folders, "--no-progress") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kits-eval: ")
    assert "case_00001" in line
    assert left_in(folders[1]) == []


def test_a_bad_truth_is_named_too(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "case_00000" / "segmentation.nii.gz", body(2) * 9)
    assert run(folders) == 3
    assert "case_00000: " in capsys.readouterr().err


def test_old_results_survive_a_failure(folders: tuple[Path, Path]) -> None:
    assert run(folders, "-q") == 0
    before = rows_of(folders[1])
    wrong_label(folders[1])
    assert run(folders, "-q") == 3
    assert rows_of(folders[1]) == before


def test_an_output_that_cannot_be_made_is_one_line(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(folders, "-q", "--out", str(tmp_path / "file")) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out.startswith("kits-eval ")


def test_the_command_needs_neither_torch_nor_pandas(folders: tuple[Path, Path]) -> None:
    truth, prediction = map(str, folders)
    program = (
        "import sys; from kits_trt.evaluation.cli import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'monai', 'pandas'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, "--gt", truth, "--pred", prediction, "-q"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 []\n", "")
