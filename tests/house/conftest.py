"""The repository's files, and processes that find the packages in its sources."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SOURCE_ROOTS = ("runtime", ".", "export", "benchmarks")


@pytest.fixture(scope="session")
def root(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath


@pytest.fixture(scope="session")
def own_files(root: Path) -> list[Path]:
    """All files that are, or could next be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [root / name for name in listing.stdout.decode().split("\0") if name]
    else:  # an unpacked source archive
        paths = [path for path in root.rglob("*") if not is_hidden(path.relative_to(root))]
    return sorted(path for path in paths if path.is_file())


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


@pytest.fixture
def run_in(root: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a command in a folder laid out like the repository, its packages importable."""

    def run(command: Sequence[str], folder: Path = root) -> "subprocess.CompletedProcess[str]":
        paths = os.pathsep.join(str(folder / source) for source in SOURCE_ROOTS)
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
