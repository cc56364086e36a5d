"""What is frozen stays so; a small test of the same kind runs, stops and goes on."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from kits_bench.frozen_test import __main__ as command
from kits_bench.frozen_test.configuration import (
    Configuration,
    FrozenCase,
    configuration_from,
    labels_sha256,
    read_configuration,
    rendered_anew,
    text_of,
)
from kits_bench.frozen_test.freeze import freeze
from kits_bench.frozen_test.probe import check_renderer
from kits_bench.frozen_test.rendering import rendered_case, thinned_labels
from kits_runtime.errors import KitsError, ScanError, UsageError
from kits_trt.evaluation.pairs import label_files
from kits_trt.phantom.cases import kits_affine

FROZEN_1 = "b00f22ce629ef84a7564b1eeafeddff1339d7cac6a14e64b7651858da41448e6"
SPACING_MM = (6.0, 4.0, 4.0)


def test_version_1_is_what_was_frozen() -> None:
    assert read_configuration(1).sha256 == FROZEN_1


def test_the_renderer_is_the_one_that_was_frozen() -> None:
    check_renderer(read_configuration().renderer)


def test_another_renderer_is_refused() -> None:
    renderer = {name: list(means) for name, means in read_configuration().renderer.items()}
    renderer["excretory"][20] += 9
    with pytest.raises(KitsError, match="excretory probe: found a block 9 HU away, expected at"):
        check_renderer(renderer)


def test_subsets_and_phases_are_divided_as_declared() -> None:
    configuration = read_configuration(1)
    assert len(configuration.of("test")) == 140
    # 0.22, 0.33, 0.30 and 0.15 of 20, each running sum rounded to a whole number.
    assert Counter(case.phase for case in configuration.of("dev")) == {
        "unenhanced": 4,
        "arterial": 7,
        "nephrographic": 6,
        "excretory": 3,
    }
    assert sum(case.every_pixel == 1 for case in configuration.cases) == 40


def test_an_unknown_version_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="found 99, expected a committed version"):
        read_configuration(99)


def test_a_configuration_survives_its_text() -> None:
    configuration = read_configuration(1)
    assert configuration_from(json.loads(text_of(configuration))).sha256 == configuration.sha256


def test_any_change_changes_the_hash() -> None:
    configuration = read_configuration(1)
    first, *others = configuration.cases
    moved = replace(configuration, cases=(replace(first, subset="dev"), *others))
    assert moved.sha256 != configuration.sha256
    assert replace(configuration, seed=1).sha256 != configuration.sha256


def test_a_label_maps_hash_is_of_its_voxels_and_shape_not_of_its_memory() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    assert labels_sha256(np.asfortranarray(labels)) == labels_sha256(labels)
    assert labels_sha256(labels.reshape(4, 6, 5)) != labels_sha256(labels)
    assert labels_sha256(labels[::-1]) != labels_sha256(labels)


@pytest.fixture(scope="module")
def anatomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight label maps in the challenge's layout: two kidneys, a tumour that moves."""
    folder = tmp_path_factory.mktemp("anatomy")
    z, y, x = np.ogrid[:30, :88, :88]
    for case in range(8):
        labels = np.zeros((30, 88, 88), np.uint8)
        for middle in (26, 62):
            labels[((z - 15) / 9) ** 2 + ((y - 52) / 8) ** 2 + ((x - middle) / 7) ** 2 <= 1] = 1
        labels[((z - 12 - case / 2) / 3) ** 2 + ((y - 50) / 5) ** 2 + ((x - 64) / 5) ** 2 <= 1] = 2
        path = folder / f"case_{case:05d}" / "segmentation.nii.gz"
        path.parent.mkdir()
        nib.save(nib.Nifti1Image(labels, kits_affine(SPACING_MM)), path)
    return folder


@pytest.fixture(scope="module")
def frozen(anatomy: Path) -> Configuration:
    return freeze(anatomy, 7)


def test_freezing_hashes_every_map_and_gives_one_in_eight_to_dev(frozen: Configuration) -> None:
    assert [case.number for case in frozen.cases] == list(range(8))
    assert len({case.labels_sha256 for case in frozen.cases}) == 8
    assert [case.case for case in frozen.of("dev")] == ["case_00004"]
    assert sum(case.every_pixel == 1 for case in frozen.cases) == 2
    assert frozen.cases[0].spacing_mm == pytest.approx(SPACING_MM)


def test_thinning_keeps_every_so_many_voxels(frozen: Configuration, anatomy: Path) -> None:
    case = replace(frozen.cases[3], every_slice=3, every_pixel=2)
    path = anatomy / case.case / "segmentation.nii.gz"
    expected = np.asarray(nib.load(path).dataobj)[::3, ::2, ::2]
    np.testing.assert_array_equal(thinned_labels(case, label_files(anatomy)), expected)
    assert case.rendered_mm == pytest.approx((18, 8, 8))


