"""Engines of a verified bundle: one a net and compute capability, into the cache, never inside."""

from pathlib import Path

import pytest
from trained_nets import Bright, case, trained

from kits_export.export import export_bundle
from kits_export.targets import EngineWishes, builder_for, capabilities_from_text
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.tensorrt import open_library
from kits_runtime.errors import BackendUnavailableError, UsageError


def test_capabilities_are_read_however_they_are_written() -> None:
    assert capabilities_from_text("86, 8.9,SM120,sm_86") == ("SM86", "SM89", "SM120")


def test_no_builder_is_needed_for_the_bundle_alone(tmp_path: Path) -> None:
    assert builder_for(("onnx",), EngineWishes(cache=tmp_path)) is None


def test_capabilities_without_their_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="SM86 without --targets trt-rtx"):
        builder_for(("trt",), EngineWishes(cache=tmp_path, compute_capabilities=("SM86",)))


def test_an_engine_is_built_ahead_of_time_into_the_cache(tmp_path: Path) -> None:
    try:
        open_library("trt-rtx")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    cache = tmp_path / "cache"
    wishes = EngineWishes(cache=cache, compute_capabilities=("SM86", "SM89"))
    told: list[str] = []
    build = builder_for(("onnx", "trt-rtx"), wishes, tell=told.append)
    export_bundle(trained(Bright()), tmp_path / "place" / "made", cases=[case()], build=build)
    entries = EngineCache(folder=cache).entries()
    assert {entry.key.compute_capability for entry in entries} == {"SM86", "SM89"}
    assert {entry.key.net for entry in entries} == {"bright"}
    assert all(float(str(entry.facts["half_share"])) > 0.9 for entry in entries)
    assert len(told) == 2
    inside = {path.name for path in (tmp_path / "place").rglob("*") if path.is_file()}
    assert inside == {"manifest.json", "parity.json", "bright.fp32.onnx", "bright.fp16.onnx"}


def test_a_build_that_fails_leaves_no_bundle(tmp_path: Path) -> None:
    def build(_bundle: object) -> None:
        raise BackendUnavailableError("gone")

    with pytest.raises(BackendUnavailableError):
        export_bundle(trained(Bright()), tmp_path / "made", cases=[case()], build=build)
    assert not list(tmp_path.iterdir())
