"""What GPUs the NVIDIA driver shows, asked of the driver itself: no torch, no CUDA toolkit.

This starts the driver (``cuInit``) but makes no context, so it takes no GPU memory. A process that
has asked must not fork and use CUDA in the child.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARY = "libcuda.so.1"
# The kernel module's version, which tells two drivers of one CUDA version apart.
MODULE_VERSION = Path("/sys/module/nvidia/version")

_NAME_BYTES = 256
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. ``driver`` is that of the kernel module where it can be read, else CUDA's."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_mib: int
    driver: str
    cuda: str

    @property
    def sm(self) -> str:
        """The compute capability as builders name it, such as 'SM86'."""
        major, minor = self.compute_capability
        return f"SM{major}{minor}"

    @property
    def shown(self) -> str:
        """All that measurements and trials depend on."""
        return f"{self.name}, {self.sm}, driver {self.driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """All GPUs that this process may use; ``why_none`` says why there are none."""

    devices: tuple[Gpu, ...]
    why_none: str | None = None

    @property
    def first(self) -> Gpu | None:
        """The GPU that engines take by default."""
        return self.devices[0] if self.devices else None


class _DriverError(Exception):
    """A call of the driver that failed."""


def visible_gpus(
    load: Callable[[str], Any] = ctypes.CDLL, module_version: Path = MODULE_VERSION
) -> Gpus:
    """The GPUs that the driver shows; an absent or broken driver gives none and a reason."""
    try:
        driver = load(LIBRARY)
    except OSError as error:
        return Gpus(devices=(), why_none=f"no NVIDIA driver: {LIBRARY} cannot be loaded ({error})")
    try:
        devices = _devices(driver, module_version)
    except (_DriverError, AttributeError) as error:
        return Gpus(devices=(), why_none=f"the NVIDIA driver does not work: {error}")
    if not devices:
        return Gpus(devices=(), why_none="the NVIDIA driver shows no GPU to this process")
    return Gpus(devices=devices)


def gpu_name(index: int) -> str:
    """What a measurement on a GPU holds for: its name, capability and driver."""
    for gpu in visible_gpus().devices:
        if gpu.index == index:
            return gpu.shown
    return "no GPU"


def _devices(driver: Any, module_version: Path) -> tuple[Gpu, ...]:  # noqa: ANN401
    _call(driver, "cuInit", 0)
    number = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(number))
    cuda = f"{number.value // 1000}.{number.value % 1000 // 10}"
    count = ctypes.c_int()
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    version = _module_version(module_version) or f"CUDA {cuda}"
    return tuple(_device(driver, index, (version, cuda)) for index in range(count.value))


def _device(driver: Any, index: int, versions: tuple[str, str]) -> Gpu:  # noqa: ANN401
    handle = ctypes.c_int()
    _call(driver, "cuDeviceGet", ctypes.byref(handle), index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, "cuDeviceGetName", name, _NAME_BYTES, handle)
    memory = ctypes.c_size_t()
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        compute_capability=(_attribute(driver, _MAJOR, handle), _attribute(driver, _MINOR, handle)),
        memory_mib=memory.value // _MIB,
        driver=versions[0],
        cuda=versions[1],
    )


def _attribute(driver: Any, attribute: int, handle: ctypes.c_int) -> int:  # noqa: ANN401
    number = ctypes.c_int()
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, handle)
    return number.value


def _call(driver: Any, name: str, *arguments: object) -> None:  # noqa: ANN401
    status = getattr(driver, name)(*arguments)
    if status != 0:
        raise _DriverError(f"{name} returned {status}")


def _module_version(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
