"""kits-phantom: files in the KiTS layout, real anatomies kept exactly, errors of one line."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kits_trt.phantom import cases as cases_module
from kits_trt.phantom import draw_patient, patient_from_labels, render
from kits_trt.phantom.cases import case_number, kits_affine
from kits_trt.phantom.cli import main
from kits_trt.phantom.grids import draw_grid, draw_kidney_grid, draw_training_grid
from kits_trt.phantom.kidneys import UNUSUAL, USUAL, Variety
from kits_trt.phantom.marker import read_marked
from kits_trt.phantom.model import Kidney, Lesion
from kits_trt.phantom.shapes import Ellipsoid

SMALL = ["--size", "24,36,40", "--spacing", "10,9,9", "-q"]
REAL_SPACING = (5.0, 4.0, 4.0)


def load(folder: Path, name: str) -> tuple[np.ndarray, nib.Nifti1Image]:
    image = nib.load(folder / f"{name}.nii.gz")
    return np.asarray(image.dataobj), image


def real_like_labels() -> np.ndarray:
    """Two balls for kidneys and a tumour on one: anatomy that no draw would give."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (40, 56, 72)), indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    labels[(z - 18) ** 2 * 1.5 + (y - 34) ** 2 + (x - 18) ** 2 < 70] = 1
    labels[(z - 22) ** 2 * 1.5 + (y - 35) ** 2 + (x - 54) ** 2 < 75] = 1
    labels[(z - 22) ** 2 + (y - 33) ** 2 + (x - 62) ** 2 < 20] = 2
    return labels


def write_labels(folder: Path, labels: np.ndarray, affine: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(labels, affine), folder / "segmentation.nii.gz")
    return folder


def test_cases_have_the_layout_of_kits(tmp_path: Path) -> None:
    assert main([str(tmp_path / "set"), "--cases", "2", "--seed", "3", *SMALL]) == 0
    folders = sorted(path.name for path in (tmp_path / "set").iterdir())
    assert folders == ["case_00000", "case_00001", "phantom.json"]
    for name, dtype in (("imaging", np.int16), ("segmentation", np.uint8)):
        data, image = load(tmp_path / "set" / "case_00001", name)
        assert data.dtype == dtype
        assert data.shape == (24, 36, 40)
        assert nib.aff2axcodes(image.affine) == ("I", "P", "L")
        expected = [[0, 0, -9, 0], [0, -9, 0, 0], [-10, 0, 0, 0], [0, 0, 0, 1]]
        np.testing.assert_array_equal(image.affine, expected)
    assert set(np.unique(load(tmp_path / "set" / "case_00001", "segmentation")[0])) <= {0, 1, 2}


def test_left_kidney_has_the_larger_x_index_and_lies_at_the_patients_left(tmp_path: Path) -> None:
    assert main([str(tmp_path), "--seed", "3", *SMALL]) == 0
    patient = draw_patient(3, 0)
    labels, image = load(tmp_path / "case_00000", "segmentation")
    grid = draw_grid(patient, size=(24, 36, 40), spacing_mm=(10, 9, 9))
    left = next(kidney for kidney in patient.kidneys if kidney.side == "left")
    index = (np.array(left.centre) - grid.centre_mm) / grid.spacing_mm
    index += (np.array(grid.shape) - 1) / 2
    assert index[2] > 20
    assert labels[:, :, 20:].any()
    right_mm = (image.affine @ [*index, 1])[0]
    middle_mm = (image.affine @ [12, 18, 19.5, 1])[0]
    assert right_mm < middle_mm  # world x runs towards the right


