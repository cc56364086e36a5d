"""What cannot be segmented ends with one clear line, the right code and no result."""

import fcntl
import gzip
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import phantom, write_scan
from nifti_files import header_like, write_nifti

Start = Callable[..., "subprocess.Popen[str]"]

SMALL = (12, 10, 8)
DATA = np.zeros(SMALL, np.int16)


def refused(ended: Any, code: int, expected: str, out: Path) -> None:
    """One line signed by the command that says ``expected``, and nothing left in the output."""
    assert ended.code == code, ended.err
    assert len(ended.complaints) == 1, ended.err
    assert expected in ended.complaints[0]
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1] == ended.complaints[0]
    assert not out.is_dir() or list(out.iterdir()) == []


def small_header(**fields: Any) -> Any:
    return header_like(SMALL, **fields)


def text(path: Path) -> None:
    path.write_text("These are not the voxels you are looking for.\n" * 20)


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    write_scan(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def trailing_garbage(path: Path) -> None:
    write_scan(path)
    with path.open("ab") as stream:
        stream.write(b"garbage behind the gzip member" * 9)


def flipped_bit(path: Path) -> None:
    write_scan(path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)


def wrong_magic(path: Path) -> None:
    write_nifti(path, small_header(magic=b"nope"), DATA)


def two_axes(path: Path) -> None:
    header = small_header()
    header["dim"] = [2, 12, 10, 1, 1, 1, 1, 1]
    write_nifti(path, header, DATA[:, :, 0])


def four_axes(path: Path) -> None:
    header = small_header()
    header["dim"] = [4, 12, 10, 8, 2, 1, 1, 1]
    write_nifti(path, header, np.zeros((*SMALL, 2), np.int16))


def one_slice(path: Path) -> None:
    write_nifti(path, header_like((12, 10, 1)), DATA[:, :, :1])


def zero_spacing(path: Path) -> None:
    header = small_header()
    header["pixdim"][3] = 0
    write_nifti(path, header, DATA)


def nan_spacing(path: Path) -> None:
    header = small_header()
    header["pixdim"][2] = np.nan
    write_nifti(path, header, DATA)


def singular(path: Path) -> None:
    header = small_header()
    header["srow_z"] = 0
    write_nifti(path, header, DATA)


def sheared(path: Path) -> None:
    header = small_header()
    header["srow_x"] = [-0.8, 0.4, 0, 11]
    write_nifti(path, header, DATA)


def with_nan(path: Path) -> None:
    data = np.zeros(SMALL, np.float32)
    data[1, 2, 3] = np.nan
    write_nifti(path, header_like(SMALL, "<f4"), data)


def with_infinity(path: Path) -> None:
    data = np.zeros(SMALL, np.float32)
    data[1, 2, 3] = -np.inf
    write_nifti(path, header_like(SMALL, "<f4"), data)


def coloured(path: Path) -> None:
    header = small_header(datatype=128, bitpix=24)
    write_nifti(path, header, bytes(3 * DATA.size))


def enormous(path: Path) -> None:
    header = small_header()
    header["dim"] = [3, 30000, 30000, 30000, 1, 1, 1, 1]
    write_nifti(path, header, DATA)


BAD = {
    text: "expected the header of a NIfTI file",
    empty: "found an empty file",
    truncated: "found damaged gzip data",
    trailing_garbage: "found damaged gzip data",
    flipped_bit: "found damaged gzip data",
    wrong_magic: "found the NIfTI magic b'nope'",
    two_axes: "found 2 axes",
    four_axes: "found 4 axes",
    one_slice: "12 x 10 x 1 voxels",
    zero_spacing: "found a voxel size of",
    nan_spacing: "found a voxel size of",
    singular: "found a voxel spacing of",
    sheared: "degrees off a right angle",
    with_nan: "found 1 voxels that are NaN",
    with_infinity: "found 1 voxels that are NaN, infinite",
    coloured: "found voxels of type RGB",
    enormous: "30000 x 30000 x 30000 voxels",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_scan_is_refused(
    kits_infer: Any, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    scan = tmp_path / "scan.nii.gz"
    make(scan)
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--preview")
    refused(ended, 3, BAD[make], tmp_path / "out")
    assert str(scan) in ended.complaints[0]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_scan_in_a_batch_is_named_and_the_rest_goes_on(
    kits_infer: Any, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "in").mkdir()
    make(tmp_path / "in" / "bad.nii.gz")
    write_scan(tmp_path / "in" / "good.nii.gz")
    ended = kits_infer("-i", tmp_path / "in", "-o", tmp_path / "out", "-q")
    assert ended.code == 8
    failure, count = ended.err.splitlines()
    assert "/2] bad: failed: " in failure
    assert BAD[make] in failure
    assert count == "kits-infer: 1 of 2 cases failed"
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["good.json", "good.nii.gz", "summary.csv"]


def test_trailing_zeros_are_padding_as_gzip_says(kits_infer: Any, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    with scan.open("ab") as stream:
        stream.write(bytes(512))
    assert gzip.decompress(scan.read_bytes())
    assert kits_infer("-i", scan, "-o", tmp_path / "out").code == 0


def test_a_scan_that_may_not_be_read_is_refused(
    kits_infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == scan:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    ended = kits_infer("-i", scan, "-o", tmp_path / "out")
    refused(ended, 3, f"{scan}: found 'Permission denied'", tmp_path / "out")


def test_a_missing_input_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    ended = kits_infer("-i", tmp_path / "gone.nii.gz", "-o", tmp_path / "out")
    refused(ended, 3, f"{tmp_path}/gone.nii.gz: no such file", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pipe_is_refused_and_not_waited_for(kits_infer: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii.gz")
    ended = kits_infer("-i", tmp_path / "scan.nii.gz", "-o", tmp_path / "out")
    refused(ended, 3, "found no regular file", tmp_path / "out")


def test_a_folder_without_scans_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    refused(
        kits_infer("-i", tmp_path / "in", "-o", tmp_path / "out"), 3, "no scan", tmp_path / "out"
    )


def test_an_output_that_may_not_be_written_is_refused(
    kits_infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, out = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    refused(kits_infer("-i", scan, "-o", out), 1, f"{out}: found 'not writable'", out)


def test_an_output_that_cannot_be_made_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    ended = kits_infer("-i", scan, "-o", "/proc/no/such/place")
    refused(ended, 1, "/proc/no/such/place: found 'No such file", Path("/proc/no"))


def test_an_output_that_is_a_file_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    scan, out = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "out"
    out.write_bytes(b"mine")
    refused(kits_infer("-i", scan, "-o", out), 1, f"{out}: found 'File exists'", out)
    assert out.read_bytes() == b"mine"


def test_an_output_that_is_the_input_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    before = scan.read_bytes()
    for how in ((), ("--overwrite",), ("--skip-existing",)):
        ended = kits_infer("-i", scan, "-o", tmp_path, *how)
        refused(ended, 2, f"{scan}: the mask would replace the scan", tmp_path / "out")
        assert scan.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with room for a few small files."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "kits", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_no_result(kits_infer: Any, tmp_path: Path, full_disk: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    (full_disk / "ballast").write_bytes(bytes(60_000))
    ended = kits_infer("-i", scan, "-o", full_disk / "out", "--preview")
    refused(ended, 1, "No space left on device", full_disk / "out")


def test_files_that_may_not_grow_leave_no_result(
    in_process_of_its_own: Start, one_stage: Path, tmp_path: Path
) -> None:
    """A stand-in for a full disk where none can be mounted."""
    noise = np.random.default_rng(0).integers(0, 300, phantom().labels.shape).astype(np.int16)
    made = phantom()
    object.__setattr__(made, "data", noise)  # masks of noise do not compress
    scan = write_scan(tmp_path / "scan.nii.gz", made)
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    )
    process = in_process_of_its_own(
        *("infer", "-i", scan, "-o", tmp_path / "out", "--bundle", one_stage),
        *("--backend", "ort-cpu", "-q"),
        before=limit,
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"kits-infer: {tmp_path}/out/scan.nii.gz: found 'File too large'")
    assert err.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_with_a_flipped_byte_is_refused(
    kits_infer: Any, one_stage: Path, tmp_path: Path
) -> None:
    scan, damaged = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "damaged.kits"
    content = bytearray(one_stage.read_bytes())
    content[content.index(b"GreaterOrEqual")] ^= 1
    damaged.write_bytes(content)
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--bundle", damaged)
    refused(ended, 4, "damaged", tmp_path / "out")


def test_a_missing_bundle_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--bundle", tmp_path / "no.kits")
    refused(ended, 4, f"{tmp_path}/no.kits: no such bundle", tmp_path / "out")


def test_a_bundle_that_is_a_scan_is_refused(kits_infer: Any, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    ended = kits_infer("-i", scan, "-o", tmp_path / "out", "--bundle", scan)
    refused(ended, 4, "expected a .kits file (a zip) or a folder", tmp_path / "out")


def test_a_second_process_on_one_output_is_refused(
    kits_infer: Any, in_process_of_its_own: Start, one_stage: Path, tmp_path: Path
) -> None:
    scan, out = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "out"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        process = in_process_of_its_own(
            *("infer", "-i", scan, "-o", out, "--bundle", one_stage, "-q"), "--backend", "ort-cpu"
        )
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert err.startswith(f"kits-infer: {out}: another kits-infer writes there, expected none.")
        assert list(out.iterdir()) == []
    finally:
        os.close(handle)
    assert kits_infer("-i", scan, "-o", out).code == 0


def test_a_run_holds_its_output_as_long_as_it_writes(
    kits_infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kits_runtime.cli import infer

    scan, out = write_scan(tmp_path / "scan.nii.gz"), tmp_path / "out"
    run, tried = infer._run, []

    def tried_meanwhile(*arguments: Any) -> Any:
        handle = os.open(out, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tried.append("refused")
        finally:
            os.close(handle)
        return run(*arguments)

    monkeypatch.setattr(infer, "_run", tried_meanwhile)
    assert kits_infer("-i", scan, "-o", out).code == 0
    assert tried == ["refused"]


def test_a_disk_that_locks_no_folders_is_written_without_a_lock(
    kits_infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert kits_infer("-i", scan, "-o", tmp_path / "out").code == 0


def test_memory_that_runs_out_ends_with_7(
    kits_infer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("kits_runtime.cohort.read_case", refuse)
    scan = write_scan(tmp_path / "scan.nii.gz")
    ended = kits_infer("-i", scan, "-o", tmp_path / "out")
    refused(ended, 7, "out of memory", tmp_path / "out")
