"""A lock between processes."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kits_runtime.errors import KitsError
from kits_runtime.locks import locked

HOLDER = """
import sys, time
from pathlib import Path
from kits_runtime.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float, pytestconfig: pytest.Config) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(pytestconfig.rootpath / "runtime")},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_waits_and_says_so(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    path = tmp_path / "x.lock"
    said: list[str] = []
    with hold(path, 0.3, pytestconfig):
        started = time.monotonic()
        with locked(path, on_wait=lambda: said.append("waiting")):
            waited_s = time.monotonic() - started
    assert said == ["waiting"]
    assert waited_s > 0.1


def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    path = tmp_path / "x.lock"
    with hold(path, 60, pytestconfig) as holder:
        holder.kill()
    said: list[str] = []
    with locked(path, on_wait=lambda: said.append("waiting")):
        assert said == []


def test_a_free_lock_is_taken_in_silence_again_and_again(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with locked(tmp_path / "x.lock", on_wait=lambda: said.append("waiting")):
            assert said == []


def test_a_place_without_a_folder_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(KitsError, match=r"x\.lock: found 'No such file or directory' while locking"),
        locked(tmp_path / "none" / "x.lock"),
    ):
        pass
