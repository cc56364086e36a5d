"""A built engine on the GPU: one context for each profile, and a graph of each where possible."""

from functools import partial
from typing import Any

import numpy as np

from kits_runtime.engines.border import one_line
from kits_runtime.engines.cuda_memory import Device
from kits_runtime.engines.fit import Port, checked_input, checked_output, fixed_batch, load_error
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.engines.tensorrt.listening import listening
from kits_runtime.errors import EngineError

_DTYPES = {"FLOAT": "float32", "HALF": "float16"}


class TensorRtCompute:
    """An engine's bytes, loaded.

    The batches are read off the engine, because memory may have been short when it was built.

    Raises:
        EngineIncompatibleError: the library cannot load it, or it does not fit ``net``.
    """

    def __init__(self, data: bytes, net: NetSpec, *, library: Library, device: Device) -> None:
        self._net = net
        self._device = device
        with listening(library) as (voice, heard), device.current():
            self._runtime = library.module.Runtime(voice)
            try:
                engine = self._runtime.deserialize_cuda_engine(data)
            except Exception as error:  # its errors have no root of their own
                raise load_error(net, data, library.flavour, error) from error
        if engine is None:
            said = RuntimeError("; ".join(heard.errors) or "no reason given")
            raise load_error(net, data, library.flavour, said)
        self._engine = engine
        inputs, outputs = _ports(library, engine)
        patches = checked_input(net, inputs)
        scores = checked_output(net, outputs)
        self.dtypes = (np.dtype(patches.dtype), np.dtype(scores.dtype))
        self._profiles = _profiles(engine, net, fixed_batch(patches))
        self.batches = tuple(sorted(self._profiles, reverse=True))
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, int] = {}
        self.notes: tuple[str, ...] = ()

    def bind(self, patches: int, scores: int) -> None:
        """Makes the contexts, runs each once and records it.

        A profile that cannot be recorded is queued step by step, and ``notes`` says so.
        """
        for batch in self.batches:
            context = self._context(batch)
            _require(context.set_tensor_address(self._net.input_name, patches), "an address")
            _require(context.set_tensor_address(self._net.output_name, scores), "an address")
            self._contexts[batch] = context
            self._execute(batch)  # the first run may allocate, which no graph can hold
            self._device.wait()
            try:
                self._graphs[batch] = self._device.recorded(partial(self._execute, batch))
            except EngineError as error:
                self.notes += (
                    f"net {self._net.name}: batch {batch} runs without a CUDA graph "
                    f"({one_line(error)})",
                )

    def queue(self, windows: int) -> None:
        """Queue one of the batches."""
        if windows in self._graphs:
            self._device.launch(self._graphs[windows])
        else:
            self._execute(windows)

    def close(self) -> None:
        """Release contexts before the engine, and the engine before its runtime."""
        self._contexts.clear()
        self._engine = None
        self._runtime = None

    def _context(self, batch: int) -> Any:  # noqa: ANN401
        context = self._engine.create_execution_context()
        _require(context is not None, "a context; the GPU's memory may be full")
        profile = self._profiles[batch]
        if profile is not None:
            stream = self._device.stream
            _require(context.set_optimization_profile_async(profile, stream), "a profile")
            self._device.wait()
            shape = self._net.input_shape(batch)
            _require(context.set_input_shape(self._net.input_name, shape), "a shape")
        return context

    def _execute(self, batch: int) -> None:
        done = self._contexts[batch].execute_async_v3(self._device.stream)
        _require(done, f"a run of {batch} windows")


def _profiles(engine: Any, net: NetSpec, file_batch: int | None) -> dict[int, int | None]:  # noqa: ANN401
    """The profile of each batch; None where the file itself fixes the batch."""
    if file_batch is not None:
        return {file_batch: None}
    found: dict[int, int | None] = {}
    for profile in range(engine.num_optimization_profiles):
        _, _, (most, *_) = engine.get_tensor_profile_shape(net.input_name, profile)
        found.setdefault(int(most), profile)
    return found


def _ports(library: Library, engine: Any) -> tuple[list[Port], list[Port]]:  # noqa: ANN401
    is_input = library.members("TensorIOMode")["INPUT"]
    inputs: list[Port] = []
    outputs: list[Port] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name).name
        port = Port(
            name=name,
            dtype=_DTYPES.get(dtype, dtype.lower()),
            shape=tuple(
                None if length < 0 else int(length) for length in engine.get_tensor_shape(name)
            ),
        )
        (inputs if engine.get_tensor_mode(name) == is_input else outputs).append(port)
    return inputs, outputs


def _require(done: object, what: str) -> None:
    if not done:
        raise EngineError(
            f"TensorRT: it refused {what}, expected it to be taken; run with --debug to see why"
        )
