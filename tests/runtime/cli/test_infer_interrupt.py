"""Ctrl-C and SIGTERM in the middle of a batch, and the run that finishes it."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from bundles import phantom, write_one_stage, write_scan

from kits_runtime.pipeline import file_sha256

Start = Callable[..., "subprocess.Popen[str]"]

CASES = 12
SIDES = ("right", "left")
PATIENCE_S = 240  # for machines that do much else


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes some tenths of a second for a case."""
    return write_one_stage(tmp_path_factory.mktemp("bundle") / "slow.kits", kernel=19)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for index in range(CASES):
        made = phantom(tumour_on=SIDES[index % 2], seed=index)  # type: ignore[arg-type]
        write_scan(folder / f"case_{index}.nii.gz", made)
    return folder


def summary_of(out: Path) -> dict[str, str]:
    with (out / "summary.csv").open(newline="") as stream:
        return {row["case"]: row["status"] for row in csv.DictReader(stream)}


def finished_in(out: Path) -> set[str]:
    return {path.name.removesuffix(".json") for path in out.glob("*.json")}


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def check_whole(out: Path, name: str) -> None:
    """A finished case: its record is complete, and its mask is the one that the record means."""
    index = int(name.removeprefix("case_"))
    record = json.loads((out / f"{name}.json").read_text())
    mask = out / f"{name}.nii.gz"
    assert record["mask_sha256"] == file_sha256(mask)
    assert set(record["statistics"]) == {"kidney", "tumour"}
    expected = phantom(tumour_on=SIDES[index % 2]).labels  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.asarray(nib.load(mask).dataobj), expected)


@pytest.mark.parametrize(
    "kinds",
    [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT, signal.SIGTERM)],
    ids=lambda kinds: "+".join(kind.name for kind in kinds),
)
def test_what_was_finished_stays_whole_and_the_rest_is_done_by_a_second_run(
    in_process_of_its_own: Start,
    kits_infer: Any,
    slow: Path,
    scans: Path,
    tmp_path: Path,
    kinds: tuple[signal.Signals, ...],
) -> None:
    out = tmp_path / "out"
    process = in_process_of_its_own(
        *("infer", "-i", scans, "-o", out, "--bundle", slow),
        *("--backend", "ort-cpu", "--threads", "1", "--log-json", tmp_path / "log"),
    )
    wait_for(lambda: len(finished_in(out)) >= 2, process)
    for kind in kinds:
        os.kill(process.pid, kind)
        time.sleep(0.02)
    _, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "kits-infer: interrupted; finished results are intact"
    assert "Traceback" not in err
    finished = finished_in(out)
    assert 2 <= len(finished) < CASES
    for name in finished:
        check_whole(out, name)
    expected = {f"{name}{end}" for name in finished for end in (".nii.gz", ".json")}
    assert {path.name for path in out.iterdir()} == {*expected, "summary.csv"}
    assert summary_of(out) == dict.fromkeys(finished, "ok")
    last = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert (last["event"], last["ended"], last["cases"]) == ("end", len(finished), CASES)

    again = kits_infer("-i", scans, "-o", out, "--bundle", slow, "--skip-existing")
    assert again.code == 0
    names = {f"case_{index}" for index in range(CASES)}
    assert finished_in(out) == names
    for name in names:
        check_whole(out, name)
    status = summary_of(out)
    assert {name for name in names if status[name] == "skipped"} == finished
    assert {name for name in names if status[name] == "ok"} == names - finished


def test_a_killed_run_leaves_only_what_the_next_one_tidies_up(
    in_process_of_its_own: Start, kits_infer: Any, slow: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = in_process_of_its_own(
        *("infer", "-i", scans, "-o", out, "--bundle", slow),
        *("--backend", "ort-cpu", "--threads", "1"),
    )
    wait_for(lambda: len(finished_in(out)) >= 1, process)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    for name in finished_in(out):
        check_whole(out, name)
    assert kits_infer("-i", scans, "-o", out, "--bundle", slow, "--skip-existing").code == 0
    expected = {f"case_{i}{end}" for i in range(CASES) for end in (".nii.gz", ".json")}
    assert {path.name for path in out.iterdir()} == {*expected, "summary.csv"}
