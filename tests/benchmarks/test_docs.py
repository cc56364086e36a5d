"""The page of benchmarks says what the committed records say."""

import pytest

from kits_bench.docs import PAGE, committed_records, page_from_records


def test_the_page_is_made_of_the_committed_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_from_records(committed_records())


def test_no_committed_record_is_a_dry_run() -> None:
    assert [name for name, record in committed_records() if record["dry"]] == []


def test_a_page_shows_a_records_machine_and_medians() -> None:
    ways = [
        {"stage": "read", "way": "kits-trt", "median_ms": 2.0, "likeness": 1.0},
        {"stage": "read", "way": "usual", "median_ms": 5.0, "likeness": 1.0},
    ]
    machine = {
        "processor": "some processor",
        "cores": 2,
        "memory_gb": 24.0,
        "load_before": 0.1,
        "commit": "abc",
        "versions": dict.fromkeys(("nibabel", "scipy", "torch", "monai"), "1"),
    }
    record = {
        "kind": "stages",
        "machine": machine,
        "scan": {"size": [3, 2, 1]},
        "repeats": 5,
        "timings": ways,
    }
    page = page_from_records([("here", record)])
    assert "## here: stages" in page
    assert "some processor, 2 cores, 24.0 GB; a phantom of 3 x 2 x 1 voxels" in page
    assert "| | usual | 5.0 | 2.5 x | 100.00% |" in page


def test_a_page_shows_whole_cases() -> None:
    scan = {"size": [3, 2, 1]}
    case = {"case": "a", "wall_ms": 30.4, "net_ms": 20.0, "other_ms": 10.4}
    records = [
        ("here", {"kind": "latency", "scan": scan, "cases": [case]}),
        ("here", {"kind": "cold", "scan": scan, "cold": {"first_window_s": 1.0, "labels_s": 2.5}}),
        ("here", {"kind": "memory", "scan": scan, "memory": {"peak_mb": 501}}),
    ]
    assert page_from_records(records).splitlines()[-3:] == [
        "| warm, file to files | 3 x 2 x 1 | 30 ms, of which nets 20, all else 10 |",
        "| process start to first window | 3 x 2 x 1 | 1.00 s, to the labels 2.50 s |",
        "| peak resident memory | 3 x 2 x 1 | 501 MB |",
    ]


def test_a_record_that_lacks_a_fact_is_refused() -> None:
    with pytest.raises(KeyError):
        page_from_records([("here", {"timings": []})])
