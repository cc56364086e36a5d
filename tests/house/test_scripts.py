"""The scripts behind the Makefile: finding a Python, writing pins, weighing an environment."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def fake_python(folder: Path, name: str, *, exit_code: int) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)
    return str(path)


def report(path: Path, versions: dict[str, str]) -> str:
    entries = [{"metadata": {"name": n, "version": v}} for n, v in versions.items()]
    path.write_text(json.dumps({"install": entries}))
    return str(path)


def test_find_python_takes_the_first_that_will_do(run_in: Run, tmp_path: Path) -> None:
    old = fake_python(tmp_path, "old", exit_code=1)
    good = fake_python(tmp_path, "good", exit_code=0)
    later = fake_python(tmp_path, "later", exit_code=0)
    result = run_in(["scripts/find_python", "3.10", "no-such-python", old, good, later])
    assert (result.returncode, result.stdout) == (0, good + "\n")


def test_find_python_asks_the_interpreter_for_its_version(run_in: Run) -> None:
    assert run_in(["scripts/find_python", "3.10", sys.executable]).returncode == 0
    assert run_in(["scripts/find_python", "3.99", sys.executable]).returncode == 1


def test_find_python_says_in_one_line_what_it_tried(run_in: Run) -> None:
    result = run_in(["scripts/find_python", "3.10", "no-such-a", "no-such-b"])
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "none of 'no-such-a no-such-b' is a Python >= 3.10" in line
    assert "PYTHON=" in line


def test_pins_are_joined_sorted_and_without_builds_and_ourselves(
    run_in: Run, tmp_path: Path
) -> None:
    first = report(tmp_path / "1.json", {"torch": "2.13.0+cpu", "kits_trt": "0.1", "numpy": "2.4"})
    second = report(tmp_path / "2.json", {"ml_dtypes": "0.6.0", "numpy": "2.4"})
    out = tmp_path / "pins.txt"
    result = run_in([sys.executable, "scripts/write_constraints.py", str(out), first, second])
    assert result.returncode == 0, result.stderr
    assert out.read_text().splitlines()[1:] == ["ml-dtypes==0.6.0", "numpy==2.4", "torch==2.13.0"]


def test_reports_that_disagree_write_nothing(run_in: Run, tmp_path: Path) -> None:
    first = report(tmp_path / "1.json", {"numpy": "2.4.6"})
    second = report(tmp_path / "2.json", {"numpy": "2.2.6"})
    out = tmp_path / "pins.txt"
    result = run_in([sys.executable, "scripts/write_constraints.py", str(out), first, second])
    assert result.returncode == 1
    assert "numpy: found 2.4.6 and 2.2.6" in result.stderr
    assert not out.exists()


def test_an_environment_with_torch_or_too_much_in_it_is_not_lean(run_in: Run) -> None:
    result = run_in([sys.executable, "scripts/lean_size.py", "1"])
    assert result.returncode == 1
    assert "expected at most 1 MB" in result.stderr
    assert "torch is installed, expected to be absent" in result.stderr


def test_lean_size_counts_as_du_does(run_in: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"x" * 3_000_001)
    (tmp_path / "b").write_bytes(b"y")
    code = "import sys, pathlib, lean_size; print(lean_size.size_mb(pathlib.Path(sys.argv[1])))"
    ours = run_in(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'scripts')\n{code}", str(tmp_path)]
    )
    theirs = run_in(["du", "-s", "-B", "512", str(tmp_path)])
    assert float(ours.stdout) == int(theirs.stdout.split()[0]) * 512 / 1e6
