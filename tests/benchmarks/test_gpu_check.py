"""The check of a GPU machine: a dry run goes the whole way, resumes, and survives what fails."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundles import write_two_stages
from nets import conv_softmax_net
from numpy import ones, zeros

from kits_bench.docs import page_from_records
from kits_bench.engine_options import cached_options
from kits_bench.gpu_check import kernels, running, tasks
from kits_bench.gpu_check.cli import EXIT_MORE, main
from kits_bench.gpu_check.gpu_memory import sampled_mib
from kits_bench.gpu_check.ledger import Ledger
from kits_bench.gpu_check.parts import PARTS
from kits_bench.gpu_check.plan import Item, Settings, settings_from_plain, source_roots, state_key
from kits_bench.gpu_check.subjects import DRY_WINDOW_VOX, sixth_net_path
from kits_bench.gpu_check.targets import TARGETS, rows_of, table
from kits_bench.gpu_check.task import answer_of
from kits_runtime.engines import EngineOptions
from kits_runtime.errors import BackendUnavailableError, EngineError, UsageError
from kits_runtime.kernels.twins import launch_twin


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_stages(tmp_path_factory.mktemp("bundle") / "tiny.kits")


@pytest.fixture(autouse=True)
def _own_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITS_CACHE", str(tmp_path / "kept"))
    monkeypatch.delenv("TRT86_PYTHON", raising=False)


def settings(folder: Path, **changed: Any) -> Settings:
    plain: dict[str, Any] = {
        "out": str(folder / "out"),
        "cache": str(folder / "cache"),
        "gpu": "none",
        "dry": True,
        "systems": ("tiny",),
        "headline": ("tiny",),
        "cases": ("dry",),
        "parity_cases": ("dry",),
        "repeats": 1,
    }
    return Settings(**{**plain, **changed})


def ledger(folder: Path) -> Ledger:
    return Ledger(path=folder / "out" / "state.json", key="key", configuration={})


def arguments(folder: Path, bundle: Path, *more: object) -> list[str]:
    plain = ["--dry-run", "--out", folder / "out", "--cache", folder / "cache"]
    return [str(a) for a in (*plain, "--systems", bundle, "--repeats", 1, *more)]


def in_process(item: Item, given: Settings, *, limit_s: float) -> Mapping[str, Any]:
    """What a process of its own would answer; processes have tests of their own."""
    python, why = running.interpreter_of(item, given)
    if python is None:
        return {"state": "unrun", "why": why, "seconds": 0.0, "facts": {}}
    plain = {**given.configuration, "out": given.out, "cache": given.cache}
    request = {"settings": plain, "task": item.task, "arguments": dict(item.arguments)}
    answer = answer_of({**request, "interpreter": item.interpreter})
    return {**json.loads(json.dumps(answer)), "seconds": limit_s * 0}


def sixth_net(folder: Path) -> None:
    path = sixth_net_path("fp32", folder / "cache")
    path.parent.mkdir(parents=True)
    weights = ones((3, 1, 1, 1, 1), "float32")
    path.write_bytes(conv_softmax_net(weights, zeros(3, "float32"), size=DRY_WINDOW_VOX))


def test_a_dry_run_goes_through_all_parts_and_says_what_did_not_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(running, "run_item", in_process)
    sixth_net(tmp_path)
    assert main(arguments(tmp_path, bundle, "--all")) == 0
    text = capsys.readouterr().out
    assert "A dry run" in text
    (folder,) = (tmp_path / "out" / "records").iterdir()
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert {record["dry"] for record in records.values()} == {True}
    kinds = {record["kind"] for record in records.values()}
    assert kinds == {"gpu-check", "latency", "throughput", "cold", "memory", "roofline"}
    check = records["gpu-check"]
    page = page_from_records([("here", record) for record in records.values()])
    assert "unrun" in page
    items = check["items"]
    assert set(items) == {item.id for part in PARTS for item in part.items(of(check, tmp_path))}
    assert items["parity/tiny/ort-cpu/fp32/dry"]["facts"]["masks"] == {
        "differing_share_1": 0, "differing_share_2": 0, "differing_share_foreground": 0,
    }  # fmt: skip
    # Torch has no words for the tiny net's operator, which is the one thing that fails here.
    failed = {name: item["why"] for name, item in items.items() if item["state"] == "failed"}
    assert set(failed) == {"nets/tiny/b0", "nets/tiny/b1"}
    assert "found operator GreaterOrEqual" in failed["nets/tiny/b1"]
    assert items["windows/sixth/ort-cpu/fp32"]["state"] == "ok"
    for name in ("parity/tiny/trt86/fp32/dry", "latency/tiny/trt86/dry"):
        assert items[name]["why"].startswith("TRT86_PYTHON is not set")
    assert "trt" in items["engines/tiny/trt/fp32"]["why"]
    assert {row["met"] for row in check["targets"]} == {None}
    before = (tmp_path / "out" / "state.json").read_bytes()
    assert main(arguments(tmp_path, bundle, "--next")) == 0
    assert (tmp_path / "out" / "state.json").read_bytes() == before


def of(check: Mapping[str, Any], folder: Path) -> Settings:
    plain = {**check["config"], "out": str(folder / "out"), "cache": str(folder)}
    return settings_from_plain(plain)


def test_a_dry_run_is_refused_among_committed_records(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "benchmarks" / "results" / "x"
    assert main(arguments(tmp_path, bundle, "--out", place)) == 2
    assert not place.exists()


@pytest.mark.slow
def test_the_script_resumes_where_a_kill_ended_it(bundle: Path, tmp_path: Path) -> None:
    script = Path(running.__file__).parents[3] / "scripts" / "gpu_check.sh"
    command = [str(script), *arguments(tmp_path, bundle, "--part", 3)]
    environment = {**os.environ, "PYTHON": sys.executable}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    state = tmp_path / "out" / "state.json"
    deadline = time.monotonic() + 60
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (first,) = _items(state)
    assert first == "parity/kernels"
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert first not in told.stderr
    assert _items(state)["parity/tiny/ort-cpu/fp32/dry"]["state"] == "ok"


def _items(state: Path) -> Mapping[str, Any]:
    (run,) = json.loads(state.read_text())["runs"].values()
    found: Mapping[str, Any] = run["items"]
    return found


def test_a_part_that_was_interrupted_goes_on_behind_its_last_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Item(id=name, task="none") for name in "abc"]
    asked: list[str] = []

    def interrupted(item: Item, _settings: Settings, *, limit_s: float) -> Mapping[str, Any]:
        asked.append(item.id)
        if asked == ["a", "b"]:
            raise KeyboardInterrupt
        return {"state": "ok", "why": "", "seconds": limit_s, "facts": {}}

    monkeypatch.setattr(running, "run_item", interrupted)
    own, kept = settings(tmp_path), ledger(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        running.run_items(items, own, kept, budget_s=60, told=str)
    assert running.run_items(items, own, kept, budget_s=60, told=str)
    assert asked == ["a", "b", "b", "c"]


def test_a_failing_item_is_recorded_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "run_item", in_process)
    missing = {"system": str(tmp_path / "none.kits"), "backend": "ort-cpu", "precision": "fp32"}
    items = [
        Item(id="bad", task="nets", arguments=missing),
        Item(id="unknown", task="no such task"),
        Item(id="good", task="environment"),
    ]
    kept = ledger(tmp_path)
    assert running.run_items(items, settings(tmp_path), kept, budget_s=60, told=str)
    found = kept.results()
    assert [found[name]["state"] for name in ("bad", "unknown", "good")] == [
        "failed", "failed", "ok",
    ]  # fmt: skip
    assert "none.kits" in found["bad"]["why"]
    assert found["good"]["facts"]["backends"]["ort-cpu"]["why_not"] is None


def program(folder: Path, text: str) -> str:
    path = folder / "python86"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_process_that_crashes_is_a_failure_with_its_last_line(tmp_path: Path) -> None:
    given = settings(tmp_path, trt86_python=program(tmp_path, "echo no luck >&2; exit 139"))
    item = Item(id="x", task="environment", interpreter="trt86")
    result = running.run_item(item, given, limit_s=20)
    assert result is not None
    assert result["state"] == "failed"
    assert result["why"] == "its process ended with code 139 (no luck)"


def test_a_process_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    left = tmp_path / "left"
    text = f"(sleep 2; touch {left}) & sleep 60"
    given = settings(tmp_path, trt86_python=program(tmp_path, text))
    item = Item(id="x", task="environment", interpreter="trt86")
    kept = ledger(tmp_path)
    assert running.run_items([item], given, kept, budget_s=0.5, told=str)
    assert kept.results()["x"]["why"].startswith("it ran past 0 s")
    time.sleep(2)
    assert not left.exists()


def test_an_item_that_gets_less_than_its_time_waits_for_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"a": {"state": "ok", "why": "", "seconds": 0, "facts": {}}, "b": None}
    monkeypatch.setattr(running, "run_item", lambda item, _settings, limit_s: given[item.id])
    items = [Item(id=name, task="none", limit_s=100) for name in "ab"]
    kept = ledger(tmp_path)
    assert not running.run_items(items, settings(tmp_path), kept, budget_s=50, told=str)
    assert set(kept.results()) == {"a"}
    assert running.run_items(items, settings(tmp_path), kept, budget_s=50, told=str)
    assert kept.results()["b"]["state"] == "failed"


@pytest.mark.parametrize(("given", "expected"), [(None, "is not set"), ("no-such", "no such")])
def test_a_missing_interpreter_of_tensorrt_8_is_said(
    given: str | None, expected: str, tmp_path: Path
) -> None:
    item = Item(id="x", task="environment", interpreter="trt86")
    result = running.run_item(item, settings(tmp_path, trt86_python=given), limit_s=1)
    assert result is not None
    assert result["state"] == "unrun"
    assert expected in result["why"]


def test_a_backend_that_cannot_run_is_known_from_the_environment() -> None:
    told = {"state": "ok", "facts": {"backends": {"trt": {"why_not": "no driver"}}}}
    item = Item(id="x", task="nets", arguments={"backend": "trt"})
    assert running.known_why(item, {"environment/own": told}) == "backend trt: no driver"
    assert running.known_why(item, {}) is None
    told["facts"] = {"backends": {"trt": {"why_not": None}}}
    assert running.known_why(item, {"environment/own": told}) is None


def test_results_are_kept_apart_by_what_they_depend_on(tmp_path: Path) -> None:
    one, other = settings(tmp_path), settings(tmp_path, repeats=2)
    moved = settings(tmp_path / "elsewhere")
    assert state_key(one, {"commit": "a"}) == state_key(moved, {"commit": "a"})
    keys = {state_key(one, {"commit": "a"}), state_key(one, {"commit": "b"}), state_key(other, {})}
    assert len(keys) == 3
    first = Ledger(path=tmp_path / "state.json", key="1", configuration={})
    second = Ledger(path=tmp_path / "state.json", key="2", configuration={})
    first.put("x", {"state": "failed"})
    assert second.results() == {}
    first.put("y", {"state": "ok"})
    first.forget(("failed", "unrun"))
    assert set(first.results()) == {"y"}
    first.path.write_text("[]")
    with pytest.raises(UsageError, match="no state of a check"):
        first.results()


def ok(**facts: object) -> Mapping[str, Any]:
    return {"state": "ok", "why": "", "seconds": 1.0, "facts": facts}


def latency_record(slices: int, p50: float, read: float, net: float) -> Mapping[str, Any]:
    row = {
        "name": "kits-trt/trt", "way": "kits-trt", "state": "ok", "p50": p50,
        "phase_ms": {"read": read}, "net_ms": net,
    }  # fmt: skip
    baseline = {**row, "name": "b0", "way": "monai", "p50": 9000.0}
    return {"case": {"size": [slices, 512, 512]}, "contestants": [row, baseline]}


RESULTS: Mapping[str, Mapping[str, Any]] = {
    "nets/tiny/b0": ok(window_ms={"one": 60.0, "two": 20.0}),
    "nets/tiny/b1": ok(window_ms={"one": 12.0, "two": 8.0}),
    "nets/tiny/trt/fp16": ok(window_ms={"one": 6.0, "two": 4.0}),
    "nets/tiny/trt/fp32": ok(window_ms={"one": 0.1, "two": 0.1}),
    "nets/tiny/ort-cuda/fp16": ok(window_ms={"one": 15.0, "two": 5.0}),
    "latency/tiny/own/1+2": ok(
        records=[latency_record(50, 100.0, 40.0, 70.0), latency_record(100, 150.0, 125.0, 30.0)]
    ),
    "throughput/tiny/own": ok(
        records=[{"backends": [{"backend": "trt", "state": "ok", "net_ms": 96, "wall_ms": 100}]}]
    ),
    "cold/tiny/trt86/1": ok(
        records=[{"backends": [{"backend": "trt", "state": "ok", "first_window_s": 1.5}]}]
    ),
    "windows/sixth/trt/fp16": ok(scans={"samples_per_s": 5.5}),
    "gpu-memory/tiny/trt/fp16/1": ok(own_mib=1000),
    "gpu-memory/tiny/trt/fp16/2": ok(own_mib=3000),
}


def test_the_summary_computes_each_target_from_the_best_backend(tmp_path: Path) -> None:
    real = settings(tmp_path, dry=False, precisions=("fp32", "fp16"))
    rows = {row.target: row for row in rows_of(RESULTS, real)}
    found = {name: (row.value, row.met, row.who) for name, row in rows.items()}
    # 108 and 216 slices lie on the line through (50, 100 ms) and (100, 150 ms): 1 ms a slice.
    assert found == {
        "nets in FP16 against B1": (2.0, False, "trt/fp16"),
        "nets in FP16 against B0": (8.0, True, "trt/fp16"),
        "warm, file to file, 108 slices": (158.0, False, "kits-trt/trt"),
        "warm, file to file, 216 slices": (266.0, False, "kits-trt/trt"),
        "beyond reading or nets": (30.0, True, "kits-trt/trt"),
        "cohort's share of the nets' rate": (0.96, True, "trt"),
        "cold start, engine kept": (1.5, False, "trt (trt86)"),
        "sixth net in FP16": (5.5, True, "trt/fp16"),
        "GPU memory": (3000, False, "trt/fp16"),
    }
    assert "| >= 2.5 x | 2 x | no | trt/fp16 |" in table(list(rows.values()), dry=False)


def test_a_target_without_a_figure_says_unrun_and_why(tmp_path: Path) -> None:
    real = settings(tmp_path, dry=False)
    assert {row.why for row in rows_of({}, real)} == {"its part was not run"}
    bad = {"state": "unrun", "why": "no driver", "seconds": 0.0, "facts": {}}
    rows = rows_of({"cold/tiny/own/61": bad}, real)
    (row,) = (row for row in rows if row.why == "no driver")
    assert row.target == "cold start, engine kept"
    assert "unrun: no driver" in table([row], dry=False)
    assert len(rows) == len(TARGETS)


def test_gpu_memory_is_what_was_used_above_the_first_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "smi"
    tool.write_text("#!/bin/sh\nfor n in 500 700 2100 900; do echo $n; done\nexec sleep 30\n")
    tool.chmod(0o755)
    with sampled_mib(str(tool)) as found:
        while len(found.mib) < 4:
            time.sleep(0.01)
    assert found.facts == {"before_mib": 500, "most_mib": 2100, "own_mib": 1600, "readings": 4}
    with (
        pytest.raises(BackendUnavailableError, match="no such program"),
        sampled_mib(str(tmp_path / "none")),
    ):
        pass


def test_pieces_are_small_and_join_to_the_same_files(tmp_path: Path) -> None:
    from kits_bench.gpu_check.prepare import SUMS, pack

    folder = tmp_path / "carry"
    folder.mkdir()
    content = os.urandom(50_000)
    (folder / "net.onnx").write_bytes(content)
    pieces = pack(folder, tmp_path / "pieces", most_bytes=20_000)
    assert len(pieces) >= 3
    assert max(path.stat().st_size for path in pieces) <= 20_000
    check = subprocess.run(["sha256sum", "-c", SUMS], cwd=tmp_path / "pieces", check=False)
    assert check.returncode == 0
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(path.read_bytes() for path in pieces))
    with tarfile.open(whole) as archive:
        stream = archive.extractfile("carry/net.onnx")
        assert stream is not None
        assert stream.read() == content
    with pytest.raises(UsageError, match="expected an empty folder"):
        pack(folder, tmp_path / "pieces", most_bytes=20_000)


def test_a_budget_that_ends_first_is_an_exit_code_of_its_own(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "run_item", in_process)
    assert main(arguments(tmp_path, bundle, "--part", 2, "--budget", 1)) == EXIT_MORE
    assert main(arguments(tmp_path, bundle, "--part", 2)) == 0


def test_another_interpreter_finds_the_packages_from_their_sources() -> None:
    found = {name.name for root in source_roots() for name in Path(root).iterdir()}
    assert {"kits_bench", "kits_runtime", "kits_trt", "kits_export"} <= found


def test_an_interpreter_without_torch_and_onnx_measures_all_but_baselines(
    bundle: Path, tmp_path: Path
) -> None:
    code = """
