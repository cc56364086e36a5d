"""Several processes with the same error tell of it once; an error of one's own is always told."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kits_runtime.errors import UsageError
from kits_trt.train.turns import first_tells

PATIENCE_S = 240  # for machines that do much else
COMMAND = "import sys; from kits_trt.train.cli import main; sys.exit(main())"


def ended(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_the_first_process_raises_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(UsageError), first_tells({}, turn_s=60):
        raise UsageError("here")
    with pytest.raises(KeyboardInterrupt), first_tells({"LOCAL_RANK": "0"}):
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 30


def test_another_that_is_ended_meanwhile_leaves_silently_with_the_errors_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kits_trt.train.turns.time.sleep", ended)
    with pytest.raises(SystemExit) as ending, first_tells({"LOCAL_RANK": "1"}):
        raise UsageError("everywhere")
    assert ending.value.code == 2


def test_another_that_is_still_there_raises_its_own_error() -> None:
    with pytest.raises(UsageError, match="mine"), first_tells({"LOCAL_RANK": "1"}, turn_s=0):
        raise UsageError("mine")


def test_another_that_is_interrupted_leaves_the_line_to_the_first() -> None:
    with pytest.raises(SystemExit) as ending, first_tells({"LOCAL_RANK": "3"}):
        raise KeyboardInterrupt
    assert ending.value.code == 130


def test_torchrun_shows_an_error_of_all_processes_once(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    (tmp_path / "command.py").write_text(COMMAND)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(tmp_path / "command.py"), "unet3d", "--data", str(missing)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("kits-train: ")]
    assert len(told) == 1
    assert str(missing) in told[0]