def test_a_case_is_the_same_alone_and_among_others(tmp_path: Path) -> None:
    assert main([str(tmp_path / "one"), "--cases", "2", *SMALL]) == 0
    assert main([str(tmp_path / "two"), "--cases", "2", *SMALL]) == 0
    for name in ("imaging", "segmentation"):
        paths = [tmp_path / run / "case_00001" / f"{name}.nii.gz" for run in ("one", "two")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    data, _ = load(tmp_path / "one" / "case_00001", "imaging")
    patient = draw_patient(0, 1)
    grid = draw_grid(patient, size=(24, 36, 40), spacing_mm=(10.0, 9.0, 9.0))
    hu, _ = render(patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm)
    np.testing.assert_array_equal(data, hu)


def test_drawn_grids_are_those_of_kits() -> None:
    for case in range(60):
        grid = draw_grid(draw_patient(1, case))
        assert 29 <= grid.shape[0] <= 300
        assert grid.shape[1:] == (512, 512)
        assert 0.5 <= grid.spacing_mm[0] <= 5.0
        assert 0.44 <= grid.spacing_mm[1] == grid.spacing_mm[2] <= 1.04


def test_size_alone_spreads_over_a_body_and_spacing_alone_keeps_512() -> None:
    patient = draw_patient(1, 7)
    spread = draw_grid(patient, size=(32, 64, 64))
    assert 150 < spread.shape[0] * spread.spacing_mm[0] < 500
    assert 200 < spread.shape[2] * spread.spacing_mm[2] < 620
    kept = draw_grid(patient, spacing_mm=(5.0, 0.8, 0.8))
    assert kept.shape[1:] == (512, 512)
    assert 34 <= kept.shape[0] <= 96


def test_rendering_a_real_map_on_its_grid_returns_the_map() -> None:
    labels = real_like_labels()
    patient = patient_from_labels(labels, REAL_SPACING, seed=1, case=2)
    hu, found = render(patient, shape=(40, 56, 72), spacing_mm=REAL_SPACING)
    np.testing.assert_array_equal(found, labels)
    assert {kidney.side for kidney in patient.kidneys} == {"left", "right"}
    # The kidneys show: inside them no fat, beside them no kidney.
    assert float(np.median(hu[labels == 1])) > 10
    assert abs(float(np.median(hu[labels == 2]))) < 260


@pytest.mark.parametrize("order", ["IPL", "RAS", "LSA", "PIR"])
def test_anatomy_keeps_grid_affine_and_labels_in_any_orientation(
    order: str, tmp_path: Path
) -> None:
    source = nib.Nifti1Image(real_like_labels(), kits_affine(REAL_SPACING))
    now = nib.io_orientation(source.affine)
    turned = source.as_reoriented(
        nib.orientations.ornt_transform(now, nib.orientations.axcodes2ornt(order))
    )
    labels = np.asarray(turned.dataobj)
    write_labels(tmp_path / "in" / "case_00042", labels, turned.affine)
    write_labels(tmp_path / "plain" / "case_00042", real_like_labels(), source.affine)
    for folder in ("in", "plain"):
        run = [str(tmp_path / f"out_{folder}"), "--anatomy", str(tmp_path / folder), "-q"]
        assert main(run) == 0
    folder = tmp_path / "out_in" / "case_00042"
    found, image = load(folder, "segmentation")
    hu, scan = load(folder, "imaging")
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(image.affine, turned.affine, atol=1e-5)
    np.testing.assert_allclose(scan.affine, turned.affine, atol=1e-5)
    assert hu.shape == labels.shape
    # The same scan in world space as from the plain map.
    plain = nib.load(tmp_path / "out_plain" / "case_00042" / "imaging.nii.gz")
    back = nib.as_closest_canonical(nib.Nifti1Image(hu, scan.affine))
    np.testing.assert_array_equal(
        np.asarray(back.dataobj), np.asarray(nib.as_closest_canonical(plain).dataobj)
    )


def test_anatomy_to_learn_from_is_thinned_in_plane(tmp_path: Path) -> None:
    source = nib.Nifti1Image(real_like_labels(), kits_affine(REAL_SPACING))
    turned = nib.as_closest_canonical(source)
    write_labels(tmp_path / "in" / "case_00042", np.asarray(turned.dataobj), turned.affine)

    out = tmp_path / "out"
    assert main([str(out), "--anatomy", str(tmp_path / "in"), "-q", "--for-training", "40"]) == 0

    found, image = load(out / "case_00042", "segmentation")
    hu, scan = load(out / "case_00042", "imaging")
    z, y, x = REAL_SPACING
    np.testing.assert_array_equal(found, real_like_labels()[:, ::2, ::2])  # of 40 x 56 x 72
    assert hu.shape == found.shape == (40, 28, 36)
    for written in (image, scan):
        np.testing.assert_allclose(written.affine, kits_affine((z, 2 * y, 2 * x)), atol=1e-6)


def test_anatomy_to_learn_from_is_drawn_around_its_kidneys(tmp_path: Path) -> None:
    write_labels(tmp_path / "in" / "case_00042", real_like_labels(), kits_affine(REAL_SPACING))

    out = tmp_path / "out"
    run = [str(out), "--anatomy", str(tmp_path / "in"), "-q", "--for-training", "kidneys"]
    assert main(run) == 0

    found, image = load(out / "case_00042", "segmentation")
    steps = np.abs(image.affine[[2, 1, 0], [0, 1, 2]])
    volumes = [np.count_nonzero(found == value) * steps.prod() for value in (1, 2)]
    expected = [np.count_nonzero(real_like_labels() == value) * 80 for value in (1, 2)]
    np.testing.assert_allclose(volumes, expected, rtol=0.1)
    assert found.shape[2] * steps[2] < 72 * 4.0  # the map is wider
    hu, scan = load(out / "case_00042", "imaging")
    assert hu.shape == found.shape
    np.testing.assert_array_equal(scan.affine, image.affine)


def test_a_grid_of_kidneys_holds_all_of_them_and_little_else() -> None:
    pixels_mm = []
    for case in range(16):
        patient = draw_patient(5, case, variety=UNUSUAL)
        grid = draw_kidney_grid(patient)
        pixels_mm.append(grid.spacing_mm[1])
        assert grid.spacing_mm[1] == grid.spacing_mm[2]
        assert np.prod(grid.shape) < 3.2e6
        _, labels = render(
            patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
        )
        for axis, step_mm in enumerate(grid.spacing_mm):
            seen = np.flatnonzero(labels.any(axis=tuple({0, 1, 2} - {axis})))
            before_mm, after_mm = seen[0] * step_mm, (labels.shape[axis] - seen[-1]) * step_mm
            assert 6 < before_mm < 36 + step_mm
            assert 6 < after_mm < 36 + step_mm
    assert min(pixels_mm) < 0.9
    assert 1.4 < max(pixels_mm) < 2.5


def test_cases_of_kidneys_to_learn_from_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    run = ["--for-training", "kidneys", "--varied", "--seed", "5", "-q"]
    assert main([str(tmp_path), "--cases", "1", *run]) == 0
    patient = draw_patient(5, 0, variety=UNUSUAL)
    grid = draw_kidney_grid(patient)
    hu, labels = render(
        patient, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
    )
    np.testing.assert_array_equal(load(tmp_path / "case_00000", "imaging")[0], hu)
    np.testing.assert_array_equal(load(tmp_path / "case_00000", "segmentation")[0], labels)


def test_every_other_varied_case_of_kidneys_is_drawn_around_its_own_labels(tmp_path: Path) -> None:
    run = ["--for-training", "kidneys", "--varied", "--seed", "5", "-q"]
    assert main([str(tmp_path), "--cases", "2", *run]) == 0
    case = tmp_path / "case_00001"
    drawn = draw_patient(5, 1, variety=UNUSUAL)
    grid = draw_kidney_grid(drawn)
    _, labels = render(
        drawn, shape=grid.shape, spacing_mm=grid.spacing_mm, centre_mm=grid.centre_mm
    )
    around = patient_from_labels(labels, grid.spacing_mm, seed=5, case=1)
    hu, _ = render(around, shape=grid.shape, spacing_mm=grid.spacing_mm)

    np.testing.assert_array_equal(load(case, "segmentation")[0], labels)
    np.testing.assert_array_equal(load(case, "imaging")[0], hu)
    assert not any(origin.anatomy for origin in read_marked(tmp_path).values())


def test_labels_of_a_phantom_that_is_drawn_around_again_are_no_real_anatomy(
    tmp_path: Path,
) -> None:
    drawn, around = tmp_path / "drawn", tmp_path / "around"
    run = ["--seed", "3", *SMALL]
    assert main([str(drawn), "--cases", "2", *run]) == 0
    write_labels(drawn / "case_00002", real_like_labels(), kits_affine(REAL_SPACING))

    assert main([str(around), "--anatomy", str(drawn), "--seed", "4", "-q"]) == 0

    origins = read_marked(around)
    assert {name: origin.anatomy for name, origin in origins.items()} == {
        "case_00000": False,
        "case_00001": False,
        "case_00002": True,  # not listed as drawn
    }
    before, after = (load(folder / "case_00000", "segmentation")[0] for folder in (drawn, around))
    np.testing.assert_array_equal(before, after)


def test_anatomy_takes_the_first_cases_asked_for(tmp_path: Path) -> None:
    for name in ("case_00001", "case_00007"):
        write_labels(tmp_path / "in" / name, real_like_labels(), kits_affine(REAL_SPACING))
    run = [str(tmp_path / "out"), "--anatomy", str(tmp_path / "in"), "-q", "--cases", "1"]
    assert main(run) == 0
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["case_00001", "phantom.json"]
    assert main([*run[:-1], "3", "--overwrite"]) == 2


def test_case_number_is_the_number_in_the_name() -> None:
    assert case_number("case_00160") == 160
    assert case_number("patient") == case_number("patient") != case_number("other")


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith("kits-phantom: ")
    return text


def test_missing_anatomy_folder_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    assert main([str(tmp_path / "out"), "--anatomy", str(missing)]) == 3
    assert f"{missing}: found no such folder" in one_line(capsys)


def test_anatomy_folder_without_segmentations_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), "--anatomy", str(tmp_path)]) == 3
    assert "found no */segmentation.nii.gz" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.full((4, 4, 4), 7, np.uint8), "found values 7"),
        (np.zeros((4, 4, 4), np.uint8), "found no labelled voxel"),
        (np.ones((4, 4, 4, 2), np.uint8), "found 4 axes"),
        (np.full((4, 4, 4), 0.5, np.float32), "found values 0.5"),
    ],
)
def test_what_is_no_label_map_is_bad_input(
    labels: np.ndarray, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(tmp_path / "in" / "case_00000", labels, np.eye(4))
    assert main([str(tmp_path / "out"), "--anatomy", str(tmp_path / "in")]) == 3
    assert found in one_line(capsys)


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b\x08\x00broken"])
def test_a_file_that_is_no_nifti_is_bad_input(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in" / "case_00000"
    folder.mkdir(parents=True)
    (folder / "segmentation.nii.gz").write_bytes(content)
    assert main([str(tmp_path / "out"), "--anatomy", str(tmp_path / "in")]) == 3
    assert "segmentation.nii.gz: found no readable NIfTI" in one_line(capsys)


def test_a_cut_file_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_labels(tmp_path / "in" / "case_00000", real_like_labels(), np.eye(4))
    path = folder / "segmentation.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    assert main([str(tmp_path / "out"), "--anatomy", str(tmp_path / "in")]) == 3
    assert "segmentation.nii.gz: found" in one_line(capsys)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--size", "3,4"], "found '3,4'"),
        (["--size", "0,4,4"], "found '0,4,4'"),
        (["--size", "a,b,c"], "found 'a,b,c'"),
        (["--spacing", "1,nan,1"], "found '1,nan,1'"),
        (["--spacing", "1,1"], "found '1,1'"),
        (["--spacing", "-1,1,1"], "--spacing"),
        (["--cases", "0"], "found '0'"),
        (["--seed", "x"], "found 'x'"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_misuse_is_one_line_and_exit_2(
    arguments: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main([str(tmp_path / "out"), *arguments])
    assert ending.value.code == 2
    assert found in one_line(capsys)


@pytest.mark.parametrize("other", ["--anatomy=.", "--for-training=32", "--for-training=kidneys"])
def test_options_that_exclude_each_other_are_one_line_and_exit_2(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), other, "--size", "8,8,8"]) == 2
    assert "found --size" in one_line(capsys)


@pytest.mark.parametrize("others", [[], ["--for-training=32", "--anatomy=."]])
def test_varied_is_for_procedural_cases_to_learn_from(
    others: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), "--varied", *others]) == 2
    assert "kits-phantom: --varied: found" in one_line(capsys)