import json, sys
for name in ("torch", "onnx", "onnxscript", "monai"):
    sys.modules[name] = None
from kits_bench.gpu_check.task import answer_of
from kits_bench.worker import open_way
requests = json.loads(sys.argv[1])
print(json.dumps([answer_of(request) for request in requests[:-1]]))
open_way(requests[-1])
"""
    own = settings(tmp_path)
    plain = {**own.configuration, "out": own.out, "cache": own.cache}
    named = {"system": str(bundle), "backend": "ort-cpu", "precision": "fp32"}
    mode = {"system": str(bundle), "mode": "throughput", "backends": ["ort-cpu"], "cases": ["dry"]}
    asked: list[tuple[str, Mapping[str, Any]]] = [
        ("nets", named),
        ("engines", named),
        ("suite", mode),
        ("torch-nets", {**named, "way": "b0"}),
    ]
    requests = [
        {"settings": plain, "task": task, "arguments": given, "interpreter": "own"}
        for task, given in asked
    ]
    way = {"bundle": str(bundle), "threads": 1, "way": "kits-trt", "precision": "fp32"}
    told = subprocess.run(
        [sys.executable, "-c", code, json.dumps([*requests, {**way, "backend": "ort-cpu"}])],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    answers = json.loads(told.stdout)
    assert [answer["state"] for answer in answers] == ["ok", "ok", "ok", "unrun"]
    assert answers[3]["why"].startswith("a package is missing here")


def test_every_measurement_finds_the_engines_that_earlier_ones_built(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[EngineOptions] = []
    original = tasks.open_engine

    def noted(*given: Any, options: EngineOptions, **named: Any) -> Any:
        opened.append(options)
        return original(*given, options=options, **named)

    monkeypatch.setattr(tasks, "open_engine", noted)
    given = settings(tmp_path, systems=(str(bundle),))
    item = {"system": str(bundle), "backend": "ort-cpu", "precision": "fp32"}
    tasks.TASKS["nets"](given, "own", item)
    assert opened
    assert {options.engine_cache for options in opened} == {tmp_path / "kept" / "engines"}
    assert cached_options(precision="fp16").engine_cache == tmp_path / "kept" / "engines"


def test_items_keep_engines_beside_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(tmp_path)
    code = (
        "import os, sys; {roots!r}; print(os.environ['KITS_CACHE'], file=sys.stderr); sys.exit(1)"
    )
    monkeypatch.setattr(running, "_CHILD", code)
    result = running.run_item(Item(id="a", task="environment"), given, limit_s=60)
    assert result is not None
    assert result["why"] == f"its process ended with code 1 ({tmp_path / 'out' / 'cache'})"


def test_kernels_are_compared_with_their_twins_and_a_wrong_one_is_named() -> None:
    facts = kernels.kernel_facts(kernels.TWINS, repeats=1, dry=True)
    assert set(facts) == {"resample", "gather", "blend", "labels"}
    assert all(row["values"] > 0 and row["ms"] > 0 for row in facts.values())

    def fused(name: str, items: int, *arguments: Any) -> None:
        launch_twin(name, items, *arguments)
        if name == "blend":
            arguments[-2][0, 3, 4, 5] += 0.5

    wrong = dataclasses.replace(kernels.TWINS, launch=fused)
    with pytest.raises(EngineError, match=r"kernel blend: 1 of \d+ values differ .* by 0.5 at"):
        kernels.kernel_facts(wrong, repeats=1, dry=True)


def test_an_item_that_built_an_engine_before_it_was_ended_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(tmp_path)
    built = given.folder / running.ENGINES / "engines" / "net.json"

    def item_that_builds(*_: Any, **__: Any) -> None:
        if not built.exists():
            built.parent.mkdir(parents=True)
            built.write_text("{}")

    monkeypatch.setattr(running, "run_item", item_that_builds)
    state = ledger(tmp_path)
    item = Item(id="engines/a", task="engines", resumes=True)
    assert not running.run_items([item], given, state, budget_s=60, told=lambda _: None)
    assert state.results() == {}
    # The second time nothing new is left, so it is stuck and counts as failed.
    assert running.run_items([item], given, state, budget_s=60, told=lambda _: None)
    assert state.results()["engines/a"]["state"] == "failed"


def test_what_leaves_records_or_engines_as_it_goes_resumes(tmp_path: Path) -> None:
    items = [item for part in PARTS for item in part.items(settings(tmp_path))]
    assert {item.task for item in items if item.resumes} == {"engines", "suite"}
