import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from nibabel.orientations import apply_orientation, inv_ornt_aff
from nifti_files import (
    AFFINE,
    ARRANGEMENTS,
    SHAPE,
    header_like,
    on_source_axes,
    voxels,
    write_nifti,
)

from kits_runtime import nifti
from kits_runtime.errors import KitsError
from kits_runtime.nifti import Scan, read_scan, write_labels
from kits_runtime.volume import empty_labels, labels_in_source_order

every_ending = pytest.mark.parametrize("ending", [".nii", ".nii.gz"])


def labels_for(scan: Scan) -> npt.NDArray[np.uint8]:
    labels = empty_labels(scan.volume)
    labels[...] = np.arange(labels.size).reshape(labels.shape) % 4
    return labels


def content(path: Path) -> bytes:
    block = path.read_bytes()
    return gzip.decompress(block) if path.suffix == ".gz" else block


@every_ending
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
def test_labels_are_written_with_the_geometry_of_the_scan(
    tmp_path: Path, order: str, version: int, ending: str
) -> None:
    header = header_like(
        dtype=order + "i2", version=version, qform_code=2, sform_code=4, xyzt_units=10,
        scl_slope=3, scl_inter=7,
    )  # fmt: skip
    source = write_nifti(tmp_path / "scan.nii", header, voxels())
    scan = read_scan(source)
    labels = labels_for(scan)

    write_labels(tmp_path / f"labels{ending}", labels, like=scan)

    image: Any = nib.load(source)
    written: Any = nib.load(tmp_path / f"labels{ending}")
    assert type(written) is type(image)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.get_fdata(), labels_in_source_order(scan.volume, labels))
    np.testing.assert_array_equal(written.affine, image.affine)
    for name in ("dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y",
                 "srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):  # fmt: skip
        np.testing.assert_array_equal(written.header[name], image.header[name])
    assert written.dataobj.slope == 1
    assert written.dataobj.inter == 0
    assert len(written.header.extensions) == 0


@pytest.mark.parametrize("ornt", ARRANGEMENTS, ids=lambda ornt: str(ornt.T.tolist()))
def test_labels_return_to_the_arrangement_of_the_file(
    tmp_path: Path, ornt: npt.NDArray[Any]
) -> None:
    data = apply_orientation(voxels(), ornt)
    header = header_like(data.shape, affine=AFFINE @ inv_ornt_aff(ornt, SHAPE))
    scan = read_scan(write_nifti(tmp_path / "scan.nii.gz", header, data))

    write_labels(tmp_path / "labels.nii.gz", (scan.volume.data % 5).astype(np.uint8), like=scan)

    written: Any = nib.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), data % 5)
    np.testing.assert_array_equal(written.affine, header.get_best_affine())


@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 0), (2, 4)])
@pytest.mark.parametrize("order", "<>")
def test_simpleitk_sees_labels_and_scan_on_one_grid(  # it reads no NIfTI-2
    tmp_path: Path, order: str, codes: tuple[int, int]
) -> None:
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    header = header_like(dtype=order + "i2", affine=tilt @ AFFINE)
    header["qform_code"], header["sform_code"] = codes
    scan = read_scan(write_nifti(tmp_path / "scan.nii.gz", header, voxels()))
    labels = labels_for(scan)

    write_labels(tmp_path / "labels.nii.gz", labels, like=scan)

    image = SimpleITK.ReadImage(tmp_path / "scan.nii.gz")
    written = SimpleITK.ReadImage(tmp_path / "labels.nii.gz")
    assert written.GetSize() == image.GetSize()
    assert written.GetSpacing() == image.GetSpacing()
    assert written.GetOrigin() == image.GetOrigin()
    assert written.GetDirection() == image.GetDirection()
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(written).T, labels_in_source_order(scan.volume, labels)
    )
    if codes != (0, 0):  # without codes nibabel and SimpleITK guess differently
        for index in ((0, 0, 0), (4, 1, 2)):
            left_posterior_superior = written.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose(
                left_posterior_superior,
                ([-1, -1, 1, 1] * (tilt @ AFFINE @ [*index, 1]))[:3],
                atol=1e-4,
            )


@every_ending
@pytest.mark.parametrize("sizes", [(5, 4, 3, 1), (5, 4, 3, 1, 1)])
def test_trailing_axes_of_one_voxel_come_back(
    tmp_path: Path, sizes: tuple[int, ...], ending: str
) -> None:
    path = write_nifti(tmp_path / f"scan{ending}", header_like(sizes), voxels())
    scan = read_scan(path)
    labels = labels_for(scan)

    write_labels(tmp_path / f"labels{ending}", labels, like=scan)

    np.testing.assert_array_equal(on_source_axes(scan), voxels())
    written: Any = nib.load(tmp_path / f"labels{ending}")
    assert written.shape == sizes
    np.testing.assert_array_equal(
        written.get_fdata().reshape(SHAPE), labels_in_source_order(scan.volume, labels)
    )


