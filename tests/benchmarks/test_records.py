"""Records resume where nothing changed, and are never mixed."""

import json
from pathlib import Path
from typing import Any

import pytest

from kits_bench.compare import compare_latency, require_no_slower
from kits_bench.records import RecordStore, read_records, write_record
from kits_runtime.errors import ParityError, UsageError

CONFIG = {"kind": "latency", "bundle_sha256": "b" * 64, "case_sha256": "c" * 64, "repeats": 3}


def test_a_record_of_the_same_config_is_done(tmp_path: Path) -> None:
    store = RecordStore(folder=tmp_path)
    path = store.path("latency", "tiny-small", "one")
    assert store.finished(path, CONFIG) is None
    written = store.write(path, CONFIG, {"found": 1})
    assert store.finished(path, dict(reversed(CONFIG.items()))) == json.loads(json.dumps(written))


def test_another_number_of_repeats_is_measured_again(tmp_path: Path) -> None:
    store = RecordStore(folder=tmp_path)
    path = store.path("latency", "tiny-small", "one")
    store.write(path, CONFIG, {})
    assert store.finished(path, {**CONFIG, "repeats": 4}) is None


@pytest.mark.parametrize("field", ["bundle_sha256", "case_sha256"])
def test_another_bundle_or_case_refuses_to_merge(tmp_path: Path, field: str) -> None:
    store = RecordStore(folder=tmp_path)
    path = store.path("latency", "tiny-small", "one")
    store.write(path, CONFIG, {})
    with pytest.raises(UsageError, match=f"{field} {CONFIG[field][:12]}, expected dddd"):  # type: ignore[index]
        store.finished(path, {**CONFIG, field: "d" * 64})


def test_what_is_no_record_is_not_overwritten(tmp_path: Path) -> None:
    store = RecordStore(folder=tmp_path)
    path = store.path("latency", "tiny-small", "one")
    path.write_text("[]")
    with pytest.raises(UsageError, match="found no record"):
        store.finished(path, CONFIG)


def test_a_dry_run_is_refused_among_committed_records(tmp_path: Path) -> None:
    committed = tmp_path / "benchmarks" / "results" / "here"
    with pytest.raises(UsageError, match="found a dry run"):
        RecordStore(folder=committed, dry=True)
    with pytest.raises(UsageError, match="found a dry run"):
        write_record(committed / "one.json", {"dry": True})
    assert not committed.exists()
    RecordStore(folder=tmp_path / "out", dry=True)


def test_records_are_read_from_folders_and_files(tmp_path: Path) -> None:
    write_record(tmp_path / "a" / "one.json", {"kind": "x"})
    assert read_records(tmp_path) == read_records(tmp_path / "a" / "one.json") == ({"kind": "x"},)
    with pytest.raises(UsageError, match="found no record"):
        read_records(tmp_path / "none.json")


def latency(case: str, ms: float, *, bundle: str = "b", dry: bool = False) -> dict[str, Any]:
    row = {"name": "kits-trt/x", "way": "kits-trt", "state": "ok", "wall_ms": [ms, ms, 9 * ms]}
    other = {"name": "b0", "way": "monai", "state": "ok", "wall_ms": [1.0]}
    return {
        "kind": "latency",
        "dry": dry,
        "config": {"bundle_sha256": bundle},
        "case": {"name": case, "sha256": "c" * 64},
        "contestants": [row, other],
    }


def test_medians_of_the_same_cases_are_compared() -> None:
    old = [latency("one", 100), latency("two", 300), latency("three", 7)]
    new = [latency("one", 110), latency("two", 330)]
    found = compare_latency(old, new)
    assert list(found) == ["kits-trt/x"]
    assert found["kits-trt/x"].cases == 2
    assert found["kits-trt/x"].total.value == pytest.approx(1.1)


def test_what_became_slower_stops_the_run() -> None:
    found = compare_latency([latency("one", 100)], [latency("one", 125)])
    require_no_slower(found, at_most=1.25)
    with pytest.raises(ParityError, match=r"1\.250 times .* expected at most 1\.10") as error:
        require_no_slower(found, at_most=1.10)
    assert error.value.exit_code == 6


def test_records_of_other_bundles_cannot_be_compared() -> None:
    with pytest.raises(UsageError, match="1 old and 1 new"):
        compare_latency([latency("one", 1)], [latency("one", 1, bundle="other")])
    with pytest.raises(UsageError, match="0 old and 1 new"):
        compare_latency([latency("one", 1, dry=True)], [latency("one", 1)])
