import gzip
import itertools
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from nifti_files import (
    AFFINE,
    ARRANGEMENTS,
    SHAPE,
    expected_affine,
    header_like,
    on_source_axes,
    voxels,
    write_nifti,
)

from kits_runtime import nifti
from kits_runtime.nifti import read_scan
from kits_runtime.volume import volume_from_array

every_ending = pytest.mark.parametrize("ending", [".nii", ".nii.gz"])


@every_ending
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_and_byte_order_is_read_as_nibabel_does(
    tmp_path: Path, kind: str, order: str, version: int, ending: str
) -> None:
    header = header_like(dtype=order + kind, version=version)
    path = write_nifti(tmp_path / f"scan{ending}", header, voxels() + (0.5 if "f" in kind else 0))

    scan = read_scan(path)

    image: Any = nib.load(path)
    np.testing.assert_array_equal(on_source_axes(scan), image.get_fdata())
    np.testing.assert_allclose(scan.volume.affine, expected_affine(image.affine), atol=1e-12)
    assert scan.volume.data.dtype == (np.float32 if "f" in kind else np.int16)
    assert scan.volume.data.dtype.isnative
    assert scan.path == path
    assert scan.warnings == ()


@pytest.mark.parametrize("ornt", ARRANGEMENTS, ids=lambda ornt: str(ornt.T.tolist()))
def test_all_48_arrangements_of_one_scan_are_one_volume(
    tmp_path: Path, ornt: npt.NDArray[Any]
) -> None:
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    expected = volume_from_array(voxels(), tilt @ AFFINE)
    data = apply_orientation(voxels(), ornt)
    header = header_like(data.shape, affine=tilt @ AFFINE @ inv_ornt_aff(ornt, SHAPE))

    volume = read_scan(write_nifti(tmp_path / "scan.nii", header, data)).volume

    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("qform_code", [0, 1, 2])
@pytest.mark.parametrize("sform_code", [0, 1, 4])
def test_the_affine_is_the_one_nibabel_prefers(
    tmp_path: Path, sform_code: int, qform_code: int, order: str, version: int
) -> None:
    header = header_like(dtype=order + "i2", version=version)
    turned = AFFINE[[1, 0, 2, 3]] * [[-1], [1], [1], [1]]
    header.set_qform(turned, qform_code)
    header["sform_code"], header["qform_code"] = sform_code, qform_code
    path = write_nifti(tmp_path / "scan.nii", header, voxels())

    scan = read_scan(path)

    image: Any = nib.load(path)
    np.testing.assert_allclose(scan.volume.affine, expected_affine(image.affine), atol=1e-12)
    without_code = sform_code == 0 and qform_code == 0
    assert [("neither sform nor qform" in warning) for warning in scan.warnings] == (
        [True] if without_code else []
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"pixdim": [0, 0.8, 0.7, 2.5, 1, 1, 1, 1]},
        {"pixdim": [-1, 0.8, -0.7, 2.5, 1, 1, 1, 1]},
        {"sform_code": 77},
        {"sform_code": 77, "qform_code": -3},
        {"vox_offset": 0, "bitpix": 3},
        {"quatern_b": 0.6, "quatern_c": 0.0, "quatern_d": 0.8},
    ],
    ids=str,
)
def test_a_header_that_nibabel_repairs_is_repaired_alike_and_silently(
    tmp_path: Path, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    header = header_like(**({"sform_code": 0} | fields))
    path = write_nifti(tmp_path / "scan.nii", header, voxels())

    with caplog.at_level(logging.DEBUG):
        volume = read_scan(path).volume

    assert caplog.records == []
    image: Any = nib.load(path)
    np.testing.assert_allclose(volume.affine, expected_affine(image.affine), atol=1e-12)


def test_nibabels_repairs_do_not_reach_the_console(tmp_path: Path) -> None:
    header = header_like(sform_code=77, bitpix=3, pixdim=[0, -0.8, 0.7, 2.5, 1, 1, 1, 1])
    path = write_nifti(tmp_path / "scan.nii", header, voxels())

    code = "import sys; from kits_runtime.nifti import read_scan; read_scan(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout + done.stderr == ""


@every_ending
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "u8", "f4"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("slope", "inter"), [(1, -1024), (2, 0), (-3, 100), (0.5, 0.25), (1, 0.1), (1e-3, -7)]
)
def test_scaled_numbers_are_those_of_nibabel(
    tmp_path: Path, slope: float, inter: float, order: str, kind: str, ending: str
) -> None:
    header = header_like(dtype=order + kind, scl_slope=slope, scl_inter=inter)
    path = write_nifti(tmp_path / f"scan{ending}", header, voxels())

    data = read_scan(path).volume.data

    image: Any = nib.load(path)
    oriented = volume_from_array(image.get_fdata(), image.affine)
    np.testing.assert_array_equal(data, oriented.data.astype(np.float32))
    integral = kind != "f4" and float(slope).is_integer() and float(inter).is_integer()
    assert data.dtype == (np.int16 if integral else np.float32)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "expected"),
    [
        ([0, 65535], 1, -32768, [-32768, 32767]),  # overflows int16 on the way, not at the end
        ([32768, 65535], -1, 32768, [0, -32767]),
        ([0, 1], 32767, 0, [0, 32767]),
        ([0, 0], 100000, 5, [5, 5]),
        ([40000, 40001], 1, -40000, [0, 1]),
    ],
)
def test_integral_scaling_is_exact_up_to_the_ends_of_int16(
    tmp_path: Path, stored: list[int], slope: int, inter: int, expected: list[int]
) -> None:
    header = header_like(dtype="<u2", scl_slope=slope, scl_inter=inter)
    data = np.resize(np.array(stored, np.uint16), SHAPE)

    scan = read_scan(write_nifti(tmp_path / "scan.nii", header, data))

    assert scan.volume.data.dtype == np.int16
    np.testing.assert_array_equal(on_source_axes(scan), np.resize(np.array(expected), SHAPE))


