"""A GPU whose memory is the host's, and engines of both kinds that compute there.

Addresses are real, so an engine that copies too much or to the wrong place breaks memory that is
watched: each allocation has a guard behind it. TensorRT's part is taken by ONNX Runtime, and "an
engine's bytes" are those of the net's file.
"""

import contextlib
import ctypes
import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from kits_runtime.engines import EngineOptions, EngineSpec, NetSpec
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.ort_cuda import open_session
from kits_runtime.engines.tensorrt import Library
from kits_runtime.engines.tensorrt.opening import loaded
from kits_runtime.errors import EngineError
from kits_runtime.infer import RunNet

_GUARD = np.frombuffer(b"\xa5" * 64, np.uint8)


class HostDevice:
    """Queued work runs at once, but only inside ``current``; launches and copies are counted."""

    name, index, stream = "cpu", 0, 77

    def __init__(self, *, records: bool = True) -> None:
        self._records = records
        self._blocks: dict[int, npt.NDArray[np.uint8]] = {}
        self._graphs: list[Callable[[], None]] = []
        self._entered = 0
        self.launches = 0
        self.closed = 0

    def allocate(self, size: int) -> int:
        block = np.full(size + len(_GUARD), 0xFF, np.uint8)
        block[size:] = _GUARD
        address = int(block.ctypes.data)
        self._blocks[address] = block
        return address

    def free(self, address: int) -> None:
        np.testing.assert_array_equal(self._blocks.pop(address)[-len(_GUARD) :], _GUARD)

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        return np.full(size, 0xFF, np.uint8)

    def upload(self, address: int, source: npt.NDArray[Any]) -> None:
        self._move(address, source.ctypes.data, source.nbytes)

    def download(self, target: npt.NDArray[Any], address: int) -> None:
        self._move(target.ctypes.data, address, target.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        self._move(target, source, size)

    def recorded(self, work: Callable[[], None]) -> int:
        if not self._records:
            raise EngineError("GPU 0: cuStreamEndCapture returned 901, expected 0; not recordable")
        self._graphs.append(work)
        return len(self._graphs)

    def launch(self, graph: int) -> None:
        self.launches += 1
        self._graphs[graph - 1]()

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._entered += 1
        yield
        self._entered -= 1

    def wait(self) -> None:
        assert self._entered

    def close(self) -> None:
        self.closed += 1
        for address in tuple(self._blocks):
            self.free(address)

    def _move(self, target: int, source: int, size: int) -> None:
        assert self._entered, "the context is not current"
        ctypes.memmove(target, source, size)


def open_like_cuda(
    model: Any, net: NetSpec, options: EngineOptions, *, device: HostDevice | None = None
) -> GpuEngine:
    """The backend ort-cuda with ONNX Runtime's processor in place of the GPU."""
    return open_session(
        model, net, options, device=device or HostDevice(), providers=[("CPUExecutionProvider", {})]
    )


def open_like_tensorrt(
    model: Any,
    net: NetSpec,
    options: EngineOptions,
    *,
    device: HostDevice | None = None,
    batches: Sequence[int] | None = None,
) -> GpuEngine:
    """The backend trt with an engine of these profiles, by default those that are built."""
    batches = batches or ((options.batch, 1) if options.batch > 1 else (1,))
    data = model if isinstance(model, bytes) else model.read_bytes() if model.exists() else b""
    library = Library(flavour="trt", module=running_stand_in(batches))
    return loaded(data, net, library, device=device or HostDevice(), precision="fp32")


class FunctionCompute:
    """A function of patches as what computes on a device of host memory."""

    dtypes = (np.dtype(np.float32), np.dtype(np.float32))
    notes = ()

    def __init__(self, net: NetSpec, function: RunNet, batches: tuple[int, ...]) -> None:
        self.batches = batches
        self._net, self._function = net, function
        self._places = (0, 0)

    def bind(self, patches: int, scores: int) -> None:
        self._places = (patches, scores)

    def queue(self, windows: int) -> None:
        patches = np.empty(self._net.input_shape(windows), np.float32)
        ctypes.memmove(patches.ctypes.data, self._places[0], patches.nbytes)
        scores = np.ascontiguousarray(self._function(patches), np.float32)
        assert scores.shape == self._net.output_shape(windows)
        ctypes.memmove(self._places[1], scores.ctypes.data, scores.nbytes)

    def close(self) -> None:
        pass


def engine_of(net: NetSpec, function: RunNet, batches: tuple[int, ...] = (1,)) -> GpuEngine:
    spec = EngineSpec(net=net, backend="fake", precision="fp32", batch=batches[0], threads=1)
    return GpuEngine(spec, HostDevice(), FunctionCompute(net, function, batches))


def running_stand_in(batches: Sequence[int]) -> Any:
    """What of the module tensorrt loads and runs an engine."""

    class Module:
        __version__ = "10.13.0"
        TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
        DataType = enum.Enum("DataType", "FLOAT HALF INT64")

        class ILogger:
            pass

        @staticmethod
        def Runtime(_logger: Any) -> Any:  # noqa: N802
            return _Runtime(Module, batches)

    return Module


class _Runtime:
    def __init__(self, module: Any, batches: Sequence[int]) -> None:
        self._module, self._batches = module, batches

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        try:
            session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        except Exception:  # tensorrt gives None and says why to its logger
            return None
        return _Engine(self._module, session, self._batches, data)


class _Engine:
    def __init__(self, module: Any, session: Any, batches: Sequence[int], data: bytes) -> None:
        self.session, self.batches = session, batches
        graph = onnx.load_from_string(data).graph
        self._ports = {node.name: node for node in (*graph.input, *graph.output)}
        self._inputs = {node.name for node in graph.input}
        self._module = module
        self.num_io_tensors = len(self._ports)
        self.num_optimization_profiles = len(batches)

    def get_tensor_name(self, index: int) -> str:
        return list(self._ports)[index]

    def get_tensor_mode(self, name: str) -> Any:
        mode = self._module.TensorIOMode
        return mode.INPUT if name in self._inputs else mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kind = onnx.TensorProto.DataType.Name(self._ports[name].type.tensor_type.elem_type)
        return self._module.DataType[{"FLOAT16": "HALF"}.get(kind, kind)]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        axes = self._ports[name].type.tensor_type.shape.dim
        return tuple(axis.dim_value or -1 for axis in axes)

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        shape = (self.batches[profile], *self.get_tensor_shape(name)[1:])
        return shape, shape, shape

    def create_execution_context(self) -> Any:
        return _Context(self)


class _Context:
    """Computes at the addresses it was told, in the shape it was told."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._profile = 0
        self._shape: tuple[int, ...] | None = None
        self._places: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream == HostDevice.stream
        self._profile = profile
        return True

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        self._shape = shape
        return shape[0] == self._engine.batches[self._profile]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._places[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostDevice.stream
        session = self._engine.session
        (patches,), scores = session.get_inputs(), session.get_outputs()[0]
        shape = self._shape or self._engine.get_tensor_shape(patches.name)
        given = _array_at(self._places[patches.name], shape, patches.type)
        answer = session.run([scores.name], {patches.name: given})[0]
        ctypes.memmove(self._places[scores.name], answer.ctypes.data, answer.nbytes)
        return True


def _array_at(address: int, shape: Sequence[int], kind: str) -> npt.NDArray[Any]:
    dtype = np.dtype(np.float16 if "float16" in kind else np.float32)
    size = int(np.prod(shape)) * dtype.itemsize
    block = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(block, dtype).reshape(shape).copy()  # type: ignore[call-overload,no-any-return]
