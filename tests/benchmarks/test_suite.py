"""A dry run of the suite goes the whole way, resumes, and survives what cannot run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import write_one_stage, write_scan, write_two_stages

from kits_bench.case_files import VERSION, cases_named, phantom_case, voxels_sha256
from kits_bench.cli import main
from kits_bench.contestants import Contestant, Runner
from kits_bench.latency import disagreement
from kits_bench.shapes import KITS_LIKE, PUBLISHED, CaseShape
from kits_runtime.errors import UsageError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_stages(tmp_path_factory.mktemp("bundle") / "tiny.kits")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    write_scan(folder / "one.nii.gz")
    return folder


def command(mode: str, bundle: Path, scans: Path, out: Path, *more: object) -> int:
    plain = [mode, "--bundle", bundle, "--cases", scans, "--results", out, "--machine", "here"]
    fast = ["--repeats", 1, "--threads", 1, "--cache", out / "cache"]
    return main([str(part) for part in ("-q", *plain, *fast, *more)])


def records_in(out: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (out / "here").glob("*.json")}


def test_a_dry_run_is_marked_resumes_and_refuses_another_bundle(
    bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("latency", bundle, scans, tmp_path, "--dry") == 0
    (name, record), *_ = records_in(tmp_path).items()
    assert name == "latency-tiny-small-one"
    assert record["dry"] is True
    assert [row["state"] for row in record["contestants"]] == ["ok", "ok"]
    assert record["contestants"][1]["agreement"]["differing_share_foreground"] == 0
    path = tmp_path / "here" / f"{name}.json"
    before = path.stat().st_mtime_ns
    assert command("latency", bundle, scans, tmp_path, "--dry") == 0
    assert path.stat().st_mtime_ns == before
    other = write_one_stage(tmp_path / "other.kits")
    capsys.readouterr()
    assert command("latency", other, scans, tmp_path, "--dry") == 2
    assert "never merged" in capsys.readouterr().err
    assert path.stat().st_mtime_ns == before


def test_a_missing_backend_is_a_row_that_says_why(
    bundle: Path, scans: Path, tmp_path: Path
) -> None:
    backends = ("--backends", "ort-cuda,ort-cpu", "--baselines", "none")
    assert command("latency", bundle, scans, tmp_path, *backends) == 0
    record = records_in(tmp_path)["latency-tiny-small-one"]
    missing, ran = record["contestants"]
    assert missing["state"] == "unrun"
    assert "ort-cuda" in missing["why"]
    assert ran["state"] == "ok"
    assert len(ran["wall_ms"]) == 1
    assert ran["wall_ms"][0] == pytest.approx(ran["net_ms"] + ran["other_ms"], abs=0.1)
    assert ran["without_way_back_ms"][0] < ran["wall_ms"][0]
    assert record["config"]["bundle_sha256"] == record["bundle"]["sha256"]
    assert {"versions", "commit", "cores"} <= record["machine"].keys()


def test_a_contestant_whose_process_ends_is_reported_and_started_again(tmp_path: Path) -> None:
    runner = Runner(Contestant(name="x", way="fake", bundle=str(tmp_path / "none.kits")))
    reply = runner.ask(tmp_path / "scan.nii.gz", tmp_path / "out")
    assert reply["state"] == "failed"
    assert "no such bundle" in reply["why"]
    assert runner.pid is None


def test_the_published_shapes_have_the_published_mean() -> None:
    seconds = [shape.published_s for shape in PUBLISHED]
    assert len(seconds) == 25
    assert np.mean([s for s in seconds if s is not None]) == pytest.approx(17.52, abs=0.005)
    slices = [shape.slices for shape in PUBLISHED]
    assert np.corrcoef(slices, np.array(seconds, float))[0, 1] == pytest.approx(0.975, abs=0.001)
    assert max(shape.slices for shape in KITS_LIKE) == 1059


def test_a_phantom_is_made_once_and_is_the_same_again(tmp_path: Path) -> None:
    shape = CaseShape(name="tiny", number=5, size=(6, 24, 24), spacing_mm=(20.0, 16.0, 16.0))
    told: list[str] = []
    first = phantom_case(shape, tmp_path / "a", told.append)
    again = phantom_case(shape, tmp_path / "a", told.append)
    elsewhere = phantom_case(shape, tmp_path / "b", told.append)
    assert len(told) == 2
    assert first == again
    assert first.sha256 == elsewhere.sha256 == voxels_sha256(first.scan)
    assert (first.scan.parent / "segmentation.nii.gz").is_file()
    # Where this differs, the same shapes have become other scans: count VERSION up.
    assert (VERSION, first.sha256[:16]) == (3, "03f73b975f4791b8")


def test_cases_are_chosen_by_number_or_path(scans: Path, tmp_path: Path) -> None:
    (own,) = cases_named(str(scans), tmp_path, lambda _: None)
    assert (own.name, own.size, own.published_s) == ("one", (24, 40, 48), None)
    with pytest.raises(UsageError, match="found '38', expected numbers among 36, 37"):
        cases_named("38", tmp_path, lambda _: None)


def test_disagreement_is_of_the_union_of_foregrounds() -> None:
    one, other = np.array([0, 1, 1, 2, 0], np.uint8), np.array([0, 1, 2, 2, 1], np.uint8)
    found = disagreement(one, other)
    assert found["differing_share_1"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["differing_share_2"] == 0.5
    assert found["differing_share_foreground"] == 0.25
    assert disagreement(one * 0, other * 0)["differing_share_foreground"] == 0