@pytest.mark.parametrize(("slope", "inter"), [(1, 1), (2, -1), (-1, -2)])
def test_integral_scaling_beyond_int16_gives_float32(
    tmp_path: Path, slope: int, inter: int
) -> None:
    data = voxels()
    data[0, 0, 0] = 32767
    header = header_like(scl_slope=slope, scl_inter=inter)

    scan = read_scan(write_nifti(tmp_path / "scan.nii", header, data))

    assert scan.volume.data.dtype == np.float32
    np.testing.assert_array_equal(
        on_source_axes(scan).astype(np.float64), data.astype(np.float64) * slope + inter
    )


@pytest.mark.parametrize("slope", [0, np.nan, np.inf])
def test_a_slope_of_zero_or_no_number_means_none(tmp_path: Path, slope: float) -> None:
    header = header_like(scl_slope=slope, scl_inter=50)

    scan = read_scan(write_nifti(tmp_path / "scan.nii", header, voxels()))

    np.testing.assert_array_equal(on_source_axes(scan), voxels())


@every_ending
def test_extensions_are_skipped(tmp_path: Path, ending: str) -> None:
    extension: Any = nib.nifti1.Nifti1Extension
    header = header_like()
    header.extensions.append(extension("comment", b"x" * 5000))
    path = tmp_path / f"scan{ending}"
    nib.save(nib.Nifti1Image(voxels(), AFFINE, header), path)

    np.testing.assert_array_equal(on_source_axes(read_scan(path)), voxels())


def test_one_gzip_file_may_have_several_members(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "scan.nii", header_like(), voxels()).read_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"".join(gzip.compress(plain[i : i + 100]) for i in range(0, 472, 100)))

    np.testing.assert_array_equal(on_source_axes(read_scan(path)), voxels())


def test_the_content_decides_what_is_compressed(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "a.nii", header_like(), voxels())
    packed = write_nifti(tmp_path / "b.nii.gz", header_like(), voxels())
    plain.rename(tmp_path / "a.nii.gz")
    packed.rename(tmp_path / "b.nii")

    np.testing.assert_array_equal(on_source_axes(read_scan(tmp_path / "a.nii.gz")), voxels())
    np.testing.assert_array_equal(on_source_axes(read_scan(tmp_path / "b.nii")), voxels())


@every_ending
def test_bytes_behind_the_voxels_are_reported(tmp_path: Path, ending: str) -> None:
    path = write_nifti(tmp_path / f"scan{ending}", header_like(), voxels().tobytes("F") + b"more")

    scan = read_scan(path)

    assert scan.warnings == ("4 bytes behind the voxels were ignored",)
    np.testing.assert_array_equal(on_source_axes(scan), voxels())


@pytest.mark.parametrize(("unit", "unit_mm"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
def test_metres_and_micrometres_become_millimetres(
    tmp_path: Path, unit: int, unit_mm: float
) -> None:
    header = header_like(xyzt_units=unit)

    scan = read_scan(write_nifti(tmp_path / "scan.nii", header, voxels()))

    assert scan.volume.spacing_mm == pytest.approx((2.5 * unit_mm, 0.7 * unit_mm, 0.8 * unit_mm))
    assert len(scan.warnings) == (unit_mm != 1)


def test_an_sform_that_contradicts_pixdim_is_used_and_reported(tmp_path: Path) -> None:
    header = header_like(pixdim=[1, 0.8, 0.7, 5, 1, 1, 1, 1])

    scan = read_scan(write_nifti(tmp_path / "scan.nii", header, voxels()))

    assert scan.volume.spacing_mm[0] == pytest.approx(2.5)
    assert len(scan.warnings) == 1
    assert "pixdim says" in scan.warnings[0]


def test_a_scan_larger_than_one_chunk_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_CHUNK", 7)
    for ending, slope in itertools.product([".nii", ".nii.gz"], [1, 0.5]):
        path = write_nifti(tmp_path / f"scan{ending}", header_like(scl_slope=slope), voxels())
        np.testing.assert_array_equal(on_source_axes(read_scan(path)), voxels() * slope)


@every_ending
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2"])
def test_voxels_are_held_in_memory_once(tmp_path: Path, dtype: str, ending: str) -> None:
    shape = (256, 256, 64)
    header = header_like(shape, dtype, scl_inter=-1024)
    path = write_nifti(tmp_path / f"scan{ending}", header, np.arange(1 << 22) % 4096)
    voxel_bytes = 1 << 23

    tracemalloc.start()
    scan = read_scan(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert scan.volume.data.nbytes == voxel_bytes
    assert peak < voxel_bytes + 4 * nifti._CHUNK
