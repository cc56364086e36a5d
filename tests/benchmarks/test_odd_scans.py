"""Scans that are no ordinary abdominal CT end in time, with an empty mask or a warning."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kits_bench.odd_scans import KINDS, metal, oblique, run_odd
from kits_runtime.qc import quality_warnings
from kits_runtime.segmenter import Segmenter
from kits_runtime.statistics import class_statistics
from kits_runtime.volume import volume_from_array
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.phases import PHASES
from kits_trt.phantom.rendering import render

SMALL = [name for name, kind in KINDS.items() if not kind.is_large]
LARGE = [name for name, kind in KINDS.items() if kind.is_large]


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with Segmenter.from_bundle() as opened:
        yield opened


@pytest.mark.parametrize("name", SMALL)
def test_an_odd_scan_gives_an_empty_or_a_warned_mask(
    name: str, segmenter: Segmenter, tmp_path: Path
) -> None:
    found = run_odd(segmenter, name, tmp_path)
    assert found["as_expected"], found
    assert found["total_ms"] < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_scan_ends_in_time_and_memory(
    name: str, segmenter: Segmenter, tmp_path: Path
) -> None:
    found = run_odd(segmenter, name, tmp_path)
    assert found["volumes_ml"]["kidney"] > 50
    assert found["total_ms"] < 120_000
    assert found["peak_rss_mb"] < 6000


@pytest.mark.parametrize("number", [0, 3, 10, 16, 22])
def test_an_abdomen_without_kidneys_gives_an_empty_or_a_warned_mask(
    number: int, segmenter: Segmenter
) -> None:
    """In 10, 16 and 22 the first packaged bundle found something, in 21 others of 24 nothing."""
    patient = draw_patient(919, number, phase=PHASES[number % 4])
    shape, spacing_mm = (56, 160, 160), (5.0, 2.6, 2.6)
    hu, _ = render(replace(patient, kidneys=()), shape=shape, spacing_mm=spacing_mm)
    scan = volume_from_array(hu, kits_affine(spacing_mm))
    result = segmenter.segment(scan)
    facts = {
        name: class_statistics(scan, result.model_labels, value, reach=result.reach)
        for value, name in ((1, "kidney"), (2, "tumour"))
    }
    raised = quality_warnings(scan, result.model_labels, reach=result.reach, statistics=facts)
    assert raised or not result.model_labels.any()


def test_metal_is_in_the_scan_with_metal() -> None:
    assert metal().hu.max() > 2500


@pytest.mark.slow
def test_the_oblique_scan_is_turned_and_of_its_size() -> None:
    made = oblique()
    assert made.hu.shape == (252, 512, 796)
    steps = np.linalg.norm(made.affine[:3, :3], axis=0)
    assert steps == pytest.approx((0.9, 0.7, 0.5))
    assert np.abs(made.affine[:3, :3] / steps).max(axis=0).min() == pytest.approx(
        np.cos(np.radians(20))
    )
