"""GPUs as a driver shows them, on a stand-in for the driver's library."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kits_runtime.engines.cuda_driver import LIBRARY, Gpus, visible_gpus

NAMES = ("NVIDIA A", "NVIDIA B")


class Driver:
    """Two GPUs of compute capabilities 8.6 and 12.0, with 8 and 16 GiB."""

    def __init__(self, statuses: Mapping[str, int] | None = None, count: int = 2) -> None:
        self._statuses = statuses or {}
        self._count = count
        self.calls: list[str] = []

    def _status(self, name: str) -> int:
        self.calls.append(name)
        return self._statuses.get(name, 0)

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._status("cuInit")

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802
        number._obj.value = 13020
        return self._status("cuDriverGetVersion")

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self._count
        return self._status("cuDeviceGetCount")

    def cuDeviceGet(self, handle: Any, index: int) -> int:  # noqa: N802
        handle._obj.value = 100 + index
        return self._status("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, length: int, handle: ctypes.c_int) -> int:  # noqa: N802
        assert length == 256
        name.value = NAMES[handle.value - 100].encode()
        return self._status("cuDeviceGetName")

    def cuDeviceTotalMem_v2(self, size: Any, handle: ctypes.c_int) -> int:  # noqa: N802
        size._obj.value = (handle.value - 99) << 33
        return self._status("cuDeviceTotalMem_v2")

    def cuDeviceGetAttribute(self, number: Any, which: int, handle: ctypes.c_int) -> int:  # noqa: N802
        number._obj.value = {75: (8, 12), 76: (6, 0)}[which][handle.value - 100]
        return self._status("cuDeviceGetAttribute")


def seen(driver: Driver, version: Path = Path("nowhere")) -> Gpus:
    def load(name: str) -> Driver:
        assert name == LIBRARY
        return driver

    return visible_gpus(load, version)


def test_each_gpu_has_its_name_capability_and_memory(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("580.65.06\n")
    gpus = seen(Driver(), version)
    assert gpus.why_none is None
    assert [(gpu.name, gpu.compute_capability, gpu.sm, gpu.memory_mib) for gpu in gpus.devices] == [
        ("NVIDIA A", (8, 6), "SM86", 8192),
        ("NVIDIA B", (12, 0), "SM120", 16384),
    ]
    assert {(gpu.driver, gpu.cuda) for gpu in gpus.devices} == {("580.65.06", "13.2")}
    assert gpus.first == gpus.devices[0]


def test_where_the_kernel_modules_version_is_hidden_cudas_stands_for_it() -> None:
    assert {gpu.driver for gpu in seen(Driver()).devices} == {"CUDA 13.2"}


def test_without_a_driver_there_is_a_reason() -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    gpus = visible_gpus(absent)
    assert gpus.devices == ()
    assert gpus.first is None
    assert gpus.why_none == (
        f"no NVIDIA driver: {LIBRARY} cannot be loaded ({LIBRARY}: cannot open shared object file)"
    )


@pytest.mark.parametrize("name", ["cuInit", "cuDeviceGetCount", "cuDeviceGetAttribute"])
def test_a_call_that_fails_is_named_and_the_last(name: str) -> None:
    driver = Driver({name: 100})
    gpus = seen(driver)
    assert gpus.devices == ()
    assert gpus.why_none == f"the NVIDIA driver does not work: {name} returned 100"
    assert driver.calls[-1] == name


def test_a_driver_that_shows_nothing_is_told_apart() -> None:
    assert seen(Driver(count=0)).why_none == "the NVIDIA driver shows no GPU to this process"


def test_a_library_that_is_no_driver_is_refused() -> None:
    gpus = visible_gpus(lambda _name: object())
    assert gpus.why_none is not None
    assert gpus.why_none.startswith("the NVIDIA driver does not work:")