def test_varied_kidneys_have_fat_in_them_less_often_and_their_scans_reach_further() -> None:
    def share_with_fat(variety: Variety) -> float:
        patients = [draw_patient(5, case, variety=variety) for case in range(60)]
        kidneys = [kidney for patient in patients for kidney in patient.kidneys]
        return sum(bool(kidney.sinus) for kidney in kidneys) / len(kidneys)

    assert share_with_fat(USUAL) == pytest.approx(0.8, abs=0.12)
    assert share_with_fat(UNUSUAL) == pytest.approx(0.5, abs=0.12)

    def longest_mm(*, far: bool) -> float:
        grids = [draw_training_grid(draw_patient(5, case), 64, far=far) for case in range(40)]
        return max(grid.shape[0] * grid.spacing_mm[0] for grid in grids)

    assert longest_mm(far=False) < 435 < 500 < longest_mm(far=True) < 565


def test_varied_tumours_are_more_and_lie_behind_the_kidney_too() -> None:
    def tumours(variety: Variety) -> list[tuple[Kidney, Lesion]]:
        patients = [draw_patient(5, case, variety=variety) for case in range(60)]
        return [
            (kidney, lesion)
            for patient in patients
            for kidney in patient.kidneys
            for lesion in kidney.lesions
            if lesion.kind == "tumour"
        ]

    def share_far_behind(found: list[tuple[Kidney, Lesion]]) -> float:
        behind = [
            lesion.shape.centre[1] - kidney.centre[1] > 20
            for kidney, lesion in found
            if isinstance(lesion.shape, Ellipsoid)
        ]
        return sum(behind) / len(behind)

    usual, unusual = tumours(USUAL), tumours(UNUSUAL)
    assert len(usual) < 0.9 * len(unusual)
    assert share_far_behind(usual) < 0.1 < 0.15 < share_far_behind(unusual)


