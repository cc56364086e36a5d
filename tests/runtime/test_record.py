import json
import subprocess
import sys
import tracemalloc
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from stages import volume

from kits_runtime.record import (
    BackendFacts,
    BundleFacts,
    RunRecord,
    peak_rss_mb,
    versions,
    volumes_ml,
)

NAMES = ("background", "kidney", "tumour", "cyst")


@pytest.mark.parametrize("order", ["C", "F"])
def test_volumes_are_voxels_times_their_size(order: str) -> None:
    labels = np.zeros((4, 5, 6), np.uint8, order=order)  # type: ignore[call-overload]
    labels[0, 0, :5], labels[2, 3, 4] = 1, 3
    found = volumes_ml(labels, volume(np.zeros((4, 5, 6), np.int16), (2.5, 0.8, 0.5)), NAMES)
    assert {type(ml) for ml in found.values()} == {float}
    assert found == pytest.approx({"kidney": 5 * 0.001, "tumour": 0, "cyst": 0.001})


def test_volumes_of_a_part_use_the_scans_spacing() -> None:
    scan = volume(np.zeros((4, 5, 6), np.int16), (10, 10, 10))
    assert volumes_ml(np.full((1, 2, 3), 2, np.uint8), scan, NAMES)["tumour"] == pytest.approx(6)
    assert volumes_ml(np.zeros((0, 0, 0), np.uint8), scan, NAMES)["tumour"] == 0


def test_counting_needs_no_copy_of_eight_bytes_a_voxel() -> None:
    labels = np.zeros((100, 100, 100), np.uint8)
    scan = volume(np.zeros((2, 2, 2), np.int16))
    tracemalloc.start()
    volumes_ml(labels, scan, NAMES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * labels.nbytes


def test_the_record_survives_json_and_rounds_only_figures() -> None:
    record = RunRecord(
        bundle=BundleFacts(path="b.kits", sha256="ab" * 32, system="s", preset="small"),
        backend=BackendFacts(
            name="ort-cpu",
            reason="why",
            precision="fp32",
            threads=2,
            rejected=(("openvino", "no"),),
        ),
        scan_shape=(1, 2, 3),
        spacing_mm=(0.1234567, 1.0, 2.0),
        volumes_ml={"kidney": 1.23456},
        windows={"net": 7},
        stage_ms={"read": 1.23456},
        total_ms=9.87654,
        peak_rss_mb=123.456,
        versions={"python": "3"},
        warnings=("one", "two"),
    )
    plain = json.loads(json.dumps(record.to_plain(), allow_nan=False))
    assert plain["volumes_ml"] == {"kidney": 1.235}
    assert (plain["stage_ms"], plain["total_ms"], plain["peak_rss_mb"]) == (
        {"read": 1.23},
        9.88,
        123.5,
    )
    assert plain["spacing_mm"] == [0.1234567, 1, 2]
    assert plain["backend"]["rejected"] == [["openvino", "no"]]
    assert plain["warnings"] == ["one", "two"]


def test_versions_are_the_installed_ones() -> None:
    found = versions("nibabel", "no-such-package")
    assert found["numpy"] == np.__version__
    assert found["nibabel"] == metadata.version("nibabel")
    assert found["python"] == sys.version.split()[0].rstrip("+")
    assert found["no-such-package"] == "not installed as a package"


def test_memory_is_told_in_millions_of_bytes() -> None:
    lines = Path("/proc/self/status").read_text().splitlines()
    high_water = next(line.split() for line in lines if line.startswith("VmHWM:"))
    assert high_water[2] == "kB"
    assert peak_rss_mb() == pytest.approx(int(high_water[1]) * 1024 / 1e6, rel=0.05)


def test_the_peak_is_not_that_of_the_parent() -> None:
    held = np.ones(50_000_000)  # 400 MB that a child has nothing to do with
    code = "from kits_runtime.record import peak_rss_mb; print(peak_rss_mb())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert held[-1] == 1
    assert 20 < float(told.stdout) < 300
