import gzip
import os
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nifti_files import (
    header_like,
    on_source_axes,
    voxels,
    write_nifti,
)

from kits_runtime import nifti
from kits_runtime.errors import OutOfMemoryError, ScanError
from kits_runtime.nifti import Scan, read_scan
from kits_runtime.volume import volume_from_array

every_ending = pytest.mark.parametrize("ending", [".nii", ".nii.gz"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"none\.nii: found 'No such file or directory'; expected"):
        read_scan(tmp_path / "none.nii")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="found a folder; expected a NIfTI file"):
        read_scan(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii")

    with pytest.raises(ScanError, match="found no regular file"):
        read_scan(tmp_path / "scan.nii")


def test_a_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nifti(tmp_path / "scan.nii", header_like(), voxels())

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # root may read everything
    with pytest.raises(ScanError, match="found 'Permission denied'; expected a readable NIfTI"):
        read_scan(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (gzip.compress(b"", mtime=0), "an empty file"),
        (b"\x5c", r"a file starting b'\\\\'"),
        (b"DICM" * 200, "a file starting b'DICM'"),
        (gzip.compress(b"a text" * 100, mtime=0), "a file starting b'a te'"),
        (struct.pack("<i", 348) + b"\0" * 96, "100 bytes of a header"),
        (struct.pack("<i", 348) + b"\0" * 500, "the NIfTI magic b''; expected b'n\\+1'"),
        (struct.pack(">i", 540) + b"\0" * 600, "the NIfTI magic b''; expected b'n\\+2'"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)

    with pytest.raises(ScanError, match=f"found {found}"):
        read_scan(path)


def test_a_pair_of_files_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii", header_like(magic=b"ni1"), voxels())

    with pytest.raises(ScanError, match=r"a \.hdr with an \.img beside it"):
        read_scan(path)


@pytest.mark.parametrize("missing", [1, 50, 119, 120, 124, 200])
def test_a_truncated_file_is_refused(tmp_path: Path, missing: int) -> None:
    path = write_nifti(tmp_path / "scan.nii", header_like(), voxels())
    path.write_bytes(path.read_bytes()[:-missing])

    with pytest.raises(ScanError, match=f"found {472 - missing} bytes"):
        read_scan(path)


def test_a_gzip_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", header_like(), voxels())
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ScanError, match="found"):
            read_scan(path)


def test_a_whole_gzip_file_of_too_few_voxels_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", header_like(), voxels().tobytes("F")[:-2])

    with pytest.raises(ScanError, match="found 118 bytes of voxels; expected 120"):
        read_scan(path)


@pytest.mark.parametrize("at", [-1, -5, -20])
def test_damaged_gzip_data_are_refused(tmp_path: Path, at: int) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", header_like(), voxels())
    block = bytearray(path.read_bytes())
    block[at] ^= 0x55
    path.write_bytes(block)

    with pytest.raises(ScanError, match="found damaged gzip data"):
        read_scan(path)


def test_garbage_behind_the_gzip_stream_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "scan.nii.gz", header_like(), voxels())
    path.write_bytes(path.read_bytes() + b"garbage")

    with pytest.raises(ScanError, match="found damaged gzip data"):
        read_scan(path)


@every_ending
@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]},
        {"dim": [3, 5, 4, 30000, 1, 1, 1, 1]},
        {"vox_offset": 1e15},
    ],
    ids=str,
)
def test_a_header_beyond_its_file_is_refused_before_memory_is_taken(
    tmp_path: Path, fields: dict[str, Any], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nifti(tmp_path / f"scan{ending}", header_like(**fields), voxels())
    monkeypatch.setattr(nifti, "_read_stored", lambda *_: pytest.fail("memory was taken"))

    with pytest.raises(ScanError, match=r"bytes at most; expected [0-9]+ for .* voxels of int16"):
        read_scan(path)


def test_a_scan_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "scan.nii", header_like(), voxels())

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", exhausted)
    with pytest.raises(OutOfMemoryError, match="found voxels of 120 bytes; expected a scan that"):
        read_scan(path)


