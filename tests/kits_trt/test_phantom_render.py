"""Phantom patients: same anatomy on any grid, plausible sizes and CT numbers."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, label

from kits_trt.phantom import PHASES, Patient, Phase, draw_patient, render
from kits_trt.phantom.fields import Axes
from kits_trt.phantom.space import Space

COARSE = {"shape": (60, 72, 80), "spacing_mm": (5.0, 5.0, 5.0)}


def volume_ml(labels: np.ndarray, spacing: tuple[float, float, float], value: int = 0) -> float:
    count = (labels == value).sum() if value else (labels > 0).sum()
    return float(count * np.prod(spacing) / 1000)


def axes_of(patient: Patient, shape: tuple[int, int, int], spacing: float) -> Axes:
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * spacing + c).astype(np.float32)
        for n, c in zip(shape, patient.centre_mm, strict=True)
    )
    return z, y, x


def mean_inside(patient: Patient, hu: np.ndarray, name: str) -> float:
    """Mean over an organ's voxels that lie well inside its shapes, on the coarse grid."""
    block = Space.of(patient).block(axes_of(patient, COARSE["shape"], 5.0))
    inside = np.zeros(hu.shape, bool)
    for organ in patient.organs:
        if organ.name == name:
            inside |= organ.shape.signed_distance(block) < -9
    assert inside.sum() > 5
    return float(np.median(hu[inside]))


def test_same_seed_and_case_give_the_same_voxels() -> None:
    first, second = (render(draw_patient(5, 3), **COARSE) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert first[0].dtype == np.int16
    assert first[1].dtype == np.uint8


def test_case_is_independent_of_what_was_made_before() -> None:
    alone = render(draw_patient(5, 2), **COARSE)[0]
    for case in range(2):
        render(draw_patient(5, case), shape=(8, 8, 8), spacing_mm=(20, 20, 20))
    np.testing.assert_array_equal(render(draw_patient(5, 2), **COARSE)[0], alone)


def test_other_cases_and_seeds_are_other_patients() -> None:
    scans = [render(draw_patient(*key), **COARSE)[0] for key in ((5, 3), (5, 4), (6, 3))]
    assert not np.array_equal(scans[0], scans[1])
    assert not np.array_equal(scans[0], scans[2])


def test_labels_do_not_depend_on_the_slab_in_which_they_are_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = render(draw_patient(1, 1), **COARSE)[1]
    monkeypatch.setattr("kits_trt.phantom.rendering._SLAB_VOXELS", 3 * 72 * 80)
    np.testing.assert_array_equal(render(draw_patient(1, 1), **COARSE)[1], whole)


@pytest.mark.parametrize("case", range(3))
def test_same_patient_has_the_same_volumes_on_two_grids(case: int) -> None:
    patient = draw_patient(11, case)
    grids = (((90, 84, 100), (3.0, 3.4, 3.2)), ((56, 130, 150), (5.0, 2.2, 2.1)))
    volumes = []
    for shape, spacing in grids:
        labels = render(patient, shape=shape, spacing_mm=spacing)[1]
        volumes.append((volume_ml(labels, spacing), volume_ml(labels, spacing, 2)))
    # A voxel is 33 or 23 mm3: sampling errors stay well below these tolerances.
    assert volumes[0][0] == pytest.approx(volumes[1][0], rel=0.02)
    assert volumes[0][1] == pytest.approx(volumes[1][1], rel=0.03, abs=0.4)


def test_label_of_a_voxel_is_what_lies_at_its_centre() -> None:
    patient = draw_patient(2, 0)
    fine = render(patient, shape=(45, 60, 66), spacing_mm=(6.0, 4.0, 4.0))[1]
    coarse = render(patient, shape=(15, 20, 22), spacing_mm=(18.0, 12.0, 12.0))[1]
    # Three times as many voxels over the same box: every second of three shares its centre.
    np.testing.assert_array_equal(coarse, _middle_of_threes(fine))


def _middle_of_threes(labels: np.ndarray) -> np.ndarray:
    return labels[1::3, 1::3, 1::3]


def test_both_kidneys_are_separate_left_is_left_and_volumes_are_a_mans() -> None:
    seen = 0
    for case in range(12):
        patient = draw_patient(8, case)
        labels = render(patient, **COARSE)[1]
        pieces, count = label(labels > 0)
        sizes = np.bincount(pieces.ravel())[1:] * 0.125
        large = [place + 1 for place in range(count) if sizes[place] > 20]
        assert len(large) == len(patient.kidneys)
        columns = {piece: float(np.argwhere(pieces == piece)[:, 2].mean()) for piece in large}
        if len(large) == 2:
            seen += 1
            sides = {kidney.side: kidney.centre[2] for kidney in patient.kidneys}
            assert sides["left"] > 0 > sides["right"]
            assert min(columns.values()) < 40 < max(columns.values())
        healthy = (labels == 1).sum() * 0.125
        assert 60 < healthy < 800
    assert seen >= 8


def test_kidneys_of_many_patients_have_the_volumes_and_tumours_of_kits() -> None:
    grid = {"shape": (50, 44, 60), "spacing_mm": (6.0, 6.0, 6.0)}
    total, tumour = [], []
    for case in range(24):
        labels = render(draw_patient(77, case), **grid)[1]
        total.append((labels > 0).sum() * 0.216)
        tumour.append((labels == 2).sum() * 0.216)
    # Two kidneys of 110 to 260 ml; a tumour in most patients, of a millilitre to a litre.
    assert 260 < float(np.median(total)) < 560
    assert 0.5 <= float(np.mean(np.array(tumour) > 0)) <= 0.97
    assert max(tumour) < 1200


@pytest.mark.parametrize(
    ("phase", "cortex", "aorta", "liver"),
    [
        ("unenhanced", (15, 55), (20, 65), (-20, 90)),
        ("arterial", (90, 330), (130, 600), (0, 130)),
        ("nephrographic", (90, 330), (70, 320), (10, 190)),
        ("excretory", (80, 280), (55, 220), (0, 170)),
    ],
)
def test_tissues_have_the_ct_numbers_of_the_phase(
    phase: Phase, cortex: tuple[int, int], aorta: tuple[int, int], liver: tuple[int, int]
) -> None:
    for case in range(2):
        patient = draw_patient(31, case, phase=phase)
        hu, _ = render(patient, **COARSE)
        assert patient.phase == phase
        assert cortex[0] < patient.hu["cortex"] < cortex[1]
        assert aorta[0] < patient.hu["aorta"] < aorta[1]
        assert liver[0] < mean_inside(patient, hu, "liver") < liver[1]
        assert abs(mean_inside(patient, hu, "liver") - patient.hu["liver"]) < 12
        assert mean_inside(patient, hu, "erector") == pytest.approx(patient.hu["muscle"], abs=12)


def test_scan_has_air_fat_soft_tissue_and_bone_in_plausible_shares() -> None:
    hu, _ = render(draw_patient(31, 5), **COARSE)
    body = hu > -300
    assert hu[:, 0, 0].mean() < -900
    assert 0.15 < body.mean() < 0.8
    fat = (hu > -150) & (hu < -60)
    assert 0.1 < fat.sum() / body.sum() < 0.8
    assert 0.005 < (hu > 250).sum() / body.sum() < 0.15


def test_unenhanced_kidney_looks_like_muscle_and_enhanced_one_does_not() -> None:
    means = {}
    for phase in PHASES:
        hu, labels = render(draw_patient(31, 1, phase=phase), **COARSE)
        inside = binary_erosion(labels == 1)
        means[phase] = float(np.median(hu[inside]))
    assert 5 < means["unenhanced"] < 70
    assert means["nephrographic"] > means["unenhanced"] + 40
    assert means["arterial"] > means["unenhanced"] + 15


def test_phase_changes_no_label() -> None:
    maps = [render(draw_patient(4, 4, phase=phase), **COARSE)[1] for phase in PHASES]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0], other)


