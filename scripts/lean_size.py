"""Checks that the environment of the running Python is lean; `make lean` calls it.

usage: python scripts/lean_size.py LIMIT_MB

Lean means: its site-packages take at most LIMIT_MB on disk (1 MB = 1 000 000 bytes), and none of
the packages that belong to training and export are in it.
"""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from pathlib import Path

HEAVY = ("torch", "monai", "onnx", "onnxscript", "pandas")


def size_mb(folder: Path) -> float:
    """Returns what a folder takes on disk in MB, itself included, as du counts it."""
    paths = [folder, *folder.rglob("*")]
    return sum(path.lstat().st_blocks for path in paths) * 512 / 1e6


def complaints(limit_mb: float) -> list[str]:
    """Returns one sentence for each way in which this environment is not lean."""
    folders = {Path(sysconfig.get_path(scheme)) for scheme in ("purelib", "platlib")}
    found_mb = sum(size_mb(folder) for folder in folders)
    print(f"site-packages: {found_mb:.0f} MB (limit {limit_mb:.0f} MB)")
    heavy = [name for name in HEAVY if importlib.util.find_spec(name)]
    sentences = [f"{name} is installed, expected to be absent" for name in heavy]
    if found_mb > limit_mb:
        sentences.append(f"found {found_mb:.0f} MB, expected at most {limit_mb:.0f} MB")
    return sentences


def main(arguments: list[str]) -> int:
    """Prints the size and what is wrong; returns the exit code."""
    try:
        (limit_mb,) = map(float, arguments)
    except ValueError:
        print(__doc__, file=sys.stderr)
        return 2
    sentences = complaints(limit_mb)
    for sentence in sentences:
        print(f"lean_size: {sys.prefix}: {sentence}; see pyproject.toml", file=sys.stderr)
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
