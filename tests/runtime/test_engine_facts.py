"""Whether a kept engine would be used on a machine, and in which fields it differs."""

from dataclasses import replace
from pathlib import Path

import pytest

from kits_runtime import engine_facts as module
from kits_runtime.engine_facts import (
    cache_facts,
    engine_facts,
    gpu_facts,
    holds_engines,
    machine_differences,
    version_here,
)
from kits_runtime.engines.cuda_driver import Gpu, Gpus
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import Built, EngineKey
from kits_runtime.errors import BundleError

GPU = Gpu(
    index=0,
    name="NVIDIA A",
    compute_capability=(8, 6),
    memory_mib=8192,
    driver="580.1",
    cuda="13.0",
)
KEY = EngineKey(
    net="msvnet",
    onnx_sha256="ab" * 32,
    flavour="trt",
    library="10.13.0",
    gpu="NVIDIA A",
    compute_capability="SM86",
    driver="580.1",
    profile="1x5x96x96",
    precision="fp16",
    options="{}",
)
AHEAD = replace(KEY, flavour="trt-rtx", library="1.7", gpu="any", driver="any")
NONE = Gpus(devices=(), why_none="no NVIDIA driver")


def versions(flavour: str) -> str:
    return {"trt": "10.13.0", "trt-rtx": "1.7"}[flavour]


def quiet(_line: str) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with both engines, on the machine that the timed one was built on."""
    monkeypatch.setattr(module, "visible_gpus", lambda: Gpus(devices=(GPU,)))
    monkeypatch.setattr(module, "version_here", versions)
    cache = EngineCache(folder=tmp_path / "engines")
    for key in (KEY, AHEAD):
        cache.get_or_build(key, lambda: Built(data=b"12345", facts={"seconds": 2}), report=quiet)
    return cache.folder


@pytest.mark.parametrize("key", [KEY, AHEAD])
def test_on_its_own_machine_an_engine_is_used(key: EngineKey) -> None:
    assert machine_differences(key, Gpus(devices=(GPU,)), versions) == {}


@pytest.mark.parametrize(
    ("change", "field", "pair"),
    [
        ({"name": "NVIDIA B"}, "gpu", ("NVIDIA A", "NVIDIA B")),
        ({"driver": "590.0"}, "driver", ("580.1", "590.0")),
    ],
)
def test_another_gpu_or_driver_matters_to_timed_engines_alone(
    change: dict[str, str], field: str, pair: tuple[str, str]
) -> None:
    gpus = Gpus(devices=(replace(GPU, **change),))  # type: ignore[arg-type]
    assert machine_differences(KEY, gpus, versions) == {field: pair}
    assert machine_differences(AHEAD, gpus, versions) == {}


@pytest.mark.parametrize("key", [KEY, AHEAD])
def test_another_capability_matters_to_all(key: EngineKey) -> None:
    gpus = Gpus(devices=(replace(GPU, compute_capability=(9, 0)),))
    assert machine_differences(key, gpus, versions) == {"compute_capability": ("SM86", "SM90")}


def test_an_engine_of_several_capabilities_needs_one_of_them() -> None:
    key = replace(AHEAD, compute_capability="SM120+SM86")
    assert machine_differences(key, Gpus(devices=(GPU,)), versions) == {}


def test_of_several_gpus_the_one_that_fits_counts() -> None:
    other = replace(GPU, name="NVIDIA B", driver="x", compute_capability=(7, 5))
    assert machine_differences(KEY, Gpus(devices=(other, GPU)), versions) == {}


def test_without_a_gpu_no_engine_is_used_and_versions_still_count() -> None:
    missed = machine_differences(replace(KEY, library="8.6.0"), NONE, versions)
    assert missed == {
        "library": ("8.6.0", "10.13.0"),
        "compute_capability": ("SM86", "no GPU"),
    }


def test_a_library_of_unknown_flavour_is_not_here() -> None:
    assert version_here("other") == "unknown to this version"


def test_the_facts_of_a_cache_name_each_engine(folder: Path) -> None:
    facts = cache_facts(folder)
    engines = facts["engines"]
    assert isinstance(engines, dict)
    assert facts["bytes"] == 10
    assert set(engines) == {f"{KEY.stem()}.engine", f"{AHEAD.stem()}.engine"}
    own = engines[f"{KEY.stem()}.engine"]
    assert (own["used_here"], own["differs"]) == (True, {})
    assert (own["library"], own["built"]) == ("trt 10.13.0", {"seconds": 2})


def test_one_engine_says_which_field_differs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Gpus(devices=(replace(GPU, driver="590.0"),))
    monkeypatch.setattr(module, "visible_gpus", lambda: newer)
    facts = engine_facts(folder / f"{KEY.stem()}.engine")
    assert facts["used_here"] is False
    assert facts["differs"] == {"driver": {"engine": "580.1", "here": "590.0"}}


def test_damage_is_told_of_one_engine_and_of_a_folder_that_is_verified(folder: Path) -> None:
    path = folder / f"{KEY.stem()}.engine"
    path.write_bytes(b"1234X")
    damaged = {"file": {"engine": "damaged", "here": "the hash of its record"}}
    assert engine_facts(path)["differs"] == damaged
    verified, listed = (cache_facts(folder, verify=verify)["engines"] for verify in (True, False))
    assert isinstance(verified, dict)
    assert isinstance(listed, dict)
    assert verified[path.name]["differs"] == damaged
    assert listed[path.name]["used_here"] is True


def test_an_engine_of_another_bundle_is_told(folder: Path) -> None:
    path = folder / f"{KEY.stem()}.engine"
    assert engine_facts(path, nets={KEY.onnx_sha256})["used_here"] is True
    assert engine_facts(path, nets={"cd" * 32})["differs"] == {
        "onnx_sha256": {"engine": KEY.onnx_sha256, "here": "none of the bundle's nets"}
    }


@pytest.mark.parametrize("name", ["none.engine", "alone.engine"])
def test_an_engine_without_a_record_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "alone.engine").write_bytes(b"x")
    with pytest.raises(BundleError, match="found no engine with a readable record") as caught:
        engine_facts(tmp_path / name)
    assert caught.value.exit_code == 4


def test_a_folder_of_engines_is_known_by_them(folder: Path, tmp_path: Path) -> None:
    assert holds_engines(folder)
    assert not holds_engines(tmp_path)
    assert not holds_engines(tmp_path / "none")
    assert cache_facts(tmp_path / "none") == {
        "folder": str(tmp_path / "none"),
        "bytes": 0,
        "engines": {},
    }


def test_gpus_are_listed_or_the_reason_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: Gpus(devices=(GPU,)))
    row = {
        "name": "NVIDIA A",
        "compute_capability": "SM86",
        "memory_mib": 8192,
        "driver": "580.1",
        "cuda": "13.0",
    }
    assert gpu_facts() == {"devices": [row], "why_none": None}
    monkeypatch.setattr(module, "visible_gpus", lambda: NONE)
    assert gpu_facts() == {"devices": [], "why_none": "no NVIDIA driver"}
