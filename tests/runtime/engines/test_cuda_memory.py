"""Calls of the driver for memory, streams and graphs, on a stand-in for its library."""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from kits_runtime.engines.cuda_driver import LIBRARY
from kits_runtime.engines.cuda_memory import CudaDevice
from kits_runtime.errors import EngineError, OutOfMemoryError

OUT_OF_MEMORY = 2


class Driver:
    """Memory of the host behind the driver's calls; what is taken must be given back."""

    def __init__(self, **statuses: int) -> None:
        self.statuses = statuses
        self.calls: list[str] = []
        self.held: dict[int, Any] = {}
        self.depth = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            status = self.statuses.get(name, 0)
            if not status and name in _DONE:
                _DONE[name](self, *arguments)
            return status

        return call

    def take(self, made: Any, size: Any = 1) -> None:
        content = (ctypes.c_uint8 * getattr(size, "value", 1))()
        address = ctypes.addressof(content)
        self.held[address] = content
        made._obj.value = address

    def give(self, address: Any) -> None:
        del self.held[address.value]

    def move(self, target: Any, source: Any, size: Any, _stream: Any) -> None:
        ctypes.memmove(target.value, source.value, size.value)

    def enter(self, _context: Any) -> None:
        self.depth += 1

    def leave(self, _context: Any) -> None:
        self.depth -= 1


_DONE: Mapping[str, Callable[..., None]] = {
    "cuDevicePrimaryCtxRetain": lambda driver, made, _device: driver.take(made),
    "cuStreamCreate": lambda driver, made, _flags: driver.take(made),
    "cuCtxPushCurrent_v2": Driver.enter,
    "cuCtxPopCurrent_v2": Driver.leave,
    "cuMemAlloc_v2": Driver.take,
    "cuMemAllocHost_v2": Driver.take,
    "cuMemFree_v2": Driver.give,
    "cuMemFreeHost": Driver.give,
    "cuStreamDestroy_v2": Driver.give,
    "cuMemcpyHtoDAsync_v2": Driver.move,
    "cuMemcpyDtoHAsync_v2": Driver.move,
    "cuMemcpyDtoDAsync_v2": Driver.move,
    "cuStreamEndCapture": lambda driver, _stream, made: driver.take(made),
    "cuGraphInstantiateWithFlags": lambda driver, made, _graph, _flags: driver.take(made),
    "cuGraphDestroy": Driver.give,
    "cuGraphExecDestroy": Driver.give,
}


def device_of(driver: Driver) -> CudaDevice:
    def load(name: str) -> Driver:
        assert name == LIBRARY
        return driver

    return CudaDevice(1, load=load)


def test_bytes_survive_the_way_to_the_device_within_it_and_back() -> None:
    driver = Driver()
    device = device_of(driver)
    sent, got = np.arange(12, dtype=np.float32), np.zeros(12, np.float32)
    with device.current():
        first, second = device.allocate(48), device.allocate(48)
        device.upload(first, sent)
        device.copy(second, first, 48)
        device.download(got, second)
        device.wait()
        pinned = device.pinned(16)
        pinned[:] = 7
    np.testing.assert_array_equal(got, sent)
    assert pinned.nbytes == 16
    assert driver.depth == 0


def test_closing_gives_everything_back_once() -> None:
    driver = Driver()
    device = device_of(driver)
    with device.current():
        device.free(device.allocate(8))
        device.allocate(8)
        device.pinned(8)
        device.launch(device.recorded(device.wait))
    device.close()
    device.close()
    assert len(driver.held) == 1  # the context, whose hold is counted by the driver
    assert driver.calls.count("cuDevicePrimaryCtxRelease_v2") == 1
    assert driver.depth == 0


def test_a_recording_ends_even_when_its_work_fails() -> None:
    driver = Driver()
    device = device_of(driver)

    def work() -> None:
        raise EngineError("no")

    with pytest.raises(EngineError, match=r"^no$"):
        device.recorded(work)
    begun = driver.calls.index("cuStreamBeginCapture_v2")
    assert driver.calls[begun:] == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]


@pytest.mark.parametrize(
    ("call", "status", "expected", "exit_code"),
    [
        ("cuMemAlloc_v2", OUT_OF_MEMORY, OutOfMemoryError, 7),
        ("cuMemAlloc_v2", 700, EngineError, 1),
        ("cuMemAllocHost_v2", OUT_OF_MEMORY, OutOfMemoryError, 7),
        ("cuStreamSynchronize", 719, EngineError, 1),
    ],
)
def test_a_failed_call_is_named_with_what_it_returned(
    call: str, status: int, expected: type[EngineError], exit_code: int
) -> None:
    device = device_of(Driver(**{call: status}))

    def use() -> None:
        device.allocate(8)
        device.pinned(8)
        device.wait()

    with pytest.raises(expected, match=f"GPU 1: {call} ") as caught:
        use()
    assert caught.value.exit_code == exit_code
