"""A scan's voxels on their way to a device while its file is still being decoded.

Pieces go through two page-locked buffers: one is filled from what was decoded last while the other
is read by the device, so that when the last voxel is decoded all but one piece are there. The bytes
lie as in the file; the scan's arrangement is a view, there as here.
"""

import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import Arrays
from kits_runtime.engines.cuda_memory import Device
from kits_runtime.errors import OutOfMemoryError
from kits_runtime.volume import Volume

PIECE_BYTES = 4 << 20


class Uploads:
    """What scans on their way share: the device, its buffers, and so much room for all together.

    Closing gives the device back; uploads are of no use afterwards.
    """

    def __init__(self, device: Device, *, room_bytes: int, piece_bytes: int = PIECE_BYTES) -> None:
        self.device = device
        self._room_bytes = room_bytes
        self._turn = threading.RLock()  # an upload may be found gone while another one is at it
        self._open = True
        with device.current():
            self._pieces = [device.pinned(piece_bytes) for _ in range(2)]

    def begin(self) -> "Upload":
        """A new upload; it asks for memory when the size is known."""
        return Upload(self)

    def close(self) -> None:
        """Give the device back, with the memory of all uploads."""
        with self._turn:
            self._open = False
            self.device.close()

    @property
    def piece_bytes(self) -> int:
        """How much goes at once."""
        return len(self._pieces[0])

    def taken(self, size: int) -> int | None:
        """The address of so many bytes, None where there is no room for them now."""
        with self._turn:
            if size > self._room_bytes:
                return None
            try:
                with self.device.current():
                    address = self.device.allocate(size)
            except OutOfMemoryError:
                return None
            self._room_bytes -= size
            return address

    def give_back(self, address: int, size: int) -> None:
        """Takes an upload's memory back."""
        with self._turn:
            if self._open:
                with self.device.current():
                    self.device.free(address)
                self._room_bytes += size

    def send(self, address: int, source: NDArray[np.uint8]) -> int:
        """Queues as much of the source as a buffer holds; returns how many bytes that is."""
        with self._turn, self.device.current():
            buffer = self._pieces[0]
            part = buffer[: min(len(source), len(buffer))]
            part[:] = source[: len(part)]
            self.device.wait()  # for the other buffer, which was queued a piece ago
            self.device.upload(address, part)
            self._pieces.reverse()
            return len(part)

    def wait(self) -> None:
        """Returns when all that was queued is there."""
        with self._turn, self.device.current():
            self.device.wait()


class Upload:
    """One scan; its memory is given back when it is closed or gone."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._address: int | None = None
        self._size = self._sent = 0
        self._free: Callable[[], object] | None = None

    def follow(self, voxels: NDArray[np.uint8], filled: int) -> None:
        """Sends what can be sent of the voxels, of which so many bytes are decoded."""
        if not self._size:
            self._size = len(voxels)
            self._address = self._uploads.taken(self._size)
            if self._address is not None:
                give_back = partial(self._uploads.give_back, self._address, self._size)
                self._free = finalizer = weakref.finalize(self, give_back)
                finalizer.atexit = False
        if self._address is None:
            return
        least = 1 if filled == self._size else self._uploads.piece_bytes
        while filled - self._sent >= least:
            part = voxels[self._sent : filled]
            self._sent += self._uploads.send(self._address + self._sent, part)

    def finish(self) -> bool:
        """Waits for the last piece; whether all of the scan is on the device."""
        if self._address is None or self._sent < self._size:
            return False
        self._uploads.wait()
        return True

    def scan(self, arrays: Arrays, volume: Volume) -> Any:  # noqa: ANN401
        """The scan that was uploaded, on the model axes of its volume, which lies on the host."""
        assert self._address is not None
        stored = volume.orientation.to_source(volume.data)
        flat = arrays.at(self._address, stored.size, stored.dtype)
        return volume.orientation.to_model(flat.reshape(stored.shape[::-1]).transpose())

    def close(self) -> None:
        """Give the memory back; closing twice does nothing."""
        self._address = None
        if self._free is not None:
            self._free()
