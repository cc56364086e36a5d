"""Imports point down and the runtime stays free of torch; and the contracts do notice otherwise."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LINT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)
FOLDERS = ("runtime/kits_runtime", "kits_trt", "export/kits_export", "benchmarks/kits_bench")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the packages' modules and settings that a test may break."""
    shutil.copy(root / "pyproject.toml", tmp_path)
    for folder in FOLDERS:
        for source in (root / folder).rglob("*.py"):
            target = tmp_path / source.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return tmp_path


def test_the_repository_keeps_its_import_contracts(run_in: Run) -> None:
    result = run_in([sys.executable, "-c", LINT])
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("folder", "line", "contract"),
    [
        ("runtime/kits_runtime", "import torch", "the runtime never meets torch or onnx"),
        ("runtime/kits_runtime", "import onnx", "the runtime never meets torch or onnx"),
        ("runtime/kits_runtime", "import kits_trt", "imports point down"),
        ("kits_trt", "import kits_export", "imports point down"),
        ("kits_trt", "import kits_runtime.engines", "training does not open engines"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    folder: str, line: str, contract: str, copy: Path, run_in: Run
) -> None:
    engines = copy / "runtime/kits_runtime/engines"
    engines.mkdir(exist_ok=True)
    (engines / "__init__.py").touch()
    lazily = f"def late() -> None:\n    {line}\n"
    (copy / folder / "intruder.py").write_text(lazily)
    result = run_in([sys.executable, "-c", LINT], copy)
    assert result.returncode == 1
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    assert broken == [f"{contract} BROKEN"]
