"""Where the arrays of a run lie: on the host, or on a device by a module with numpy's functions.

Steps and joins are written once, for any such module; with numpy's own nothing is copied. What
takes most of the time has kernels on a device. Labels come back as bytes; masks, boxes and what
cleans them stay on the host, where they are small.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kits_runtime.kernels.launching import Launch, cupy_launch


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A module with numpy's functions, and the ways to its arrays and back.

    ``address`` says where an array begins, and ``at`` gives the flat array of an address, a length
    and a dtype, in memory that others own; ``wait`` returns when all that was asked of the module
    is done. ``launch`` starts a kernel.
    """

    xp: Any
    put: Callable[[NDArray[Any]], Any]
    get: Callable[[Any], NDArray[Any]]
    address: Callable[[Any], int]
    wait: Callable[[], None]
    at: Callable[[int, int, Any], Any]
    launch: Launch


def _itself(array: NDArray[Any]) -> NDArray[Any]:
    return array


def _host_address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def _host_array_at(address: int, length: int, dtype: "np.dtype[Any]") -> NDArray[Any]:
    block = (ctypes.c_uint8 * (length * dtype.itemsize)).from_address(address)
    return np.frombuffer(memoryview(block), dtype)


def _done() -> None:
    pass


def _no_kernels(name: str, _items: int, *_arguments: Any) -> None:  # noqa: ANN401
    raise AssertionError(f"kernel {name} was asked of the host")


HOST = Arrays(
    xp=np,
    put=_itself,
    get=_itself,
    address=_host_address,
    wait=_done,
    at=_host_array_at,
    launch=_no_kernels,
)


def cupy_arrays(index: int, limit_bytes: int) -> Arrays:
    """Arrays of cupy on one GPU, of at most so many bytes together.

    Raises:
        ImportError: cupy is missing or broken.
    """
    import cupy

    cupy.cuda.Device(index).use()
    cupy.get_default_memory_pool().set_limit(size=limit_bytes)

    def at(address: int, length: int, dtype: "np.dtype[Any]") -> Any:  # noqa: ANN401
        size = length * dtype.itemsize
        memory = cupy.cuda.UnownedMemory(address, size, owner=None, device_id=index)
        return cupy.ndarray(length, dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))

    return Arrays(
        xp=cupy,
        put=cupy.asarray,
        get=cupy.asnumpy,
        address=lambda array: int(array.data.ptr),
        wait=lambda: cupy.cuda.get_current_stream().synchronize(),
        at=at,
        launch=cupy_launch(cupy),
    )
