"""Each warning comes where it was planted, alone, and not beside its threshold."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stages import volume

from kits_runtime import qc
from kits_runtime.grid import Box, box_of
from kits_runtime.qc import quality_warnings
from kits_runtime.statistics import class_statistics
from kits_runtime.volume import volume_from_array

SHAPE, SPACING_MM = (40, 90, 110), (5.0, 4.0, 4.0)
MUSCLE, FAT, KIDNEY, TUMOUR = 55, -100, 150, 90
RIGHT, LEFT = (20, 50, 35), (20, 50, 74)


def ellipsoid(centre: tuple[int, ...], radii: tuple[float, ...]) -> np.ndarray:
    grid = np.ogrid[tuple(slice(n) for n in SHAPE)]
    parts = ((a - c) / r for a, c, r in zip(grid, centre, radii, strict=True))
    return np.asarray(sum(part**2 for part in parts) <= 1)


def patient(
    kidneys: tuple[tuple[int, int, int], ...] = (RIGHT, LEFT), *, kidney_hu: float = KIDNEY
) -> tuple[np.ndarray, np.ndarray]:
    """An abdomen: muscle in fat in air, and kidneys of 195 ml; a tumour of 8 ml in the first."""
    labels = np.zeros(SHAPE, np.uint8)
    for centre in kidneys:
        labels[ellipsoid(centre, (10, 8, 7))] = 1
    if kidneys:
        labels[ellipsoid(kidneys[0], (2, 3.5, 3.5))] = 2
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    away = np.hypot((y - 45) / 33, (x - 55) / 44)
    data = np.where(away < 0.8, MUSCLE, np.where(away < 1, FAT, -1000)) + np.zeros(SHAPE)
    data[labels == 1], data[labels == 2] = kidney_hu, TUMOUR
    data += np.random.default_rng(1).normal(0, 10, SHAPE)
    return np.rint(data).astype(np.int16), labels


def codes(data: np.ndarray, labels: np.ndarray, *, reach: Box | None = None) -> list[str]:
    scan = volume(data, SPACING_MM)
    names = ((1, "kidney"), (2, "tumour"))
    facts = {name: class_statistics(scan, labels, value) for value, name in names}
    found = quality_warnings(scan, labels, reach=reach or box_of(SHAPE), statistics=facts)
    return [text.partition(":")[0] for text in found]


def test_an_ordinary_patient_raises_none() -> None:
    assert codes(*patient()) == []


@pytest.mark.parametrize("sigma", [20, 35])
def test_noise_raises_none(sigma: float) -> None:
    data, labels = patient()
    shaken = data + np.random.default_rng(2).normal(0, sigma, SHAPE)
    assert codes(shaken.astype(np.int16), labels) == []


@pytest.mark.parametrize(
    ("planted", "code"),
    [
        pytest.param(lambda data: np.full_like(data, 3), "not-ct", id="constant"),
        pytest.param(lambda data: data + 1024, "not-ct", id="offset left out"),
        pytest.param(lambda data: np.abs(data) + 5, "not-ct", id="no sign"),
        pytest.param(lambda data: data * 8, "not-ct", id="another unit"),
        pytest.param(lambda data: np.full_like(data, -1000) + data % 7, "not-ct", id="air alone"),
        pytest.param(lambda data: np.where(data > -500, data % 21 - 10, data), "water", id="water"),
    ],
)
def test_values_that_are_no_patients_are_named(planted: Any, code: str) -> None:
    data, labels = patient()
    assert codes(planted(data).astype(np.int16), np.zeros_like(labels)) == [code]


def test_a_thin_body_in_air_is_named_and_a_narrow_field_of_view_is_not() -> None:
    data, labels = patient()
    limb = np.where(ellipsoid((20, 45, 55), (1e6, 18, 20)), data, -1000).astype(np.int16)
    assert codes(limb, np.zeros_like(labels)) == ["small-section"]
    narrow = data[:, 50:76, 40:70]
    scan = volume(narrow, SPACING_MM)
    empty = np.zeros(narrow.shape, np.uint8)
    facts = {"kidney": class_statistics(scan, empty, 1)}
    assert quality_warnings(scan, empty, reach=box_of(scan.shape), statistics=facts) == ()


@pytest.mark.parametrize(("share", "expected"), [(0.5, ["lung-level"]), (0.15, [])])
def test_kidneys_beside_lungs_are_named(share: float, expected: list[str]) -> None:
    data, labels = patient()
    body = (data > -500) & (labels == 0)
    lung = body & (np.random.default_rng(3).random(SHAPE) < share)
    assert codes(np.where(lung, -800, data).astype(np.int16), labels) == expected


@pytest.mark.parametrize(
    ("kidney_hu", "expected"), [(40, ["unenhanced"]), (57, ["unenhanced"]), (63, [])]
)
def test_kidneys_without_contrast_are_named(kidney_hu: float, expected: list[str]) -> None:
    data, labels = patient(kidney_hu=kidney_hu)
    labels[labels == 2] = 0
    assert codes(data, labels) == expected


def test_bright_cortex_taken_for_tumour_is_contrast_agent_too() -> None:
    data, labels = patient(kidney_hu=40)
    assert data[labels == 2].mean() > 60
    assert codes(data, labels) == []


@pytest.mark.parametrize(
    ("axis", "end", "name"),
    [
        (0, 0, "upper"),
        (0, -1, "lower"),
        (1, 0, "front"),
        (1, -1, "back"),
        (2, 0, "right"),
        (2, -1, "left"),
    ],
)
def test_the_edge_that_cuts_a_kidney_is_named_as_in_the_patient(
    axis: int, end: int, name: str
) -> None:
    data, labels = patient()
    where = [20, 50, 50]
    where[axis] = end
    labels[tuple(where)] = 1
    scan = volume(data, SPACING_MM)
    facts = {"kidney": class_statistics(scan, labels, 1)}
    (text,) = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics=facts)
    assert text.startswith(f"cut-off: the mask reaches the scan's {name} edge, expected")


def test_a_reach_short_of_the_edges_is_believed() -> None:
    data, labels = patient()
    assert codes(data, labels, reach=Box((9, 41, 27), (31, 59, 82))) == []


@pytest.mark.parametrize(("kidney", "side"), [(RIGHT, "left"), (LEFT, "right")])
def test_a_missing_kidney_is_named_with_the_patients_side(
    kidney: tuple[int, int, int], side: str
) -> None:
    data, labels = patient((kidney,))
    scan = volume(data, SPACING_MM)
    facts = {"kidney": class_statistics(scan, labels, 1)}
    (text,) = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics=facts)
    assert text.startswith("one-kidney")
    assert f"patient's {side}, expected two" in text


def test_a_side_that_is_all_tumour_is_not_missing() -> None:
    data, labels = patient()
    labels[:, :, :55][labels[:, :, :55] == 1] = 2
    assert codes(data, labels) == ["kidney-size"]


@pytest.mark.parametrize(
    ("ml", "expected"), [(29, ["kidney-size"]), (31, []), (599, []), (601, ["kidney-size"])]
)
def test_a_kidney_of_an_unlikely_size_is_named(ml: float, expected: list[str]) -> None:
    data, labels = patient()
    scan = volume(data, SPACING_MM)
    labels[labels == 2] = 1
    facts = replace(class_statistics(scan, labels, 1), right_ml=ml, left_ml=200, volume_ml=ml + 200)
    found = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics={"kidney": facts})
    assert [text.partition(":")[0] for text in found] == expected


@pytest.mark.parametrize(("ml", "expected"), [(1900, []), (2100, ["tumour-size"])])
def test_a_tumour_of_an_unlikely_size_is_named(ml: float, expected: list[str]) -> None:
    data, labels = patient()
    scan = volume(data, SPACING_MM)
    facts = {
        "kidney": class_statistics(scan, labels, 1),
        "tumour": replace(class_statistics(scan, labels, 2), volume_ml=ml),
    }
    found = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics=facts)
    assert [text.partition(":")[0] for text in found] == expected


def test_a_tumour_without_a_kidney_is_named() -> None:
    data, labels = patient()
    labels[labels == 1] = 0
    assert "no-kidney" in codes(data, labels)


def test_warnings_do_not_depend_on_how_the_scan_is_stored() -> None:
    data, labels = patient((LEFT,), kidney_hu=40)
    labels[labels == 2] = 1
    expected = codes(data, labels)
    assert expected == ["unenhanced", "one-kidney"]
    assert codes(np.asfortranarray(data), np.asfortranarray(labels)) == expected


def test_every_warning_is_one_line_with_what_was_found_expected_and_to_do() -> None:
    data, labels = patient((LEFT,), kidney_hu=40)
    labels[labels == 2] = 1
    labels[0, 50, 74] = 1
    scan = volume(data, SPACING_MM)
    facts = {name: class_statistics(scan, labels, v) for v, name in ((1, "kidney"), (2, "tumour"))}
    found = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics=facts)
    assert len(found) == 3
    for text in (*found, qc.NOTHING_FOUND):
        code, sentence = text.split(": ", 1)
        assert code == code.lower()
        assert " " not in code
        assert "\n" not in text
        assert ", expected " in sentence
        assert sentence.endswith(".")
        assert ". " in sentence


def test_a_full_size_scan_is_looked_at_in_a_few_milliseconds() -> None:
    data = np.zeros((108, 512, 512), np.int16, order="F")
    labels = np.zeros(data.shape, np.uint8, order="F")
    labels[40:60, 250:300, 150:200] = 1
    data[::2] = -1000
    scan = volume_from_array(data, np.diag([-5.0, -0.8, -0.8, 1.0])[[2, 1, 0, 3]])
    facts = {"kidney": class_statistics(scan, labels, 1)}
    spent = []
    for _ in range(5):  # other load can only add
        start = time.perf_counter()
        quality_warnings(scan, labels, reach=Box((39, 249, 149), (61, 301, 201)), statistics=facts)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.02
