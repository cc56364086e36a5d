import csv
import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
from bundles import phantom, write_one_stage, write_scan

from kits_runtime.engines import choose

Start = Callable[..., "subprocess.Popen[str]"]

KIDNEY_ML = float((phantom().labels == 1).sum() * 0.08)
TUMOUR_ML = float((phantom().labels == 2).sum() * 0.08)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three scans, the second of which is broken."""
    for name in ("a", "c"):
        write_scan(tmp_path / "in" / f"{name}.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"no scan")
    return tmp_path / "in"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "scan.nii.gz")


def files_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def labels_in(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def summary_of(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_one_file_leaves_a_mask_and_a_record(kits_infer: Any, scan: Path, tmp_path: Path) -> None:
    ended = kits_infer("-i", scan, "-o", tmp_path / "out")
    assert ended.code == 0
    assert files_in(tmp_path / "out") == ["scan.json", "scan.nii.gz"]
    np.testing.assert_array_equal(labels_in(tmp_path / "out" / "scan.nii.gz"), phantom().labels)
    record = json.loads((tmp_path / "out" / "scan.json").read_text())
    assert record["volumes_ml"] == pytest.approx(
        {"kidney": KIDNEY_ML, "tumour": TUMOUR_ML}, abs=1e-3
    )


def test_people_are_told_backend_reason_volumes_and_where_the_mask_is(
    kits_infer: Any, scan: Path, tmp_path: Path
) -> None:
    ended = kits_infer("-i", scan, "-o", tmp_path / "out")
    backend, case, *warnings = ended.err.splitlines()
    # The phantom's body is water, and 20 cm wide.
    heads = [warning.split(",")[0] for warning in warnings]
    assert heads[0] == "scan: warning: water: the body is as uniform as water"
    assert heads[1].startswith("scan: warning: small-section: the body measures ")
    assert len(heads) == 2
    assert backend == "backend ort-cpu (fp32): asked for by name"
    assert case.startswith(f"scan: kidney {KIDNEY_ML:.1f} ml, tumour {TUMOUR_ML:.1f} ml, ")
    assert case.endswith(f" s, {tmp_path}/out/scan.nii.gz")
    assert ended.out == ""


def test_the_backend_line_says_what_was_passed_over_and_why(
    kits_infer: Any, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in choose.BACKENDS if row.name == "ort-cpu"]
    missing = replace(rows[0], name="openvino", why_not=lambda: "not installed")
    monkeypatch.setattr(choose, "BACKENDS", (missing, *rows))
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--backend", "auto")
    assert ended.err.splitlines()[0] == (
        "backend ort-cpu (fp32): the first in the order of preference that can run here; "
        "not openvino: not installed"
    )


def test_a_backend_that_cannot_run_ends_with_5_and_no_output(
    kits_infer: Any, scan: Path, tmp_path: Path
) -> None:
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--backend", "trt")
    assert ended.code == 5
    assert len(ended.complaints) == 1
    assert "backend trt: the package tensorrt is not installed" in ended.err
    assert not (tmp_path / "out").exists()
    assert kits_infer("-i", scan, "-o", tmp_path / "out", "--device", "cuda:1").code == 5


def test_a_folder_gives_a_result_a_scan_and_the_bad_one_is_named(
    kits_infer: Any, folder: Path, tmp_path: Path
) -> None:
    ended = kits_infer("-i", folder, "-o", tmp_path / "out")
    assert ended.code == 8
    assert files_in(tmp_path / "out") == [
        *("a.json", "a.nii.gz", "c.json", "c.nii.gz"),
        "summary.csv",
    ]
    failures = [line for line in ended.err.splitlines() if "failed" in line]
    assert len(failures) == 2
    assert "/3] b: failed: " in failures[0]
    assert str(folder / "b.nii.gz") in failures[0]
    assert failures[1] == "kits-infer: 1 of 3 cases failed"


def test_the_summary_has_a_row_a_case(kits_infer: Any, folder: Path, tmp_path: Path) -> None:
    kits_infer("-i", folder, "-o", tmp_path / "out")
    rows = {row["case"]: row for row in summary_of(tmp_path / "out")}
    assert list(rows) == ["a", "b", "c"]  # in the order of the input, whichever ended first
    assert list(rows["a"]) == [
        *("case", "scan", "status", "kidney_ml", "tumour_ml", "total_ms", "warnings", "error")
    ]
    assert rows["a"]["scan"] == str(folder / "a.nii.gz")
    assert rows["a"]["status"] == "ok"
    assert float(rows["a"]["kidney_ml"]) == pytest.approx(KIDNEY_ML, abs=1e-3)
    assert float(rows["a"]["tumour_ml"]) == pytest.approx(TUMOUR_ML, abs=1e-3)
    assert int(rows["a"]["total_ms"]) > 0
    assert rows["a"]["warnings"].startswith("water: ")
    assert "; small-section: " in rows["a"]["warnings"]
    assert (rows["b"]["status"], rows["b"]["kidney_ml"]) == ("failed", "")
    assert "b.nii.gz: found" in rows["b"]["error"]


def test_a_kits_folder_names_results_by_its_cases(kits_infer: Any, tmp_path: Path) -> None:
    for name in ("case_00000", "case_00001"):
        write_scan(tmp_path / "kits" / name / "imaging.nii.gz")
    assert kits_infer("-i", tmp_path / "kits", "-o", tmp_path / "out").code == 0
    assert files_in(tmp_path / "out") == [
        *("case_00000.json", "case_00000.nii.gz", "case_00001.json", "case_00001.nii.gz"),
        "summary.csv",
    ]


def test_a_list_goes_on_beyond_a_scan_that_is_not_there(
    kits_infer: Any, scan: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "cases.txt"
    listing.write_text("gone.nii.gz\nscan.nii.gz\n")
    ended = kits_infer("-i", listing, "-o", tmp_path / "out")
    assert ended.code == 8
    assert files_in(tmp_path / "out") == ["scan.json", "scan.nii.gz", "summary.csv"]
    assert [row["status"] for row in summary_of(tmp_path / "out")] == ["failed", "ok"]
    assert "gone: failed: " in ended.err
    assert "No such file or directory" in ended.err


def test_a_preview_is_a_picture_with_the_classes_contours(
    kits_infer: Any, scan: Path, tmp_path: Path
) -> None:
    assert kits_infer("-i", scan, "-o", tmp_path / "out", "--preview").code == 0
    picture = np.round(matplotlib.image.imread(tmp_path / "out" / "scan.png") * 255)
    for colour in ((0, 215, 255), (255, 70, 60)):
        assert (picture[:-60] == colour).all(axis=2).sum() > 100


def test_results_that_are_there_are_not_touched_unasked(
    kits_infer: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.nii.gz").write_bytes(b"mine")
    ended = kits_infer("-i", folder, "-o", out)
    assert ended.code == 2
    assert ended.err.startswith(f"kits-infer: {out}/c.nii.gz: a result is there already, expected")
    assert files_in(out) == ["c.nii.gz"]
    assert kits_infer("-i", folder, "-o", out, "--overwrite").code == 8
    np.testing.assert_array_equal(labels_in(out / "c.nii.gz"), phantom().labels)


def test_skipping_computes_only_what_is_missing_or_old(
    kits_infer: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_scan(folder / "b.nii.gz", phantom(tumour_on="right"))
    assert kits_infer("-i", folder, "-o", out).code == 0
    first = summary_of(out)
    write_scan(folder / "b.nii.gz", phantom(seed=7))
    (out / "c.json").unlink()
    before = (out / "a.nii.gz").stat().st_mtime_ns
    ended = kits_infer("-i", folder, "-o", out, "--skip-existing")
    assert ended.code == 0
    assert "a: skipped, its result is up to date" in ended.err
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    rows = {row["case"]: row for row in summary_of(out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "skipped",
        "b": "ok",
        "c": "ok",
    }
    assert {**rows["a"], "status": "ok"} in first  # what a skipped case measures is still told
    np.testing.assert_array_equal(labels_in(out / "b.nii.gz"), phantom().labels)


def test_another_bundle_skips_nothing(kits_infer: Any, scan: Path, tmp_path: Path) -> None:
    other = write_one_stage(tmp_path / "other.kits", kernel=1)
    kits_infer("-i", scan, "-o", tmp_path / "out")
    again = kits_infer("-i", scan, "-o", tmp_path / "out", "--skip-existing", "--bundle", other)
    assert "skipped" not in again.err
    again = kits_infer("-i", scan, "-o", tmp_path / "out", "--skip-existing", "--bundle", other)
    assert "scan: skipped, its result is up to date" in again.err


def test_the_log_is_json_line_by_line(kits_infer: Any, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "earlier"}\n')
    kits_infer("-i", folder, "-o", tmp_path / "out", "--log-json", log, "-q")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["earlier", "start", *["case"] * 3, "end"]
    start, end = events[1], events[-1]
    assert (start["cases"], start["output"]) == (3, str(tmp_path / "out"))
    assert (end["ended"], end["cases"]) == (3, 3)
    cases = {event["case"]: event for event in events[2:-1]}
    assert {name: event["status"] for name, event in cases.items()} == {
        "a": "ok",
        "b": "failed",
        "c": "ok",
    }
    assert cases["a"]["kidney_ml"] == pytest.approx(KIDNEY_ML, abs=1e-3)


def test_a_log_that_cannot_be_written_is_found_out_before_the_work(
    kits_infer: Any, scan: Path, tmp_path: Path
) -> None:
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--log-json", tmp_path / "no" / "log")
    assert ended.code == 1
    assert f"{tmp_path}/no/log: No such file or directory" in ended.complaints[0]
    assert not (tmp_path / "out").exists()


def test_quiet_says_nothing_but_failures(
    kits_infer: Any, scan: Path, folder: Path, tmp_path: Path
) -> None:
    ended = kits_infer("-i", scan, "-o", tmp_path / "one", "-q")
    assert (ended.out, ended.err) == ("", "")
    ended = kits_infer("-i", folder, "-o", tmp_path / "three", "-q")
    assert len(ended.err.splitlines()) == 2


def test_debug_shows_where_a_case_failed(kits_infer: Any, folder: Path, tmp_path: Path) -> None:
    single = kits_infer("-i", folder / "b.nii.gz", "-o", tmp_path / "out", "--debug")
    assert single.code == 3
    assert "Traceback" in single.err


def test_the_version_is_the_packages(kits_infer: Any) -> None:
    ended = kits_infer("--version")
    assert (ended.code, ended.out) == (0, f"kits-infer {metadata.version('kits-trt')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("-i", "scan.nii"),
        ("-o", "out"),
        ("-i", "a", "-o", "b", "--backend", "abacus"),
        ("-i", "a", "-o", "b", "--device", "cuda:x"),
        ("-i", "a", "-o", "b", "--threads", "0"),
        ("-i", "a", "-o", "b", "--overwrite", "--skip-existing"),
        ("-i", "a", "-o", "b", "--colour"),
    ],
)
def test_wrong_usage_ends_with_2(kits_infer: Any, arguments: tuple[str, ...]) -> None:
    ended = kits_infer(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("usage: kits-infer")


def test_names_whose_bytes_are_no_utf8_go_through(
    in_process_of_its_own: Start, one_stage: Path, tmp_path: Path
) -> None:
    name = b"m\xfcller.nii.gz".decode(errors="surrogateescape")
    for each in (name, "b.nii.gz"):
        write_scan(tmp_path / "in" / "scan.nii.gz").rename(tmp_path / "in" / each)
    process = in_process_of_its_own(
        *("infer", "-i", tmp_path / "in", "-o", tmp_path / "out", "--bundle", one_stage),
        *("--preview", "--backend", "ort-cpu"),
    )
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "m\\udcfcller: kidney" in err
    assert (tmp_path / "out" / name).is_file()
    assert b"m\xfcller" in (tmp_path / "out" / "summary.csv").read_bytes()


def test_what_a_killed_run_left_is_removed(kits_infer: Any, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".scan.nii.gz.0123abcd.part").touch()
    (out / ".other.nii.gz.0123abcd.part").touch()
    assert kits_infer("-i", scan, "-o", out).code == 0
    assert files_in(out) == [".other.nii.gz.0123abcd.part", "scan.json", "scan.nii.gz"]


def test_a_process_of_its_own_does_the_same(
    in_process_of_its_own: Start, two_stages: Path, scan: Path, tmp_path: Path
) -> None:
    process = in_process_of_its_own(
        "infer", "-i", scan, "-o", tmp_path / "out", "--bundle", two_stages, "--preview"
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("backend ")
    assert files_in(tmp_path / "out") == ["scan.json", "scan.nii.gz", "scan.png"]
    found = labels_in(tmp_path / "out" / "scan.nii.gz")
    assert np.mean(found[phantom().labels == 2] == 2) > 0.9


def test_no_progress_line_goes_into_a_file(kits_infer: Any, folder: Path, tmp_path: Path) -> None:
    assert "\r" not in kits_infer("-i", folder, "-o", tmp_path / "out").err


def test_signals_are_as_they_were_afterwards(kits_infer: Any, scan: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    kits_infer("-i", scan, "-o", tmp_path / "out")
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == before
