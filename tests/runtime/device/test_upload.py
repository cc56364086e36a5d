"""A scan is on the device when its file is decoded, piece by piece."""

import gc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from device_arrays import get, strict_arrays
from host_device import HostDevice

from kits_runtime.device.upload import Uploads
from kits_runtime.errors import OutOfMemoryError
from kits_runtime.nifti import read_scan


class Watched(HostDevice):
    """Notes how much was decoded whenever something is uploaded, and what memory is held."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[int] = []
        self.held: dict[int, int] = {}
        self.full = False

    def allocate(self, size: int) -> int:
        if self.full:
            raise OutOfMemoryError("full")
        address = super().allocate(size)
        self.held[address] = size
        return address

    def free(self, address: int) -> None:
        self.held.pop(address, None)
        super().free(address)

    def upload(self, address: int, source: npt.NDArray[Any]) -> None:
        self.sent.append(source.nbytes)
        super().upload(address, source)


def uploads(device: HostDevice, room: int = 1 << 30, piece: int = 1000) -> Uploads:
    return Uploads(device, room_bytes=room, piece_bytes=piece)


def scan_file(path: Path, data: npt.NDArray[Any], affine: npt.NDArray[Any]) -> Path:
    nibabel.save(nibabel.Nifti1Image(data, affine), path)  # type: ignore[no-untyped-call]
    return path


KITS = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
FLIPPED = np.diag([1.0, -1.0, 3.0, 1.0])


@pytest.mark.parametrize("affine", [KITS, FLIPPED], ids=["as published", "another arrangement"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_scan_that_was_followed_lies_on_the_device_as_on_the_host(
    tmp_path: Path, affine: npt.NDArray[Any], dtype: Any, ending: str
) -> None:
    data = np.random.default_rng(1).integers(-1000, 1000, (11, 12, 13)).astype(dtype)
    device = Watched()
    upload = uploads(device).begin()
    scan = read_scan(scan_file(tmp_path / f"scan{ending}", data, affine), follow=upload.follow)
    assert upload.finish()
    there = upload.scan(strict_arrays(), scan.volume)
    np.testing.assert_array_equal(get(there), scan.volume.data)
    assert sum(device.sent) == data.nbytes
    upload.close()
    upload.close()
    assert not device.held


def test_pieces_go_while_later_voxels_are_still_missing() -> None:
    device = Watched()
    upload = uploads(device).begin()
    voxels = np.arange(2500, dtype=np.uint16).view(np.uint8)
    seen = []
    for filled in (0, 999, 1000, 1700, 3300, 5000):
        visible = np.where(np.arange(5000) < filled, voxels, 0xFF).astype(np.uint8)
        upload.follow(visible, filled)
        seen.append(sum(device.sent))
    assert seen == [0, 0, 1000, 1000, 3000, 5000]
    assert max(device.sent) <= 1000
    assert upload.finish()


def test_numbers_that_are_changed_after_reading_are_not_followed(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4))  # type: ignore[no-untyped-call]
    image.header.set_slope_inter(2.0, -1024.0)
    path = tmp_path / "scaled.nii.gz"
    nibabel.save(image, path)
    device = Watched()
    upload = uploads(device).begin()
    scan = read_scan(path, follow=upload.follow)
    assert not upload.finish()
    assert device.sent == []
    assert scan.volume.data.dtype == np.int16


def test_a_scan_without_room_goes_later_and_room_comes_back() -> None:
    device = Watched()
    shared = uploads(device, room=1500)
    voxels = np.zeros(1000, np.uint8)
    first, second = shared.begin(), shared.begin()
    for upload in (first, second):
        upload.follow(voxels, 1000)
    assert (first.finish(), second.finish()) == (True, False)
    assert list(device.held.values()) == [1000]
    del first, upload
    gc.collect()
    assert not device.held
    third = shared.begin()
    third.follow(voxels, 1000)
    assert third.finish()
    shared.close()
    third.close()
    assert device.closed == 1


def test_a_full_device_is_no_error_of_an_upload() -> None:
    device = Watched()
    device.full = True
    upload = uploads(device).begin()
    upload.follow(np.zeros(10, np.uint8), 10)
    assert not upload.finish()


def test_a_scan_whose_reading_ended_early_is_not_on_the_device() -> None:
    upload = uploads(Watched()).begin()
    upload.follow(np.zeros(5000, np.uint8), 3000)
    assert not upload.finish()
