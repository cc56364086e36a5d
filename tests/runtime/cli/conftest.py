"""Runs the commands, in this process or in one of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kits_runtime.cli import infer

QUICK = ("--backend", "ort-cpu", "--threads", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr that the command signs."""
        return [line for line in self.err.splitlines() if line.startswith("kits-")]


Run = Callable[..., Ended]


@pytest.fixture
def kits_infer(capsys: pytest.CaptureFixture[str], one_stage: Path) -> Run:
    """Runs ``kits-infer`` in this process, with the tiny bundle unless another is given."""

    def run(*arguments: Any) -> Ended:
        given = [str(argument) for argument in arguments]
        if "--bundle" not in given:
            given += ["--bundle", str(one_stage)]
        capsys.readouterr()
        try:
            code = infer.main([*QUICK, *given])
        except SystemExit as ending:
            code = int(ending.code or 0)
        said = capsys.readouterr()
        return Ended(code=code, out=said.out, err=said.err)

    return run


def started(module: str, *arguments: Any, before: str = "") -> "subprocess.Popen[str]":
    """A command in a process of its own; ``before`` is a statement that it executes first."""
    code = f"import sys\n{before}\nfrom kits_runtime.cli.{module} import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(code=process.returncode, out=out, err=err)


@pytest.fixture
def in_process_of_its_own() -> Callable[..., "subprocess.Popen[str]"]:
    return started
