"""Kept engines: found by key alone, built once, whole or absent, and never more than the limit."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from kits_runtime.engines.cuda_driver import Gpu
from kits_runtime.engines.engine_cache import EngineCache, cache_folder
from kits_runtime.engines.engine_record import Built, EngineKey, read_entry, shown_differences
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt import BuildOptions, Library, engine_key
from kits_runtime.errors import KitsError, UsageError

KEY = EngineKey(
    net="msvnet",
    onnx_sha256="0" * 64,
    flavour="trt",
    library="10.13.0",
    gpu="NVIDIA A",
    compute_capability="SM86",
    driver="580.1",
    profile="4x5x96x96, 1x5x96x96",
    precision="fp16",
    options="{}",
)
FIELDS = [field.name for field in fields(EngineKey)]


def never() -> Built:
    raise AssertionError("nothing should have been built")


def built(content: bytes) -> Callable[[], Built]:
    return lambda: Built(data=content, facts={"seconds": 1.5})


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(folder=tmp_path / "engines")


def quiet(_line: str) -> None:
    pass


def names(cache: EngineCache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".lock")


def test_an_engine_is_built_once_and_then_found(cache: EngineCache) -> None:
    assert cache.find(KEY) is None
    assert cache.get_or_build(KEY, built(b"one"), report=quiet) == b"one"
    assert cache.get_or_build(KEY, never) == b"one"
    assert cache.find(KEY) == b"one"
    (entry,) = cache.entries()
    assert (entry.key, entry.size, entry.facts) == (KEY, 3, {"seconds": 1.5})


@pytest.mark.parametrize("field", FIELDS)
def test_any_other_field_is_another_engine_and_is_named(cache: EngineCache, field: str) -> None:
    cache.get_or_build(KEY, built(b"one"), report=quiet)
    wanted = replace(KEY, **{field: "other"})
    assert cache.find(wanted) is None
    said: list[str] = []
    assert cache.get_or_build(wanted, built(b"two"), report=said.append) == b"two"
    own = getattr(KEY, field)
    reason = f"the nearest one differs in {field} (found {own}, expected other)"
    if field == "net":
        reason = "none of this net is kept"
    assert said == [f"{wanted.net}: building an engine; {reason}"]
    assert cache.find(KEY) == b"one"


def test_of_several_the_nearest_one_is_compared(cache: EngineCache) -> None:
    far = replace(KEY, driver="1", gpu="2", precision="fp32")
    near = replace(KEY, driver="570.0")
    for key in (far, near):
        cache.get_or_build(key, built(b"x"), report=quiet)
    assert cache.why_not(KEY) == ("the nearest one differs in driver (found 570.0, expected 580.1)")


def test_differences_are_listed_field_by_field() -> None:
    other = replace(KEY, gpu="NVIDIA B", driver="590.2")
    assert shown_differences(KEY.differences(other)) == (
        "gpu (found NVIDIA A, expected NVIDIA B), driver (found 580.1, expected 590.2)"
    )


@pytest.mark.parametrize("damage", [b"on", b"onE", b"one more", b""])
def test_a_damaged_engine_is_built_again_and_said_in_one_line(
    cache: EngineCache, damage: bytes
) -> None:
    cache.get_or_build(KEY, built(b"one"), report=quiet)
    (entry,) = cache.entries()
    entry.path.write_bytes(damage)
    said: list[str] = []
    assert cache.get_or_build(KEY, built(b"one"), report=said.append) == b"one"
    assert said == [
        f"{entry.path.name}: found a damaged engine, expected its record's hash",
        "msvnet: building an engine; the one that is kept is damaged",
    ]
    assert cache.find(KEY) == b"one"


@pytest.mark.parametrize(
    "record", [b"", b"{}", b"[]", b"\xff", b'{"format": 2}', b"[" * 100_000, b"null"]
)
def test_an_engine_without_a_readable_record_does_not_count(
    cache: EngineCache, record: bytes
) -> None:
    cache.get_or_build(KEY, built(b"one"), report=quiet)
    (entry,) = cache.entries()
    entry.path.with_suffix(".json").write_bytes(record)
    assert cache.entries() == ()
    assert cache.find(KEY) is None
    assert cache.get_or_build(KEY, built(b"two"), report=quiet) == b"two"


def test_a_record_with_a_strange_key_does_not_count(cache: EngineCache) -> None:
    cache.get_or_build(KEY, built(b"one"), report=quiet)
    path = cache.entries()[0].path.with_suffix(".json")
    content = json.loads(path.read_text())
    content["key"]["more"] = "x"
    path.write_text(json.dumps(content))
    assert cache.find(KEY) is None


def test_a_build_that_fails_leaves_nothing(cache: EngineCache) -> None:
    def fails() -> Built:
        raise KitsError("the build failed")

    with pytest.raises(KitsError, match="the build failed"):
        cache.get_or_build(KEY, fails, report=quiet)
    assert names(cache) == []


def die_while_writing(folder: Path) -> None:
    def replace_nothing(_source: Path, _target: Path) -> Path:
        os._exit(9)

    Path.replace = replace_nothing  # type: ignore[assignment,method-assign]
    EngineCache(folder=folder).get_or_build(KEY, built(b"one"), report=quiet)


def test_a_process_that_dies_midway_leaves_no_engine_and_the_next_one_cleans_up(
    cache: EngineCache,
) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=die_while_writing, args=(cache.folder,)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 9
    left = names(cache)
    assert len(left) == 1
    assert left[0].endswith(".part")
    assert cache.entries() == ()
    assert cache.get_or_build(KEY, built(b"one"), report=quiet) == b"one"
    assert [Path(name).suffix for name in names(cache)] == [".engine", ".json"]


def build_slowly(folder: Path, started: Event) -> None:
    def slow() -> Built:
        started.set()
        (folder.parent / f"{os.getpid()}.built").touch()
        time.sleep(0.4)
        return Built(data=b"slow")

    EngineCache(folder=folder).get_or_build(KEY, slow, report=quiet)


def test_two_processes_do_not_build_the_same_engine(cache: EngineCache) -> None:
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    other = context.Process(target=build_slowly, args=(cache.folder, started))
    other.start()
    assert started.wait(60)
    said: list[str] = []
    assert cache.get_or_build(KEY, never, report=said.append) == b"slow"
    other.join(60)
    assert other.exitcode == 0
    assert said == ["msvnet: another process builds it; waiting"]
    assert len(list(cache.folder.parent.glob("*.built"))) == 1


def keys(count: int) -> list[EngineKey]:
    return [replace(KEY, driver=str(index)) for index in range(count)]


def use_at(cache: EngineCache, key: EngineKey, second: int) -> None:
    path = cache.folder / (key.stem() + ".json")
    os.utime(path, (second, second))


def test_the_least_recently_used_engines_go_first(tmp_path: Path) -> None:
    cache = EngineCache(folder=tmp_path / "engines", max_bytes=30)
    one, two, three, four = keys(4)
    for second, key in enumerate((one, two, three)):
        cache.get_or_build(key, built(b"0123456789"), report=quiet)
        use_at(cache, key, second)
    assert cache.find(one) is not None  # now the last one used
    cache.get_or_build(four, built(b"0123456789"), report=quiet)
    assert {entry.key for entry in cache.entries()} == {one, three, four}
    assert cache.find(two) is None


def test_an_engine_beyond_the_limit_stays_alone(tmp_path: Path) -> None:
    cache = EngineCache(folder=tmp_path / "engines", max_bytes=5)
    one, two = keys(2)
    for key in (one, two):
        assert cache.get_or_build(key, built(b"0123456789"), report=quiet) == b"0123456789"
    assert [entry.key for entry in cache.entries()] == [two]


def test_the_folder_is_this_users_alone(cache: EngineCache) -> None:
    cache.get_or_build(KEY, built(b"one"), report=quiet)
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_refused(cache: EngineCache) -> None:
    cache.folder.mkdir()
    cache.folder.chmod(0o777)
    with pytest.raises(UsageError, match=r"other users may write to.*chmod go-w") as caught:
        cache.get_or_build(KEY, never)
    assert caught.value.exit_code == 2


def test_names_of_files_hold_the_net_and_differ_by_key() -> None:
    stems = {key.stem() for key in keys(20)}
    assert len(stems) == 20
    assert all(stem.startswith("msvnet-") and len(stem) == len("msvnet-") + 24 for stem in stems)


def test_a_missing_engine_has_no_entry(tmp_path: Path) -> None:
    assert read_entry(tmp_path / "x.engine") is None


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"KITS_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/engines"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/kits-trt/engines"),
        ({"KITS_CACHE": "", "XDG_CACHE_HOME": "b", "HOME": "/c"}, "/c/.cache/kits-trt/engines"),
        ({"HOME": "/c"}, "/c/.cache/kits-trt/engines"),
    ],
)
def test_the_place_follows_the_environment(environment: dict[str, str], folder: str) -> None:
    assert cache_folder(environment) == Path(folder)


NET = NetSpec(
    name="n", input_name="i", output_name="o", in_channels=5, out_channels=2, size_vox=(8, 4)
)
GPU = Gpu(
    index=0,
    name="NVIDIA A",
    compute_capability=(8, 6),
    memory_mib=1,
    driver="580.1",
    cuda="13.0",
)


class Ahead:
    __version__ = "1.7"
    ComputeCapability = type("Enum", (), {"__members__": {"SM86": 3}})


class Timed:
    __version__ = "10.13"


def test_a_timed_engine_belongs_to_one_gpu_and_driver() -> None:
    library = Library(flavour="trt", module=Timed)
    key = engine_key(NET, "ab", library=library, options=BuildOptions(batch=4), gpu=GPU)
    assert (key.gpu, key.compute_capability, key.driver) == ("NVIDIA A", "SM86", "580.1")
    assert (key.flavour, key.library, key.precision) == ("trt", "10.13", "fp16")
    assert key.profile == "4x5x8x4, 1x5x8x4"


def test_an_engine_built_ahead_serves_every_gpu_of_its_capability() -> None:
    library = Library(flavour="trt-rtx", module=Ahead)
    options = BuildOptions(compute_capabilities=("SM86",))
    elsewhere = engine_key(NET, "ab", library=library, options=options, gpu=None)
    here = engine_key(NET, "ab", library=library, options=BuildOptions(), gpu=GPU)
    assert elsewhere == here
    assert (here.gpu, here.driver) == ("any", "any")


def test_what_shapes_an_engine_is_in_the_key_and_what_does_not_is_not() -> None:
    library = Library(flavour="trt", module=Timed)

    def key(**more: object) -> EngineKey:
        options = BuildOptions(**more)  # type: ignore[arg-type]
        return engine_key(NET, "ab", library=library, options=options, gpu=GPU)

    plain = key()
    for change in (
        {"batch": 2},
        {"precision": "fp32"},
        {"workspace_bytes": 5},
        {"optimization_level": 1},
        {"version_compatible": True},
        {"own_kernels_only": True},
    ):
        assert key(**change) != plain
    assert key(timing_cache=Path("x"), least_half_share=0.5) == plain


def test_a_key_needs_a_gpu_or_a_named_capability() -> None:
    library = Library(flavour="trt-rtx", module=Ahead)
    with pytest.raises(ValueError, match="no GPU is given"):
        engine_key(NET, "ab", library=library, options=BuildOptions(), gpu=None)
