"""Warnings come where they were planted, and hardly elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kits_bench.ordinary import SEED, alarms_of, codes_in, expected_codes, halved, write_phantom
from kits_runtime.grid import box_of
from kits_runtime.qc import quality_warnings
from kits_runtime.statistics import class_statistics
from kits_runtime.volume import volume_from_array
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.model import Patient
from kits_trt.phantom.phases import PHASES
from kits_trt.phantom.rendering import render

SHAPE, SPACING_MM = (46, 84, 84), (7.0, 5.0, 5.0)
PATIENTS = 32


def codes_with_the_true_mask(patient: Patient, up_mm: float = 0.0) -> tuple[set[str], set[str]]:
    """What the true mask raises on a small rendering, and what was planted."""
    z_mm, y_mm, x_mm = patient.centre_mm
    hu, labels = render(
        patient, shape=SHAPE, spacing_mm=SPACING_MM, centre_mm=(z_mm - up_mm, y_mm, x_mm)
    )
    scan = volume_from_array(hu, kits_affine(SPACING_MM))
    facts = {n: class_statistics(scan, labels, v) for v, n in ((1, "kidney"), (2, "tumour"))}
    found = quality_warnings(scan, labels, reach=box_of(SHAPE), statistics=facts)
    return {text.partition(":")[0] for text in found}, expected_codes(patient, labels)


def test_true_masks_of_ordinary_phantoms_raise_what_was_planted_alone() -> None:
    false, missed, planted = [], [], 0
    for number in range(PATIENTS):
        raised, expected = codes_with_the_true_mask(draw_patient(SEED + 1, number))
        false += sorted(raised - expected)
        missed += sorted(expected - raised)
        planted += len(expected)
    assert false == []
    assert missed == []
    assert planted >= 8


@pytest.mark.parametrize("phase", PHASES)
def test_the_phase_alone_decides_about_contrast(phase: str) -> None:
    for number in range(3):
        patient = draw_patient(SEED + 2, number, phase=phase)  # type: ignore[arg-type]
        raised, _ = codes_with_the_true_mask(patient)
        assert ("unenhanced" in raised) == (phase == "unenhanced")


def test_a_kidney_that_is_taken_out_is_missed() -> None:
    patient = draw_patient(SEED, 0)
    assert len(patient.kidneys) == 2
    raised, expected = codes_with_the_true_mask(replace(patient, kidneys=patient.kidneys[:1]))
    assert "one-kidney" in raised & expected


def test_a_field_that_ends_in_the_kidneys_is_noticed() -> None:
    patient = draw_patient(SEED, 0)
    raised, expected = codes_with_the_true_mask(patient, up_mm=170)
    assert "cut-off" in raised & expected


def test_false_and_missed_alarms_are_counted_by_scan_and_code() -> None:
    raised = {"a": {"cut-off", "not-ct"}, "b": set[str](), "c": {"unenhanced"}}
    expected = {"a": {"cut-off"}, "b": {"one-kidney"}, "c": {"unenhanced"}}
    assert alarms_of(raised, expected) == {
        "scans": 3,
        "scans_with_a_false_alarm": 1,
        "false_by_code": {"not-ct": 1},
        "planted_by_code": {"cut-off": 1, "one-kidney": 1, "unenhanced": 1},
        "missed_by_code": {"one-kidney": 1},
    }


def test_a_phantom_is_written_with_half_the_pixels_it_was_drawn_with(tmp_path: Path) -> None:
    import nibabel as nib

    number = 3
    patient = draw_patient(SEED, number)
    write_phantom(patient, tmp_path / "case")
    scan, labels = (
        nib.load(tmp_path / "case" / f"{n}.nii.gz") for n in ("imaging", "segmentation")
    )
    assert scan.shape[1:] == (256, 256)
    assert scan.shape == labels.shape
    np.testing.assert_array_equal(scan.affine, labels.affine)
    expected, by_truth = codes_in(tmp_path / "case")
    assert expected == by_truth == expected_codes(patient, np.asarray(labels.dataobj))


def test_a_halved_picture_is_the_mean_of_two_pixels_by_two() -> None:
    picture = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    expected = np.rint(
        [[picture[i : i + 2, j : j + 2].mean((0, 1)) for j in (0, 2)] for i in (0, 2)]
    )
    np.testing.assert_array_equal(halved(picture), expected)
