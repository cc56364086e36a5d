"""Each setting changes what it says, and nothing else."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kits_bench.frozen_test.configuration import Configuration, FrozenCase, labels_sha256
from kits_bench.robustness import Setting, settings, write_setting
from kits_trt.phantom.cases import kits_affine

SPACING_MM = (2.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    z, y, x = np.ogrid[:48, :80, :80]
    made = np.zeros((48, 80, 80), np.uint8)
    for middle in (24, 56):
        made[((z - 24) / 18) ** 2 + ((y - 48) / 8) ** 2 + ((x - middle) / 7) ** 2 <= 1] = 1
    made[((z - 24) / 6) ** 2 + ((y - 47) / 5) ** 2 + ((x - 57) / 5) ** 2 <= 1] = 2
    return made


def written(labels: np.ndarray, folder: Path, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    """The scan and labels that a setting leaves."""
    path = folder / "map.nii.gz"
    nib.save(nib.Nifti1Image(labels, kits_affine(SPACING_MM)), path)
    case = FrozenCase(
        case="case_00003",
        labels_sha256=labels_sha256(labels),
        spacing_mm=SPACING_MM,
        subset="dev",
        phase="excretory",
        every_slice=1,
        every_pixel=1,
    )
    configuration = Configuration(version=1, seed=5, renderer={}, cases=(case,))
    plain = {"sweep": "s", "value": 1, "slice_mm": 2.0, "every_pixel": 1, **changes}
    where = write_setting(
        case,
        Setting(**plain),  # type: ignore[arg-type]
        configuration,
        maps={case.case: path},
        folder=folder,
    )
    scans = [nib.load(where / f"{name}.nii.gz") for name in ("imaging", "segmentation")]
    return np.asarray(scans[0].dataobj), np.asarray(scans[1].dataobj)


def test_thicker_slices_and_larger_pixels_leave_voxels_out(
    labels: np.ndarray, tmp_path: Path
) -> None:
    _, given = written(labels, tmp_path, slice_mm=6.0, every_pixel=2)
    np.testing.assert_array_equal(given, labels[::3, ::2, ::2])


def test_noise_alone_grows_as_it_says(labels: np.ndarray, tmp_path: Path) -> None:
    scans = [written(labels, tmp_path, noise_hu=hu)[0].astype(float) for hu in (4.0, 8.0, 12.0)]
    body = scans[0] > -500
    apart = [(later - scans[0])[body].std() for later in scans[1:]]
    # The same random numbers, so a difference is proportional to the difference in strength.
    assert apart[1] / apart[0] == pytest.approx(2, rel=0.05)


def test_the_phase_is_the_settings_not_the_cases(labels: np.ndarray, tmp_path: Path) -> None:
    means = {
        phase: written(labels, tmp_path, phase=phase)[0][labels == 1].mean()
        for phase in ("unenhanced", "nephrographic")
    }
    assert means["unenhanced"] < 60 < means["nephrographic"]


def test_every_sweep_has_the_plain_setting_or_says_otherwise() -> None:
    by_sweep: dict[str, list[Setting]] = {}
    for setting in settings():
        by_sweep.setdefault(setting.sweep, []).append(setting)
    assert {name: len(rows) for name, rows in by_sweep.items()} == {
        "noise, HU": 5,
        "slice thickness, mm": 4,
        "pixels a side": 3,
        "phase": 4,
    }
    assert [row.noise_hu for row in by_sweep["noise, HU"]] == [
        row.value for row in by_sweep["noise, HU"]
    ]
