"""Measurements of whole cases add up and tell what ran."""

from pathlib import Path

import pytest
from bundles import write_scan, write_two_stages

from kits_bench import pipeline
from kits_runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_stages(tmp_path_factory.mktemp("bundle") / "tiny.kits")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for name in ("one", "two"):
        write_scan(folder / f"{name}.nii.gz")
    return folder


def test_a_cohort_takes_longer_than_its_nets(bundle: Path, scans: Path) -> None:
    with Segmenter.from_bundle(bundle) as segmenter:
        found = pipeline.throughput(segmenter, scans)
    assert found["cases"] == 2
    assert float(str(found["wall_over_net"])) > 1
    busy = found["busy_share"]
    assert isinstance(busy, dict)
    assert 0 < busy["net"] < busy["segment"] <= 1
    assert busy["read"] > 0
    assert busy["write"] > 0


def test_a_cold_start_reaches_the_first_window_before_the_labels(bundle: Path, scans: Path) -> None:
    found = pipeline.cold_start(scans / "one.nii.gz", bundle=str(bundle), backend="auto", repeats=1)
    assert 0 < float(str(found["first_window_s"])) <= float(str(found["labels_s"]))


def test_memory_is_that_of_a_process_with_the_runtime(bundle: Path, scans: Path) -> None:
    found = pipeline.peak_memory(scans, bundle=str(bundle), backend="auto")
    assert found["cases"] == 2
    assert 50 < float(str(found["peak_mb_after_first"])) <= float(str(found["peak_mb"])) < 1000


def test_a_peak_that_only_rises_while_the_first_cases_come_is_flat() -> None:
    facts = pipeline.memory_facts([300.4, 400.0, 500.0, 501.0, 501.0, 501.0])
    assert facts["peak_mb_after_first"] == 300
    assert facts["peak_mb"] == 501
    assert facts["rise_mb_a_case"] == 0
    assert facts["peak_mb_after_each"] == [300, 400, 500, 501, 501, 501]


def test_a_peak_that_goes_on_rising_shows_by_how_much_a_case() -> None:
    assert pipeline.memory_facts([9, 9, 9, 10, 12, 14, 16])["rise_mb_a_case"] == 2
    assert pipeline.memory_facts([9])["rise_mb_a_case"] == 0
