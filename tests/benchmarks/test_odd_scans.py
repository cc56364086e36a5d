"""Scans that are no ordinary abdominal CT end in time, with an empty mask or a warning."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kits_bench.odd_scans import KINDS, metal, oblique, run_odd
from kits_runtime.segmenter import Segmenter

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
