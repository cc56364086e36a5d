"""Device memory, a stream and graphs through the NVIDIA driver alone: no torch, cupy or toolkit.

``Device`` is what an engine needs of a GPU; ``CudaDevice`` has it from the driver. It works in the
device's primary context, which every other user of CUDA in the process shares, so its addresses
are good in cupy and in the engines' libraries.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kits_runtime.engines.cuda_driver import LIBRARY
from kits_runtime.errors import EngineError, OutOfMemoryError

HostArray = npt.NDArray[Any]

_OUT_OF_MEMORY = 2
_NON_BLOCKING = 1
_CAPTURE_OWN_THREAD = 1  # calls of other threads neither join the capture nor break it


class Device(Protocol):
    """One GPU as engines use it: work is queued on one stream until ``wait``."""

    @property
    def name(self) -> str:
        """The kind of memory as ONNX Runtime names it."""
        ...

    @property
    def index(self) -> int:
        """Which GPU."""
        ...

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        ...

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the device."""
        ...

    def free(self, address: int) -> None:
        """Give memory of ``allocate`` back."""
        ...

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """So many bytes of the host that the device reads and writes without a copy between."""
        ...

    def upload(self, address: int, source: HostArray) -> None:
        """Queue a copy of a contiguous host array to the device."""
        ...

    def download(self, target: HostArray, address: int) -> None:
        """Queue a copy from the device into a contiguous host array."""
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of so many bytes from one place of the device to another."""
        ...

    def recorded(self, work: Callable[[], None]) -> int:
        """A graph of what ``work`` queues, to be launched again and again.

        Raises:
            EngineError: the work cannot be recorded.
        """
        ...

    def launch(self, graph: int) -> None:
        """Queue a recorded graph."""
        ...

    def current(self) -> Any:  # noqa: ANN401
        """A context manager in which the calling thread may use the device."""
        ...

    def wait(self) -> None:
        """Return when everything queued is done."""
        ...

    def close(self) -> None:
        """Give everything back; closing twice does nothing."""
        ...


class CudaDevice:
    """A GPU through the driver's own library.

    Raises:
        EngineError: a call of the driver failed; ``OutOfMemoryError`` where it was for memory.
    """

    name = "cuda"

    def __init__(self, index: int = 0, *, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._driver = load(LIBRARY)
        self.index = index
        self._memory: set[int] = set()
        self._pinned: list[int] = []
        self._graphs: list[tuple[int, int]] = []
        self._call("cuInit", 0)
        self._handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._handle), index)
        self._context = self._new("cuDevicePrimaryCtxRetain", self._handle)
        self._open = True
        with self.current():
            self._stream = self._new("cuStreamCreate", ctypes.c_uint(_NON_BLOCKING))

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return self._stream

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes the device's context that of the calling thread for the block."""
        self._call("cuCtxPushCurrent_v2", ctypes.c_void_p(self._context))
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size: int) -> int:
        """The address of so many bytes on the device."""
        address = self._new("cuMemAlloc_v2", ctypes.c_size_t(size))  # both are 64 bits wide
        self._memory.add(address)
        return address

    def free(self, address: int) -> None:
        """Give memory of ``allocate`` back."""
        self._memory.discard(address)
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        """Page-locked bytes of the host; they are gone when the device is closed."""
        place = self._new("cuMemAllocHost_v2", ctypes.c_size_t(size))
        self._pinned.append(place)
        block = (ctypes.c_uint8 * size).from_address(place)
        return np.ctypeslib.as_array(block)

    def upload(self, address: int, source: HostArray) -> None:
        """Queue a copy of a contiguous host array to the device."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(source.ctypes.data),
            ctypes.c_size_t(source.nbytes),
            ctypes.c_void_p(self._stream),
        )

    def download(self, target: HostArray, address: int) -> None:
        """Queue a copy from the device into a contiguous host array."""
        self._call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(target.ctypes.data),
            ctypes.c_uint64(address),
            ctypes.c_size_t(target.nbytes),
            ctypes.c_void_p(self._stream),
        )

    def copy(self, target: int, source: int, size: int) -> None:
        """Queue a copy of so many bytes from one place of the device to another."""
        self._call(
            "cuMemcpyDtoDAsync_v2",
            ctypes.c_uint64(target),
            ctypes.c_uint64(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(self._stream),
        )

    def recorded(self, work: Callable[[], None]) -> int:
        """A graph of what ``work`` queues; a failed recording leaves the stream as it was."""
        stream = ctypes.c_void_p(self._stream)
        self._call("cuStreamBeginCapture_v2", stream, ctypes.c_int(_CAPTURE_OWN_THREAD))
        try:
            work()
        except BaseException:
            # The capture must end in any case; what it gives is not wanted, nor is its error.
            self._driver.cuStreamEndCapture(stream, ctypes.byref(ctypes.c_void_p()))
            raise
        graph = self._new_after("cuStreamEndCapture", stream)
        runnable = ctypes.c_void_p()
        flags = ctypes.c_uint64(0)
        self._call(
            "cuGraphInstantiateWithFlags", ctypes.byref(runnable), ctypes.c_void_p(graph), flags
        )
        self._graphs.append((graph, runnable.value or 0))
        return runnable.value or 0

    def launch(self, graph: int) -> None:
        """Queue a recorded graph."""
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(self._stream))

    def wait(self) -> None:
        """Return when everything queued is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(self._stream))

    def close(self) -> None:
        """Give graphs, memory, stream and the hold on the context back, whatever fails."""
        if not self._open:
            return
        self._open = False
        with self.current():
            for graph, runnable in self._graphs:
                self._driver.cuGraphExecDestroy(ctypes.c_void_p(runnable))
                self._driver.cuGraphDestroy(ctypes.c_void_p(graph))
            for address in self._memory:
                self._driver.cuMemFree_v2(ctypes.c_uint64(address))
            for place in self._pinned:
                self._driver.cuMemFreeHost(ctypes.c_void_p(place))
            self._driver.cuStreamDestroy_v2(ctypes.c_void_p(self._stream))
        self._driver.cuDevicePrimaryCtxRelease_v2(self._handle)

    def _new(self, name: str, argument: object) -> int:
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), argument)
        return made.value or 0

    def _new_after(self, name: str, argument: object) -> int:
        made = ctypes.c_void_p()
        self._call(name, argument, ctypes.byref(made))
        return made.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        status = int(getattr(self._driver, name)(*arguments))
        if status == _OUT_OF_MEMORY:
            raise OutOfMemoryError(
                f"GPU {self.index}: {name} found too little memory, expected room for it; end "
                "other programs on the GPU, or give a smaller --max-gpu-mem"
            )
        if status:
            raise EngineError(
                f"GPU {self.index}: {name} returned {status}, expected 0; look at nvidia-smi, or "
                "run on the processor with --device cpu"
            )
