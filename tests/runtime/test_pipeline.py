import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from bundles import phantom, write_one_stage, write_scan

from kits_runtime import EngineOptions, KitsError, ScanError, Segmenter, UsageError
from kits_runtime import pipeline as pipeline_module
from kits_runtime.cases import Case
from kits_runtime.pipeline import (
    CaseRecord,
    Job,
    is_up_to_date,
    job_for,
    read_case,
    segment_case,
    write_case,
)

NAMES = ("background", "kidney", "tumour")


@pytest.fixture(scope="module")
def segmenter(one_stage: Path) -> Iterator[Segmenter]:
    options = EngineOptions(threads=1)
    with Segmenter.from_bundle(one_stage, backend="ort-cpu", options=options) as opened:
        yield opened


def job_in(folder: Path, scan: Path | None = None, *, picture: bool = False) -> Job:
    scan = scan or write_scan(folder / "in" / "case.nii.gz")
    (folder / "out").mkdir(exist_ok=True)
    return job_for(Case(name="case", scan=scan), folder / "out", with_picture=picture)


def done(segmenter: Segmenter, job: Job) -> CaseRecord:
    return write_case(segment_case(segmenter, read_case(job)), NAMES)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "out").iterdir()}


@pytest.mark.parametrize("axcodes", ["IPL", "LPS", "RAS", "PSR", "SAL"])
def test_masks_fit_their_scans_for_independent_readers(
    segmenter: Segmenter, tmp_path: Path, axcodes: str
) -> None:
    scan = write_scan(tmp_path / "in" / "case.nii.gz", axcodes=axcodes)
    done(segmenter, job_in(tmp_path, scan))
    given, mask = nib.load(scan), nib.load(tmp_path / "out" / "case.nii.gz")
    assert mask.shape == given.shape
    np.testing.assert_array_equal(mask.affine, given.affine)
    assert mask.header["qform_code"] == given.header["qform_code"]
    assert mask.header["sform_code"] == given.header["sform_code"]
    assert mask.get_data_dtype() == np.uint8
    true = nib.Nifti1Image(phantom().labels, phantom().affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(true.affine), nib.orientations.axcodes2ornt(axcodes)
    )
    np.testing.assert_array_equal(
        np.asarray(mask.dataobj), np.asarray(true.as_reoriented(turn).dataobj)
    )
    by_itk, scan_by_itk = (
        SimpleITK.ReadImage(str(path)) for path in (tmp_path / "out" / "case.nii.gz", scan)
    )
    assert by_itk.GetSize() == scan_by_itk.GetSize()
    assert by_itk.GetOrigin() == pytest.approx(scan_by_itk.GetOrigin())
    assert by_itk.GetDirection() == pytest.approx(scan_by_itk.GetDirection())
    assert SimpleITK.GetArrayFromImage(by_itk).sum() == phantom().labels.sum()


def test_the_record_beside_the_mask_tells_all_of_it(segmenter: Segmenter, tmp_path: Path) -> None:
    job = job_in(tmp_path, picture=True)
    returned = done(segmenter, job)
    told = json.loads(job.record.read_text())
    assert told == json.loads(json.dumps(returned.to_plain()))
    assert told["case"] == "case"
    assert told["scan"] == str(job.case.scan)
    assert (told["scan_sha256"], told["mask_sha256"]) == (sha256(job.case.scan), sha256(job.mask))
    assert told["bundle"]["sha256"] == segmenter.bundle.sha256
    assert told["scan_shape"] == list(phantom().labels.shape)
    # Its body is water, and 20 cm wide.
    assert [text.partition(":")[0] for text in told["warnings"]] == ["water", "small-section"]
    assert left_in(tmp_path) == {"case.nii.gz", "case.json", "case.png"}


def test_the_record_measures_what_the_phantom_holds(segmenter: Segmenter, tmp_path: Path) -> None:
    facts = done(segmenter, job_in(tmp_path)).statistics
    made = phantom()
    for value, name in ((1, "kidney"), (2, "tumour")):
        mask = made.labels == value
        assert facts[name].volume_ml == pytest.approx(mask.sum() * 0.08)
        assert facts[name].right_ml == pytest.approx(mask[:, :, :24].sum() * 0.08)
        assert facts[name].mean_hu == pytest.approx(made.data[mask].mean())
    # A ball of 3 voxels around a voxel: 6 steps of 5 mm along z, the longest of its axes.
    assert facts["tumour"].largest_diameter_mm == pytest.approx(30, rel=0.002)
    assert facts["tumour"].right_ml == 0


def test_the_phases_are_all_there_and_sum_up(segmenter: Segmenter, tmp_path: Path) -> None:
    run = done(segmenter, job_in(tmp_path, picture=True)).run
    assert {"read", "all.net", "overlay", "write", "statistics", "preview"} <= set(run.stage_ms)
    assert all(ms >= 0 for ms in run.stage_ms.values())
    assert run.total_ms == pytest.approx(sum(run.stage_ms.values()))