def test_debug_shows_where_an_error_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--debug", "--anatomy", str(tmp_path / "missing")]) == 3
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1].startswith("kits-phantom: ")


def test_existing_case_is_kept_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), *SMALL]) == 0
    before = (tmp_path / "case_00000" / "imaging.nii.gz").read_bytes()
    assert main([str(tmp_path), "--seed", "9", *SMALL]) == 2
    assert "found case_00000 already" in one_line(capsys)
    assert (tmp_path / "case_00000" / "imaging.nii.gz").read_bytes() == before
    assert main([str(tmp_path), "--seed", "9", "--overwrite", *SMALL]) == 0
    assert (tmp_path / "case_00000" / "imaging.nii.gz").read_bytes() != before


def test_output_that_cannot_be_made_is_one_line_and_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main([str(tmp_path / "file" / "out"), *SMALL]) == 1
    assert "file" in one_line(capsys)


def test_interrupt_leaves_finished_cases_and_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_packed = cases_module._write_packed

    def interrupted(path: Path, scan: nib.Nifti1Image) -> None:
        write_packed(path, scan)
        if "case_00001" in str(path) and path.name.startswith("segmentation"):
            raise KeyboardInterrupt

    monkeypatch.setattr(cases_module, "_write_packed", interrupted)
    assert main([str(tmp_path), "--cases", "3", *SMALL]) == 130
    assert "interrupted" in one_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case_00000", "phantom.json"]


def test_progress_goes_to_stderr_and_quiet_says_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "a"), *SMALL[:-1]]) == 0
    spoken = capsys.readouterr()
    assert spoken.out == ""
    assert "1/1 case_00000: 24x36x40 voxels" in spoken.err
    assert main([str(tmp_path / "b"), *SMALL]) == 0
    assert capsys.readouterr().err == ""


def test_version_is_the_distributions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kits_runtime.cli.telling.version", lambda: "1.2.3")
    with pytest.raises(SystemExit) as ending:
        main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == "kits-phantom 1.2.3\n"