def test_the_limit_of_compression_allows_an_empty_scan(tmp_path: Path) -> None:
    shape = (128, 128, 64)
    path = write_nifti(tmp_path / "scan.nii.gz", header_like(shape), np.zeros(shape))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9))
    assert 2 * np.prod(shape) > 900 * path.stat().st_size

    assert not read_scan(path).volume.data.any()


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"dim": [2, 5, 12, 1, 1, 1, 1, 1]}, "2 axes of 5 x 12 voxels"),
        ({"dim": [4, 5, 4, 3, 2, 1, 1, 1]}, "4 axes of 5 x 4 x 3 x 2 voxels"),
        ({"dim": [5, 5, 4, 3, 1, 3, 1, 1]}, "5 axes of 5 x 4 x 3 x 1 x 3 voxels"),
        ({"dim": [3, 5, 4, 0, 1, 1, 1, 1]}, "3 axes of 5 x 4 x 0 voxels"),
        ({"dim": [3, 5, -4, 3, 1, 1, 1, 1]}, "3 axes of 5 x -4 x 3 voxels"),
        ({"dim": [0, 5, 4, 3, 1, 1, 1, 1]}, "0 axes"),
        ({"dim": [-1, 5, 4, 3, 1, 1, 1, 1]}, "-1 axes"),
        ({"dim": [8, 5, 4, 3, 1, 1, 1, 1]}, "8 axes"),
        ({"dim": [3, 60, 1, 1, 1, 1, 1, 1]}, "an array of 60 x 1 x 1 voxels"),
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, r"a voxel size of \[0.0, 1.0, 1.0\]"),
        ({"pixdim": [1, 1, np.nan, 1, 1, 1, 1, 1]}, r"a voxel size of \[1.0, nan, 1.0\]"),
        ({"pixdim": [1, 1, 1, np.inf, 1, 1, 1, 1]}, r"a voxel size of \[1.0, 1.0, inf\]"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "the affine"),
        ({"srow_z": [0, 0, 0, 0]}, "a voxel spacing of"),
        ({"srow_y": [0.7, 0.7, 0, 0]}, "axes .* degrees off a right angle"),
        ({"sform_code": 0, "quatern_b": 1, "quatern_c": 1}, "an impossible header .*w2"),
        ({"scl_slope": 2, "scl_inter": np.nan}, "an impossible header .*intercept nan"),
        ({"datatype": 77}, "an impossible header .*data code 77"),
        ({"datatype": 0}, "an impossible header .*data code 0"),
        ({"datatype": 32}, "voxels of type complex64"),
        ({"datatype": 128}, "voxels of type RGB"),
        ({"datatype": 2304}, "voxels of type RGBA"),
        ({"vox_offset": 100}, "an impossible header .*vox offset 100 too low"),
        ({"vox_offset": np.nan}, "an impossible header"),
        ({"vox_offset": np.inf}, "an impossible header"),
    ],
    ids=str,
)
def test_a_header_that_is_no_ct_volume_is_refused(
    tmp_path: Path, fields: dict[str, Any], found: str
) -> None:
    data = voxels().tobytes("F") * 10
    path = write_nifti(tmp_path / "scan.nii", header_like(**fields), data)

    with pytest.raises(ScanError, match=f"^{path}: found {found}.*; expected .*; ") as caught:
        read_scan(path)
    assert "\n" not in str(caught.value)


def test_a_voxel_that_is_no_number_is_refused(tmp_path: Path) -> None:
    data = voxels(np.float32)
    data[1, 1, 1] = np.nan
    path = write_nifti(tmp_path / "scan.nii", header_like(dtype="<f4"), data)

    with pytest.raises(ScanError, match="found 1 voxels that are NaN"):
        read_scan(path)


def scan_or_reason(path: Path) -> Scan | str:
    try:
        return read_scan(path)
    except ScanError as error:
        return str(error)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    version=st.sampled_from([1, 2]),
    changes=st.lists(
        st.tuples(st.integers(0, 539), st.sampled_from([0, 1, 2, 64, 127, 128, 255])), max_size=4
    ),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_header_with_any_bytes_is_read_or_refused(
    tmp_path: Path, version: int, changes: list[tuple[int, int]], ending: str
) -> None:
    path = write_nifti(tmp_path / "a.nii", header_like(version=version), voxels())
    block = bytearray(path.read_bytes())
    for at, value in changes:
        block[at % (348 if version == 1 else 540)] = value
    path = tmp_path / f"scan{ending}"
    path.write_bytes(gzip.compress(block, 1, mtime=0) if ending == ".nii.gz" else block)

    outcome = scan_or_reason(path)

    if isinstance(outcome, str):
        assert outcome.startswith(f"{path}: found ")
    else:
        image: Any = nib.load(path)
        unit_mm = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
        image.affine[:3] *= unit_mm
        np.testing.assert_allclose(
            outcome.volume.affine, volume_from_array(on_source_axes(outcome), image.affine).affine
        )


def test_a_gzip_file_with_any_flipped_byte_is_read_right_or_refused(tmp_path: Path) -> None:
    whole = write_nifti(tmp_path / "whole.nii.gz", header_like(), voxels()).read_bytes()
    path = tmp_path / "scan.nii.gz"
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        outcome = scan_or_reason(path)
        refused += isinstance(outcome, str)
        if isinstance(outcome, Scan):
            np.testing.assert_array_equal(on_source_axes(outcome), voxels())
    # Only the time, the system and the hint about the level do not matter (6 of the first 10).
    assert refused == len(whole) - 6