def test_equal_runs_leave_equal_masks(segmenter: Segmenter, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    assert done(segmenter, job).mask_sha256 == done(segmenter, job).mask_sha256


def test_what_is_odd_about_the_scan_is_in_the_record(segmenter: Segmenter, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "case.nii")
    content = bytearray(scan.read_bytes())
    content[252:256] = bytes(4)  # qform_code and sform_code
    scan.write_bytes(content)
    warnings = done(segmenter, job_in(tmp_path, scan)).run.warnings
    assert any("neither sform nor qform" in warning for warning in warnings)


def test_a_mask_that_would_replace_its_scan_is_refused(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "out" / "case.nii.gz")
    with pytest.raises(UsageError, match="would replace the scan"):
        job_in(tmp_path, scan)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(UsageError, match="would replace the scan"):
        job_for(Case(name="case", scan=scan), tmp_path / "link", with_picture=False)


def test_a_scan_that_is_gone_is_a_scan_error(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.case.scan.unlink()
    with pytest.raises(ScanError, match="No such file"):
        read_case(job)


@pytest.mark.parametrize("part", ["write_labels", "write_png", "_whole_run"])
@pytest.mark.parametrize("again", [False, True])
def test_a_case_that_cannot_be_written_leaves_no_result(
    segmenter: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    again: bool,
) -> None:
    job = job_in(tmp_path, picture=True)
    if again:
        done(segmenter, job)

    def fail(*_args: Any, **_more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline_module, part, fail)
    with pytest.raises((KitsError, OSError), match="No space left on device"):
        done(segmenter, job)
    assert left_in(tmp_path) == set()


def test_no_picture_stays_beside_a_mask_that_it_does_not_show(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    job = job_in(tmp_path, picture=True)
    done(segmenter, job)
    done(segmenter, job_in(tmp_path, job.case.scan))
    assert left_in(tmp_path) == {"case.nii.gz", "case.json"}


def test_a_picture_that_is_not_ours_stays(segmenter: Segmenter, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.record.with_suffix(".png").write_bytes(b"someone else's")
    done(segmenter, job)
    assert left_in(tmp_path) == {"case.nii.gz", "case.json", "case.png"}


class TestUpToDate:
    @pytest.fixture
    def job(self, segmenter: Segmenter, tmp_path: Path) -> Job:
        made = job_in(tmp_path)
        done(segmenter, made)
        return made

    def test_it_is_right_after_the_run(self, segmenter: Segmenter, job: Job) -> None:
        assert is_up_to_date(job, segmenter)

    def test_another_name_of_the_same_scan_changes_nothing(
        self, segmenter: Segmenter, job: Job, tmp_path: Path
    ) -> None:
        copy = tmp_path / "copy.nii.gz"
        copy.write_bytes(job.case.scan.read_bytes())
        case = Case(name="case", scan=copy)
        assert is_up_to_date(job_for(case, job.mask.parent, with_picture=False), segmenter)

    def test_another_scan_is_segmented_again(self, segmenter: Segmenter, job: Job) -> None:
        write_scan(job.case.scan, phantom(seed=1))
        assert not is_up_to_date(job, segmenter)

    def test_a_scan_that_is_gone_is_no_result(self, segmenter: Segmenter, job: Job) -> None:
        job.case.scan.unlink()
        assert not is_up_to_date(job, segmenter)

    def test_another_bundle_segments_again(self, job: Job, tmp_path: Path) -> None:
        other = write_one_stage(tmp_path / "other.kits", kernel=1)
        with Segmenter.from_bundle(other, backend="ort-cpu") as segmenter:
            assert not is_up_to_date(job, segmenter)

    def test_another_backend_segments_again(self, job: Job, one_stage: Path) -> None:
        pytest.importorskip("openvino")
        with Segmenter.from_bundle(one_stage, backend="openvino") as segmenter:
            assert not is_up_to_date(job, segmenter)

    @pytest.mark.parametrize("content", [b"", b"short", None])
    def test_a_mask_that_changed_is_made_again(
        self, segmenter: Segmenter, job: Job, content: bytes | None
    ) -> None:
        if content is None:
            job.mask.unlink()
        else:
            job.mask.write_bytes(content)
        assert not is_up_to_date(job, segmenter)

    def test_a_picture_that_is_asked_for_and_not_there_is_made(
        self, segmenter: Segmenter, job: Job
    ) -> None:
        with_picture = job_in(job.mask.parents[1], job.case.scan, picture=True)
        assert not is_up_to_date(with_picture, segmenter)
        done(segmenter, with_picture)
        assert is_up_to_date(with_picture, segmenter)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (("backend", "precision"), "bf16"),
            (("backend", "name"), "openvino"),
            (("versions", "kits-trt"), "0.0.1"),
            (("bundle",), "a name alone"),
            (("bundle", "sha256"), "0" * 64),
            (("scan_sha256",), None),
            (("mask_sha256",), 5),
        ],
    )
    def test_a_record_that_tells_of_anything_else_is_not_trusted(
        self, segmenter: Segmenter, job: Job, field: tuple[str, ...], value: object
    ) -> None:
        told = json.loads(job.record.read_text())
        inner = told
        for name in field[:-1]:
            inner = inner[name]
        inner[field[-1]] = value
        job.record.write_text(json.dumps(told))
        assert not is_up_to_date(job, segmenter)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'"text"', b"\xff", b"[" * 100_000])
    def test_a_record_that_is_none_is_not_trusted(
        self, segmenter: Segmenter, job: Job, content: bytes
    ) -> None:
        job.record.write_bytes(content)
        assert not is_up_to_date(job, segmenter)
