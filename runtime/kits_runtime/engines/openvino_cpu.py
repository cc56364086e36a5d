"""Nets on the processor with OpenVINO, in bf16 where the processor has it."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Queue
from typing import Any

import numpy as np

from kits_runtime.engines.border import always_full, closed_error, failed_error, run_calls
from kits_runtime.engines.cores import usable_cores
from kits_runtime.engines.fit import Port, checked_input, checked_output, fixed_batch, load_error
from kits_runtime.engines.openvino_rise import with_phases
from kits_runtime.engines.protocol import Array, EngineOptions, EngineSpec, Model, NetSpec
from kits_runtime.errors import BackendUnavailableError

BACKEND = "openvino"

_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}
_ELEMENT_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_DTYPES = {"f32": "float32", "f16": "float16"}

_importing = threading.Lock()


class OpenVinoEngine:
    """One compiled net and its infer requests; ``open`` makes it."""

    def __init__(self, compiled: Any, spec: EngineSpec, tensor_type: Any) -> None:  # noqa: ANN401
        self._spec = spec
        self._tensor_type = tensor_type
        self._closed = False
        # Requests that nobody uses; None in the place of each once the engine is closed.
        self._free: Queue[Any] = Queue()
        for _ in range(spec.at_once):
            self._free.put(compiled.create_infer_request())

    @classmethod
    def open(cls, model: Model, net: NetSpec, options: EngineOptions) -> "OpenVinoEngine":
        """Load and compile ``model`` for calls of exactly ``options.batch`` windows.

        Fixed shapes run up to 8 % faster than a free batch axis (measured on nets with instance
        normalisation and resizing); for them, the last call of a run is filled up.

        Raises:
            BackendUnavailableError: openvino is missing, or the processor lacks the precision.
            EngineIncompatibleError: the file cannot be loaded, or does not fit ``net``.
        """
        library = import_openvino()
        core = library.Core()
        precision = _precision(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"), options)
        threads = options.threads or usable_cores()
        settings = _settings(precision, threads, options)
        try:
            graph = core.read_model(model)
        except Exception as error:  # the front end raises several kinds
            raise load_error(net, model, "openvino", error) from error
        batch = fixed_batch(checked_input(net, _ports(graph.inputs))) or options.batch
        checked_output(net, _ports(graph.outputs))
        try:
            graph = with_phases(library, _fixed(library, graph, net, batch))
            checked_output(net, _ports(graph.outputs))
            compiled = core.compile_model(graph, "CPU", settings)
        except RuntimeError as error:
            raise load_error(net, model, "openvino", error) from error
        spec = EngineSpec(
            net=net,
            backend=BACKEND,
            precision=precision,
            batch=batch,
            threads=threads,
            at_once=options.at_once,
            versions=(("openvino", library.__version__),),
        )
        return cls(compiled, spec, library.Tensor)

    @property
    def spec(self) -> EngineSpec:
        """What this engine is."""
        return self._spec

    def run(self, patches: Array) -> Array:
        """The scores of ``patches``, see ``Engine.run``."""
        with self._request() as request:

            def call(source: Array, scores: Array) -> None:
                self._call(request, source, scores)

            return run_calls(self._spec, patches, always_full(call, self._spec.batch))

    def close(self) -> None:
        """Release the requests, and with them the compiled net."""
        if not self._closed:
            self._closed = True
            for _ in range(self._spec.at_once):
                self._free.get()
            for _ in range(self._spec.at_once):
                self._free.put(None)

    def __enter__(self) -> "OpenVinoEngine":
        """The engine itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """A request of one's own; waits until there is one."""
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)

    def _call(self, request: Any, patches: Array, scores: Array) -> None:  # noqa: ANN401
        if request is None:
            raise closed_error(self._spec)
        net = self._spec.net
        try:
            # Shared memory: patches are read and scores written in place. It takes no read-only
            # array, so such patches are copied.
            source = self._tensor_type(np.require(patches, requirements="W"), shared_memory=True)
            request.set_tensor(net.input_name, source)
            request.set_tensor(net.output_name, self._tensor_type(scores, shared_memory=True))
            request.infer()
        except RuntimeError as error:
            raise failed_error(self._spec, error) from error


def import_openvino() -> Any:  # noqa: ANN401
    """The openvino module, without its telemetry.

    Its import otherwise writes an identifier into the home folder, forks and reports to a web
    service. Where the telemetry package is absent openvino takes a stub, so it is made absent while
    openvino is imported.

    Raises:
        BackendUnavailableError: the package is missing or broken.
    """
    try:
        with _importing, _absent("openvino_telemetry"):
            import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {BACKEND}: openvino cannot be imported ({error}), expected a working "
            'package; pip install "kits-trt[openvino]"'
        ) from error
    return openvino


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """Make ``import package`` fail inside the block."""
    modules: dict[str, Any] = sys.modules
    known = package in modules
    before = modules.get(package)
    modules[package] = None
    try:
        yield
    finally:
        if known:
            modules[package] = before
        else:
            del modules[package]


def _precision(capabilities: list[str], options: EngineOptions) -> str:
    if options.precision == "auto":
        return "bf16" if "BF16" in capabilities else "fp32"
    if _CAPABILITIES[options.precision] in capabilities:
        return options.precision
    raise BackendUnavailableError(
        f"backend {BACKEND}: this processor computes in {', '.join(sorted(capabilities))}, "
        f"precision {options.precision} was asked for; ask for fp32 or auto"
    )


def _settings(precision: str, threads: int, options: EngineOptions) -> Mapping[str, Any]:
    """The settings of one net that answers as soon as it can, or several calls beside each other.

    Threads are not pinned to cores: it gains nothing measurable, and two processes that share a
    machine would pin theirs to the same ones.
    """
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": options.at_once,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _ELEMENT_TYPES[precision],
        "ENABLE_CPU_PINNING": False,
    }
    if options.cache_dir is not None:
        settings["CACHE_DIR"] = str(options.cache_dir)
    return settings


def _fixed(library: Any, graph: Any, net: NetSpec, batch: int) -> Any:  # noqa: ANN401
    """The graph with float32 at its border, whatever the file holds, and all shapes fixed."""
    graph.reshape({net.input_name: library.PartialShape(list(net.input_shape(batch)))})
    border = library.preprocess.PrePostProcessor(graph)
    border.input(net.input_name).tensor().set_element_type(library.Type.f32)
    border.output(net.output_name).tensor().set_element_type(library.Type.f32)
    return border.build()


def _ports(nodes: Any) -> tuple[Port, ...]:  # noqa: ANN401
    """One port for every name of every tensor."""
    return tuple(_port(node, name) for node in nodes for name in sorted(node.names))


def _port(node: Any, name: str) -> Port:  # noqa: ANN401
    dtype = node.element_type.get_type_name()
    shape = node.partial_shape
    axes = () if shape.rank.is_dynamic else shape
    return Port(
        name=name,
        dtype=_DTYPES.get(dtype, dtype),
        shape=tuple(axis.get_length() if axis.is_static else None for axis in axes),
    )