def test_thick_slice_is_the_mean_over_its_thickness() -> None:
    """At the dome, thin slices jump from lung to liver; a thick one lies between."""
    patient = draw_patient(12, 0)
    middle = (-110.0, patient.centre_mm[1], -60.0)
    thin, _ = render(patient, shape=(80, 3, 3), spacing_mm=(1.0, 2.0, 2.0), centre_mm=middle)
    thick, _ = render(patient, shape=(16, 3, 3), spacing_mm=(5.0, 2.0, 2.0), centre_mm=middle)
    steps = thin[:, 1, 1].astype(float).reshape(16, 5).mean(axis=1)
    assert np.ptp(steps) > 500
    assert np.abs(steps - thick[:, 1, 1]).max() < 160


def test_noise_falls_with_thickness() -> None:
    patient = draw_patient(12, 1)
    spreads = []
    for thickness in (1.0, 5.0):
        hu, _ = render(
            patient,
            shape=(12, 40, 40),
            spacing_mm=(thickness, 0.8, 0.8),
            centre_mm=(patient.centre_mm[0], -900.0, 0.0),
        )
        spreads.append(float(hu[:, 10:30, 10:30].astype(float).std()))
    assert spreads[0] > 1.2 * spreads[1] > 0


def test_shape_and_spacing_must_be_positive() -> None:
    patient = draw_patient(0, 0)
    with pytest.raises(ValueError, match=r"found \(0, 4, 4\)"):
        render(patient, shape=(0, 4, 4), spacing_mm=(1, 1, 1))
    with pytest.raises(ValueError, match=r"found \(1, -1, 1\)"):
        render(patient, shape=(4, 4, 4), spacing_mm=(1, -1, 1))


def test_phantom_runs_without_torch() -> None:
    root = Path(__file__).parents[2]
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.path[:0] = [{str(root)!r}, {str(root / 'runtime')!r}]\n"
        "import kits_trt.phantom.cli"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_patient_survives_the_way_to_another_process() -> None:
    patient = draw_patient(5, 3)
    there = pickle.loads(pickle.dumps(patient))
    np.testing.assert_array_equal(render(there, **COARSE)[0], render(patient, **COARSE)[0])