@every_ending
@pytest.mark.parametrize("chunk", [1, 20, 45, 10**6])
@pytest.mark.parametrize("order", ["C", "F"])
def test_slabs_and_memory_order_do_not_show_in_the_file(
    tmp_path: Path, order: Any, chunk: int, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))
    labels = labels_for(scan)
    write_labels(tmp_path / f"expected{ending}", labels, like=scan)
    monkeypatch.setattr(nifti, "_CHUNK", chunk)

    write_labels(tmp_path / f"labels{ending}", np.array(labels, order=order), like=scan)

    assert content(tmp_path / f"labels{ending}") == content(tmp_path / f"expected{ending}")


def test_the_file_is_a_352_byte_header_and_one_byte_a_voxel(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    write_labels(tmp_path / "labels.nii", labels_for(scan), like=scan)

    assert (tmp_path / "labels.nii").stat().st_size == 352 + 60


def test_equal_labels_give_equal_files(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    write_labels(tmp_path / "first.nii.gz", labels_for(scan), like=scan)
    write_labels(tmp_path / "second.nii.gz", labels_for(scan), like=scan)

    first = (tmp_path / "first.nii.gz").read_bytes()
    assert first == (tmp_path / "second.nii.gz").read_bytes()
    assert first[4:8] == bytes(4)  # no time of writing


def test_a_written_file_can_be_read_as_a_scan(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(dtype=">f4"), voxels()))
    labels = labels_for(scan)

    write_labels(tmp_path / "labels.nii.gz", labels, like=scan)

    again = read_scan(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(again.volume.data, labels)
    np.testing.assert_array_equal(again.volume.affine, scan.volume.affine)


def test_writing_replaces_an_older_file(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))
    (tmp_path / "labels.nii.gz").write_text("older")

    write_labels(tmp_path / "labels.nii.gz", labels_for(scan), like=scan)

    np.testing.assert_array_equal(
        read_scan(tmp_path / "labels.nii.gz").volume.data, labels_for(scan)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.nii.gz", "scan.nii"]


@every_ending
@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("stop"), MemoryError()])
def test_an_interrupted_writing_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, stop: BaseException, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))
    (tmp_path / f"labels{ending}").write_text("older")

    def interrupted(header: bytes, _: npt.NDArray[np.uint8]) -> Iterator[memoryview]:
        yield memoryview(header)
        raise stop

    monkeypatch.setattr(nifti, "_slabs", interrupted)
    with pytest.raises(type(stop)):
        write_labels(tmp_path / f"labels{ending}", labels_for(scan), like=scan)

    assert (tmp_path / f"labels{ending}").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"labels{ending}", "scan.nii"]


def test_a_full_disk_is_an_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    def full(*_: object) -> Iterator[memoryview]:
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(nifti, "_slabs", full)
    with pytest.raises(KitsError, match=r"labels\.nii: found 'No space left on device' while"):
        write_labels(tmp_path / "labels.nii", labels_for(scan), like=scan)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]


def test_a_missing_folder_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    with pytest.raises(KitsError, match="found 'No such file or directory' while writing"):
        write_labels(tmp_path / "none" / "labels.nii", labels_for(scan), like=scan)


def test_new_files_have_the_permissions_of_the_process(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    write_labels(tmp_path / "labels.nii", labels_for(scan), like=scan)

    (tmp_path / "plain").touch()
    assert (tmp_path / "labels.nii").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["labels", "labels.gz", "labels.nii.bz2", "labels.mha"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    with pytest.raises(ValueError, match=r"expected \.nii or \.nii\.gz"):
        write_labels(tmp_path / name, labels_for(scan), like=scan)


def test_labels_of_another_grid_are_refused(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(), voxels()))

    with pytest.raises(ValueError, match="found uint8 on 5 x 4 x 3 voxels; expected uint8 on 3 x"):
        write_labels(tmp_path / "labels.nii", np.zeros(SHAPE, np.uint8), like=scan)
    assert not (tmp_path / "labels.nii").exists()


def test_writing_changes_neither_labels_nor_scan(tmp_path: Path) -> None:
    scan = read_scan(write_nifti(tmp_path / "scan.nii", header_like(dtype=">i2"), voxels()))
    labels, header = labels_for(scan), scan.header.binaryblock

    write_labels(tmp_path / "labels.nii.gz", labels, like=scan)

    np.testing.assert_array_equal(labels, labels_for(scan))
    assert scan.header.binaryblock == header
