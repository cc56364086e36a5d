"""The pins cover what pyproject asks for, within its ranges, and bring no CUDA along."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RUNTIME_EXTRAS = {"cpu", "openvino", "gpu", "trt-rtx", "dicom", "report"}
# The vendor of tensorrt keeps its wheels apart, so no pin of it could be resolved by everyone.
UNPINNED_EXTRAS = {"trt"}
FILES = ["constraints.txt", "constraints-3.10.txt"]


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def pins_of(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    pins = re.findall(r"^([a-z0-9-]+)==([0-9][0-9a-z.]*)$", "\n".join(lines), flags=re.MULTILINE)
    assert [f"{name}=={version}" for name, version in pins] == lines
    return pins


def unmet(requirements: Iterable[str], path: Path) -> list[str]:
    pins = dict(pins_of(path))
    return [
        text
        for text in requirements
        for wanted in [Requirement(text)]
        if not wanted.specifier.contains(pins.get(canonicalize_name(wanted.name), "0.0.dev0"))
    ]


@pytest.mark.parametrize("name", FILES)
def test_each_distribution_is_pinned_once_in_order(name: str, root: Path) -> None:
    names = [pinned for pinned, _ in pins_of(root / name)]
    assert names == sorted(set(names))


def test_pins_meet_every_dependency_extra_and_group(root: Path, pyproject: dict[str, Any]) -> None:
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    wanted = [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]
    for extra in extras.keys() - UNPINNED_EXTRAS:
        wanted += extras[extra]
    assert unmet(wanted, root / "constraints.txt") == []


def test_pins_for_3_10_meet_the_runtime(root: Path, pyproject: dict[str, Any]) -> None:
    extras: dict[str, list[str]] = pyproject["project"]["optional-dependencies"]
    wanted = [*pyproject["project"]["dependencies"]]
    for extra in RUNTIME_EXTRAS:
        wanted += extras[extra]
    assert unmet(wanted, root / "constraints-3.10.txt") == []


@pytest.mark.parametrize("name", FILES)
def test_no_pin_brings_the_cuda_build_of_torch(name: str, root: Path) -> None:
    heavy = [
        pin for pin, _ in pins_of(root / name) if re.match(r"nvidia-|cuda-toolkit|triton", pin)
    ]
    assert heavy == []


def test_a_pin_outside_its_range_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text("numpy==1.26.4\nscipy==1.17.1\n")
    wanted = ["numpy>=2.0", "scipy>=1.13", "nibabel>=5.3"]
    assert unmet(wanted, tmp_path / "pins.txt") == ["numpy>=2.0", "nibabel>=5.3"]
