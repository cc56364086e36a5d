"""The page of benchmarks says what the committed records say."""

from typing import Any

import pytest

from kits_bench.docs import PAGE, README, committed_records, page_from_records
from kits_bench.headline import headline_table, with_headline


def test_the_page_is_made_of_the_committed_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_from_records(committed_records())


def test_the_readmes_table_is_made_of_the_committed_records() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_headline(text, headline_table(committed_records()))


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
    small = {"system": "resunet-msvnet", "preset": "small"}
    of_one = {"dry": False, "bundle": small, "case": {"size": [3, 2, 1]}}
    of_many = {"dry": False, "bundle": small, "cases": [{"name": "a"}, {"name": "b"}]}
    ours = {"way": "kits-trt", "state": "ok", "runs_with": {"backend": "fast"}}
    times = {"wall_ms": [31.0, 30.4, 29.0], "net_ms": 20.0, "other_ms": 10.4}
    absent = {"backend": "gpu", "state": "unrun", "why": "none here"}
    cold = {"backend": "fast", "state": "ok", "first_window_s": 1.0, "labels_s": 2.5}
    peaks = {"backend": "fast", "state": "ok", "cases": 50, "peak_mb": 501, "rise_mb_a_case": 0.0}
    rate = {"backend": "fast", "state": "ok", "cases_per_minute": 73.4, "wall_over_net": 1.05}
    records = [
        ("here", {"kind": "latency", **of_one, "contestants": [{**ours, **times}]}),
        ("here", {"kind": "cold", **of_one, "backends": [cold, absent]}),
        ("here", {"kind": "throughput", **of_many, "backends": [rate]}),
        ("here", {"kind": "memory", **of_many, "backends": [peaks]}),
    ]
    assert page_from_records(records).splitlines()[-4:] == [
        "| warm, file to files | 3 x 2 x 1 | fast | 30 ms, of which nets 20, all else 10 |",
        "| process start to first window | 3 x 2 x 1 | fast | 1.00 s, to the labels 2.50 s |",
        "| many in a row | 2 scans | fast | 73 cases a minute, 1.05 x the time in nets |",
        "| peak resident memory | 2 scans | fast | 501 MB after 50 cases, rising 0.0 MB each |",
    ]


def test_a_record_that_lacks_a_fact_is_refused() -> None:
    with pytest.raises(KeyError):
        page_from_records([("here", {"timings": []})])


def latency(name: str, times_s: dict[str, float], **changes: Any) -> dict[str, Any]:
    rows = [
        {
            "name": who,
            "way": "kits-trt" if "/" in who else "torch",
            "state": "ok",
            "wall_ms": [1e3 * seconds] * 3,
        }
        for who, seconds in times_s.items()
    ]
    return {
        "kind": "latency",
        "dry": False,
        "config": {},
        "bundle": {"system": "unet3d", "preset": "paper", "weights": "seeded"},
        "case": {"name": name},
        "contestants": rows,
        "foreign_load": {"flagged": False},
        **changes,
    }


def test_the_headline_is_the_mean_over_cases_that_all_finished() -> None:
    times = {"kits-trt/openvino": 1.0, "b0": 8.0, "b1": 2.0}
    records = [
        ("here", latency("case_00036", times)),
        ("here", latency("case_00042", {"kits-trt/openvino": 3.0, "b0": 16.0, "b1": 2.0})),
        ("here", latency("case_00061", {"kits-trt/openvino": 50.0})),
    ]
    row = headline_table(records).splitlines()[-1]
    assert row == (
        "| unet3d | here, openvino | 2 | **2.00 s** | 12.00 s, 6.00 x (5.33 to 8.00) | "
        "2.00 s, 1.00 x (0.67 to 2.00) | 17.52 s |"
    )


def test_a_single_case_has_a_ratio_without_an_interval() -> None:
    records = [("here", latency("case_00036", {"kits-trt/openvino": 2.0, "b0": 8.0}))]
    assert "| 8.00 s, 4.00 x |" in headline_table(records)


def test_a_system_without_a_record_is_unrun() -> None:
    lines = headline_table([]).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "cascaded-vnet",
        "resunet-msvnet",
        "unet3d",
    ]
    assert all(line.count("unrun") == 3 for line in lines[2:])


@pytest.mark.parametrize(
    "changes",
    [
        {"dry": True},
        {"bundle": {"system": "unet3d", "preset": "small", "weights": "seeded"}},
        {"case": {"name": "somebodys_scan"}},
    ],
)
def test_only_real_runs_of_published_shapes_at_the_papers_size_stand_there(
    changes: dict[str, Any],
) -> None:
    record = latency("case_00036", {"kits-trt/openvino": 1.0}, **changes)
    assert headline_table([("here", record)]) == headline_table([])


def test_a_disturbed_run_is_marked() -> None:
    record = latency("case_00036", {"kits-trt/x": 1.0}, foreign_load={"flagged": True})
    table = headline_table([("here", record)])
    assert "**1.00 s** `*` | unrun | unrun |" in table
    assert table.splitlines()[-1].startswith("`*` other processes")


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="found no"):
        with_headline("text", "table")
