"""``kits-train`` from the command line: what it leaves, how it goes on, what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training_cases import anatomy, write_case, write_nifti

from kits_trt.data.datasets import TrainingCase
from kits_trt.phantom.marker import Origin, mark_phantom
from kits_trt.systems import SYSTEMS
from kits_trt.train.checkpoint import read_system_checkpoint, read_trained_nets
from kits_trt.train.cli import main
from kits_trt.train.course import Course
from kits_trt.train.provenance import data_facts, has_real_anatomy
from kits_trt.train.state_file import Settings, write_state
from kits_trt.train.trainee import Trainee

FAST = ("--preset", "small", "--batch-size", "2", "--threads", "1", "--workers", "1")
KIDNEY, TUMOUR = "kidney-unet", "tumour-unet"
PATIENCE_S = 240  # for machines that do much else


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(3):
        write_case(tmp_path / "data" / f"case_{number:05d}")
    return tmp_path / "data"


def train(data: Path, out: Path, *more: str) -> int:
    return main(["unet2d-pair", "--data", str(data), "--out", str(out), *FAST, *more])


def facts_of(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as opened:
        facts: dict[str, object] = json.loads(opened.metadata()["kits"])
    return facts


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_run_leaves_checkpoints_a_record_metrics_and_curves(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--max-steps", "2") == 0
    nets, facts = read_system_checkpoint(out / "best.safetensors")
    assert list(nets) == [KIDNEY, TUMOUR]
    assert (facts["system"], facts["preset"], facts["seed"]) == ("unet2d-pair", "small", 0)
    assert facts["licence"] == "CC BY-NC-SA 4.0"
    assert set(read_system_checkpoint(out / "last.safetensors")[0]) == {KIDNEY, TUMOUR}
    record = json.loads((out / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["system_dice"] == record["system_scores"]["Dice_kidney"]
    assert facts["metrics"]["system"] == {**record["system_scores"], "fixed mask": 1.0}
    assert record["fixed_mask_dice"] == 1.0, "three equal cases: the mask of one fits the others"
    split = record["splits"][KIDNEY]
    assert len(split["teaching"]) == 2
    assert len(split["validating"]) == 1
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [(row["net"], row["step"]) for row in rows] == [(KIDNEY, "2"), (TUMOUR, "2")]
    assert all(0 <= float(row["dice_1"]) <= 1 and float(row["validation_loss"]) > 0 for row in rows)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize("system", sorted(set(SYSTEMS) - {"unet2d-pair"}))
def test_every_system_takes_steps_and_is_scored_as_a_whole(
    data: Path, tmp_path: Path, system: str
) -> None:
    out, held_out = tmp_path / "run", tmp_path / "held-out"
    write_case(held_out / "case_00000")
    more = ("--validation-data", str(held_out), "--max-steps", "2", "--amp")
    assert main([system, "--data", str(data), "--out", str(out), *FAST, *more]) == 0
    nets, facts = read_system_checkpoint(out / "best.safetensors")
    assert facts["system"] == system
    assert all(torch.isfinite(w).all() for net in nets.values() for w in net.parameters())
    record = json.loads((out / "run.json").read_text())
    assert 0 <= record["system_dice"] <= 1
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["net"] for row in rows if row["step"] == "2"] == list(nets)


def test_resume_ends_with_the_weights_of_a_run_without_a_break(data: Path, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    cache = ("--cache", str(tmp_path / "cache"), "--net", KIDNEY)
    # The cosine ends at the last step, so both are asked for as many epochs and stop by steps.
    assert train(data, straight, *cache, "--epochs", "1", "--max-steps", "4") == 0
    assert train(data, broken, *cache, "--epochs", "1", "--max-steps", "4") == 0
    assert train(data, broken, *cache, "--epochs", "1", "--max-steps", "4", "--resume") == 0
    one, other = (load_file(run / "last.safetensors") for run in (straight, broken))
    assert all((one[name] == other[name]).all() for name in one)


def test_ctrl_c_saves_and_the_rest_is_done_by_resume(data: Path, tmp_path: Path) -> None:
    out, straight = tmp_path / "run", tmp_path / "straight"
    command = ["--net", KIDNEY, "--max-steps", "12", "--cache", str(tmp_path / "cache")]
    arguments = ["unet2d-pair", "--data", str(data), "--out", str(out), *FAST, *command]
    code = f"import sys; from kits_trt.train.cli import main; sys.exit(main({arguments!r}))"
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    # The cases are prepared by the time the record tells of their split; the steps follow.
    deadline = time.monotonic() + PATIENCE_S
    while not (out / "run.json").is_file() or "teaching" not in (out / "run.json").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert KIDNEY in read_trained_nets(out / "last.safetensors")[0]
    assert train(data, out, *command, "--resume") == 0
    assert train(data, straight, *command) == 0
    one, other = (load_file(run / "last.safetensors") for run in (straight, out))
    assert all((one[name] == other[name]).all() for name in one)


def test_a_net_whose_state_was_not_written_begins_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ("--epochs", "2", "--cache", str(tmp_path / "cache"))
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    assert train(data, straight, *steps) == 0

    def end_in_between(path: Path, trainee: Trainee, course: Course, settings: Settings) -> None:
        if course.net == TUMOUR:
            raise OSError("ended")
        write_state(path, trainee, course, settings)

    with monkeypatch.context() as patch:
        patch.setattr("kits_trt.train.run_folder.write_state", end_in_between)
        assert train(data, broken, *steps) == 1
    assert facts_of(broken / "last.safetensors")["nets"] == [KIDNEY, TUMOUR]
    assert facts_of(broken / "last.safetensors")["finished"] == [KIDNEY]
    assert train(data, broken, *steps, "--resume") == 0
    assert facts_of(broken / "last.safetensors")["finished"] == [KIDNEY, TUMOUR]
    for name in ("last.safetensors", "best.safetensors"):
        assert (straight / name).read_bytes() == (broken / name).read_bytes()
    one, other = (
        list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
        for run in (straight, broken)
    )
    assert [{**row, "seconds": ""} for row in one] == [{**row, "seconds": ""} for row in other]


def test_metrics_that_cannot_be_read_are_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    (out / "metrics.csv").write_text("something\nelse\n")
    assert train(data, out, "--max-steps", "2", "--net", KIDNEY, "--resume") == 4
    assert "metrics.csv: found rows that cannot be read" in error_of(capsys)


def test_nets_are_trained_one_by_one_into_one_checkpoint(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--max-steps", "1", "--net", TUMOUR) == 0
    assert facts_of(out / "last.safetensors")["nets"] == [TUMOUR]
    before = load_file(out / "last.safetensors")
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    after = load_file(out / "last.safetensors")
    assert facts_of(out / "best.safetensors")["nets"] == [KIDNEY, TUMOUR]
    assert all((before[name] == after[name]).all() for name in before)


def test_a_run_that_is_there_is_not_begun_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    before = (out / "last.safetensors").read_bytes()
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 2
    assert "add --resume" in error_of(capsys)
    assert train(data, out, "--max-steps", "2", "--net", KIDNEY, "--resume", "--seed", "3") == 2
    assert "found a training with seed 0, expected 3" in error_of(capsys)
    assert (out / "last.safetensors").read_bytes() == before
    assert train(data, tmp_path / "none", "--resume") == 2
    assert "found no last.safetensors" in error_of(capsys)


def test_a_checkpoint_of_another_system_or_preset_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    start = ("--start", str(out / "last.safetensors"))
    other = ["unet3d", "--data", str(data), "--out", str(tmp_path / "b"), *start, "--preset"]
    assert main([*other, "small"]) == 4
    assert "found a checkpoint of unet2d-pair small" in error_of(capsys)
    assert main(["unet2d-pair", *other[1:], "paper"]) == 4
    assert "expected unet2d-pair paper" in error_of(capsys)


def test_training_begins_from_the_weights_of_a_checkpoint(data: Path, tmp_path: Path) -> None:
    out, tuned = tmp_path / "run", tmp_path / "tuned"
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    start = ("--start", str(out / "last.safetensors"))
    assert train(data, tuned, "--max-steps", "1", "--net", KIDNEY, *start) == 0
    one, other = (load_file(run / "last.safetensors") for run in (out, tuned))
    # One step of Adam moves a weight by its learning rate at most, 2e-3 / 30 while it rises.
    furthest = max(float((one[name] - other[name]).abs().max()) for name in one)
    assert 0 < furthest < 1e-3


def test_a_learning_rate_that_is_asked_for_is_kept_to_and_told(data: Path, tmp_path: Path) -> None:
    out, tuned = tmp_path / "run", tmp_path / "tuned"
    assert train(data, out, "--max-steps", "1", "--net", KIDNEY) == 0
    start = ("--start", str(out / "last.safetensors"), "--learning-rate", "3e-5")
    assert train(data, tuned, "--max-steps", "1", "--net", KIDNEY, *start) == 0
    one, other = (load_file(run / "last.safetensors") for run in (out, tuned))
    learnt = [name for name in one if name.endswith("weight")]
    furthest = max(float((one[name] - other[name]).abs().max()) for name in learnt)
    assert 0 < furthest < 1.1 * 3e-5
    recipes = facts_of(tuned / "last.safetensors")["recipes"]
    assert recipes[KIDNEY]["optimiser"]["learning_rate"] == 3e-5


def test_nets_that_are_not_trained_stay_as_the_checkpoint_has_them(
    data: Path, tmp_path: Path
) -> None:
    out, tuned = tmp_path / "run", tmp_path / "tuned"
    assert train(data, out, "--max-steps", "1") == 0
    start = ("--start", str(out / "best.safetensors"))
    assert train(data, tuned, "--max-steps", "1", "--net", TUMOUR, *start) == 0

    before, after = (load_file(run / "best.safetensors") for run in (out, tuned))
    moved = {n.partition("/")[0] for n in before if not torch.equal(before[n], after[n])}
    assert list(read_system_checkpoint(tuned / "best.safetensors")[0]) == [KIDNEY, TUMOUR]
    assert moved == {TUMOUR}
    metrics = [facts_of(run / "best.safetensors")["metrics"] for run in (out, tuned)]
    assert metrics[0][KIDNEY] == metrics[1][KIDNEY]
    assert facts_of(tuned / "last.safetensors")["finished"] == [TUMOUR]


def test_weights_from_phantoms_alone_are_free(data: Path, tmp_path: Path) -> None:
    for number in range(3):
        made = Origin(seed=1, version="0", anatomy=False)
        mark_phantom(data, f"case_{number:05d}", made)
    assert train(data, tmp_path / "a", "--max-steps", "1", "--net", KIDNEY) == 0
    assert facts_of(tmp_path / "a" / "last.safetensors")["licence"] == "Apache-2.0"
    mark_phantom(data, "case_00001", Origin(seed=1, version="0", anatomy=True))
    assert train(data, tmp_path / "b", "--max-steps", "1", "--net", KIDNEY) == 0
    facts = facts_of(tmp_path / "b" / "last.safetensors")
    assert facts["licence"] == "CC BY-NC-SA 4.0"
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (record["licence"], record["data"]["real_anatomy"]) == ("CC BY-NC-SA 4.0", True)
    assert "KiTS" in record["data"]["description"]


def test_a_net_trained_on_free_data_does_not_free_those_trained_before_it(
    data: Path, tmp_path: Path
) -> None:
    for number in range(3):
        made = Origin(seed=1, version="0", anatomy=number == 1)
        mark_phantom(data, f"case_{number:05d}", made)
    assert train(data, tmp_path / "run", "--max-steps", "1", "--net", KIDNEY) == 0
    mark_phantom(data, "case_00001", Origin(seed=1, version="0", anatomy=False))
    assert train(data, tmp_path / "run", "--max-steps", "1", "--net", TUMOUR) == 0
    facts = facts_of(tmp_path / "run" / "last.safetensors")
    assert (facts["nets"], facts["licence"]) == ([KIDNEY, TUMOUR], "CC BY-NC-SA 4.0")
    assert has_real_anatomy(facts)


def test_a_marked_case_in_another_layout_keeps_its_licence(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"licence": "CC0"}))
    scan = tmp_path / "a_0000.nii.gz"
    scan.write_bytes(b"a")
    cases = [TrainingCase(name=name, scan=scan, labels=None, classes={}) for name in ("a", "b")]
    assert data_facts(tmp_path, cases).licence == "CC0 (as the training data states)"
    mark_phantom(tmp_path, "a", Origin(seed=1, version="0", anatomy=True))
    facts = data_facts(tmp_path, cases)
    assert (facts.licence, facts.real_anatomy) == ("CC BY-NC-SA 4.0", True)


def spoil_missing(case: Path) -> None:
    (case / "segmentation.nii.gz").unlink()


def spoil_label(case: Path) -> None:
    labels = anatomy()[1].copy()
    labels[0, 0, 0] = 7
    write_nifti(case / "segmentation.nii.gz", labels)


def spoil_shape(case: Path) -> None:
    write_nifti(case / "segmentation.nii.gz", anatomy()[1][:-1])


def spoil_affine(case: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    write_nifti(case / "segmentation.nii.gz", anatomy()[1], affine)


def spoil_slices(case: Path) -> None:
    write_case(case, anatomy()[0][:1], anatomy()[1][:1])


def spoil_scan(case: Path) -> None:
    (case / "imaging.nii.gz").unlink()


def spoil_everything(case: Path) -> None:
    write_nifti(case / "segmentation.nii.gz", anatomy()[1] * 0)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_missing,
        spoil_label,
        spoil_shape,
        spoil_affine,
        spoil_slices,
        spoil_scan,
        spoil_everything,
    ],
)
def test_a_bad_case_is_named_before_and_in_training(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object
) -> None:
    assert callable(spoil)
    spoil(data / "case_00001")
    assert train(data, tmp_path / "run", "--check-data") == 3
    assert "found 1 bad of 3 cases (case_00001)" in error_of(capsys)
    assert train(data, tmp_path / "run", "--max-steps", "1") == 3
    assert "case_00001" in error_of(capsys)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_an_empty_case_is_bad_and_one_without_tumour_a_note(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = anatomy()[1]
    write_nifti(data / "case_00000" / "segmentation.nii.gz", np.minimum(labels, 1))
    assert train(data, tmp_path / "run", "--check-data") == 0
    assert "note: case_00000" in capsys.readouterr().err
    write_nifti(data / "case_00001" / "segmentation.nii.gz", labels * 0)
    assert train(data, tmp_path / "run", "--check-data") == 3
    assert "bad: case_00001" in capsys.readouterr().err


def test_a_net_that_no_case_can_teach_says_what_they_must_show(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in data.iterdir():
        write_nifti(case / "segmentation.nii.gz", np.minimum(anatomy()[1], 1))
    assert train(data, tmp_path / "run", "--max-steps", "1", "--net", TUMOUR) == 3
    assert "tumour-unet: found no slice with tumour in 2 cases" in error_of(capsys)


def test_cysts_count_as_kidney_unless_told_otherwise(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run", "--max-steps", "1", "--net", KIDNEY) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["cyst"] == "kidney"
    assert "Cysts count as kidney." in record["data"]["description"]


def test_one_case_cannot_be_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_case(tmp_path / "data" / "case_00000")
    assert train(tmp_path / "data", tmp_path / "run", "--max-steps", "1") == 3
    assert "found 1 case, expected at least two" in error_of(capsys)


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (("--net", "resunet3d"), 2, "expected one of kidney-unet, tumour-unet"),
        (("--cyst", "class"), 2, "its nets say kidney or tumour alone"),
        (("--device", "cuda:0"), 5, "found no GPU"),
        (("--device", "cuda:99"), 5, "expected one with number 99"),
    ],
)
def test_what_cannot_be_is_refused(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    if "cuda:0" in more and __import__("torch").cuda.is_available():
        pytest.skip("there is a GPU")
    assert train(data, tmp_path / "run", *more) == code
    assert told in error_of(capsys)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--device", "gpu"), "found 'gpu'; expected auto, cpu, cuda or cuda:N"),
        (("--learning-rate", "fast"), "found 'fast'; expected a number between 0 and 1"),
        (("--learning-rate", "nan"), "found 'nan'; expected a number between 0 and 1"),
    ],
)
def test_values_that_mean_nothing_are_misuse(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    told: str,
) -> None:
    with pytest.raises(SystemExit) as ending:
        train(data, tmp_path / "run", *more)
    assert ending.value.code == 2
    assert told in error_of(capsys)


def test_without_torch_the_extra_is_named(data: Path, tmp_path: Path) -> None:
    refuse = (
        "import importlib.abc, sys\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'safetensors', 'monai'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from kits_trt.train.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    arguments = ["unet3d", "--data", str(data), "--out", str(tmp_path / "run")]
    told = subprocess.run(
        [sys.executable, "-c", refuse, *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 5, told.stderr
    assert "'kits-trt[train]'" in told.stderr
    checked = subprocess.run(
        [sys.executable, "-c", refuse, *arguments, "--check-data"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