def test_another_map_is_refused_and_so_is_a_missing_one(
    frozen: Configuration, anatomy: Path
) -> None:
    maps = label_files(anatomy)
    case = frozen.cases[0]
    with pytest.raises(ScanError, match=f"found labels with SHA-256 .* {case.labels_sha256[:16]}"):
        thinned_labels(case, {case.case: maps["case_00001"]})
    with pytest.raises(ScanError, match=r"voxels of .* mm; expected \(1.0, 4.0, 4.0\)"):
        thinned_labels(replace(case, spacing_mm=(1.0, 4.0, 4.0)), maps)
    with pytest.raises(ScanError, match="found no label map of it"):
        thinned_labels(case, {})


def test_a_scan_is_rendered_once_for_a_configuration(
    frozen: Configuration, anatomy: Path, tmp_path: Path
) -> None:
    maps = label_files(anatomy)
    case = replace(frozen.cases[0], every_pixel=2)

    def rendered(configuration: Configuration) -> tuple[float, np.ndarray]:
        folder = rendered_case(case, configuration, maps=maps, cache=tmp_path)
        scan = nib.load(folder / "imaging.nii.gz")
        return (folder / "imaging.nii.gz").stat().st_mtime_ns, np.asarray(scan.dataobj)

    first, again = rendered(frozen), rendered(frozen)
    assert first[0] == again[0]
    other = rendered(replace(frozen, seed=3))
    assert other[0] != first[0]
    assert (other[1] != first[1]).any()
    given = nib.load(tmp_path / case.case / "segmentation.nii.gz")
    np.testing.assert_array_equal(np.asarray(given.dataobj), thinned_labels(case, maps))


def test_a_run_stops_in_time_goes_on_and_leaves_a_record(
    frozen: Configuration,
    anatomy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cases = tuple(replace(case, subset="dev") for case in frozen.cases[:2])
    small = replace(frozen, cases=cases)
    monkeypatch.setattr(command, "read_configuration", lambda _version: small)
    out = tmp_path / "out"
    arguments = ["--anatomy", str(anatomy), "--subset", "dev", "-o", str(out)]
    assert command.main([*arguments, "--minutes", "0"]) == 0
    assert "0 of 2 cases done; call again to go on" in capsys.readouterr().err
    assert not (out / "dev.json").exists()
    assert command.main(arguments) == 0
    record: dict[str, Any] = json.loads((out / "dev.json").read_text())
    assert record["configuration_sha256"] == small.sha256
    dice = [case["dice_kidney"] for case in record["cases"]]
    assert record["all"]["dice_kidney"]["median"] == pytest.approx(np.median(dice), abs=1e-4)
    assert record["empty_results"] == sum(case["empty"] for case in record["cases"])
    written = [path.stat().st_mtime_ns for path in sorted((out / "masks").iterdir())]
    assert command.main(arguments) == 0
    assert [path.stat().st_mtime_ns for path in sorted((out / "masks").iterdir())] == written


def test_further_renderings_show_the_same_maps_in_every_phase(frozen: Configuration) -> None:
    several = [rendered_anew(frozen, number) for number in range(4)]
    assert several[0] == frozen
    for cases in zip(*(each.cases for each in several), strict=True):
        assert len({case.phase for case in cases}) == 4
        assert len({replace(case, phase="arterial") for case in cases}) == 1
    assert len({each.seed for each in several}) == 4


def test_dev_is_rendered_as_often_as_asked_and_test_once(
    frozen: Configuration,
    anatomy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = replace(frozen, cases=(replace(frozen.cases[0], subset="dev", every_pixel=2),))
    monkeypatch.setattr(command, "read_configuration", lambda _version: small)
    shared = ["--anatomy", str(anatomy), "-o", str(tmp_path), "--renderings", "2"]

    assert command.main([*shared, "--subset", "dev"]) == 0
    record: dict[str, Any] = json.loads((tmp_path / "dev-2-renderings.json").read_text())
    assert record["renderings"] == record["all"]["cases"] == 2
    assert len({case["phase"] for case in record["cases"]}) == 2
    assert (tmp_path / "rendering-1" / "scans" / "case_00000" / "imaging.nii.gz").is_file()

    capsys.readouterr()
    assert command.main([*shared, "--subset", "test"]) == 2
    assert "--renderings: found 2 of subset test, expected 1" in capsys.readouterr().err


def test_the_case_type_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="colour"):
        configuration_from({"version": 1, "seed": 1, "renderer": {}, "cases": [], "colour": 1})
    row = {**FROZEN_ROW, "subset": "train"}
    with pytest.raises(ValueError, match="found \\['case_00000'\\]"):
        configuration_from({"version": 1, "seed": 1, "renderer": {}, "cases": [row]})


FROZEN_ROW = {name: getattr(read_configuration(1).cases[0], name) for name in FrozenCase.__slots__}
