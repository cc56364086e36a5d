"""What lands in site-packages: the four packages with all their files, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PACKAGES = {
    "kits_runtime": "runtime/kits_runtime",
    "kits_trt": "kits_trt",
    "kits_export": "export/kits_export",
    "kits_bench": "benchmarks/kits_bench",
}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_installs_exactly_the_four_packages(wheel: zipfile.ZipFile) -> None:
    top = {name.partition("/")[0] for name in wheel.namelist()}
    (metadata,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {*PACKAGES, metadata}


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_holds_every_file_of_a_package_unchanged(
    package: str, wheel: zipfile.ZipFile, root: Path, own_files: list[Path]
) -> None:
    folder = root / PACKAGES[package]
    own = {
        f"{package}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in own_files
        if path.is_relative_to(folder)
    }
    landed = {name: wheel.read(name) for name in wheel.namelist() if name.startswith(package + "/")}
    assert sorted(landed) == sorted(own)
    assert landed == own


@pytest.mark.parametrize("package", PACKAGES)
def test_wheel_marks_each_package_as_typed(package: str, wheel: zipfile.ZipFile) -> None:
    assert f"{package}/py.typed" in wheel.namelist()


def test_wheel_carries_the_licence_and_names_it(wheel: zipfile.ZipFile, root: Path) -> None:
    (licence,) = (name for name in wheel.namelist() if name.endswith("/licenses/LICENSE"))
    (metadata,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    assert wheel.read(licence) == (root / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0\n" in wheel.read(metadata).decode()
