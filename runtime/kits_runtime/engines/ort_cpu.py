"""Nets on the processor with ONNX Runtime, in fp32."""

import os
import threading
from typing import Any

import numpy as np

from kits_runtime.engines.border import (
    always_full,
    closed_error,
    converted,
    failed_error,
    fill_scores,
    run_calls,
)
from kits_runtime.engines.cores import usable_cores
from kits_runtime.engines.fit import Port, checked_input, checked_output, fixed_batch, load_error
from kits_runtime.engines.protocol import Array, EngineOptions, EngineSpec, Model, NetSpec
from kits_runtime.errors import BackendUnavailableError

BACKEND = "ort-cpu"

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class OrtCpuEngine:
    """One ONNX Runtime session; ``open`` makes it."""

    def __init__(self, session: Any, spec: EngineSpec, *, file_batch: int | None) -> None:  # noqa: ANN401
        self._session = session
        self._spec = spec
        self._turn = threading.Lock()
        self._whole_call = always_full(self._call, file_batch) if file_batch else self._call
        self._in_dtype = port_dtype(session.get_inputs(), spec.net.input_name)
        self._out_dtype = port_dtype(session.get_outputs(), spec.net.output_name)

    @classmethod
    def open(cls, model: Model, net: NetSpec, options: EngineOptions) -> "OrtCpuEngine":
        """Load ``model``, ready to run; ``options.cache_dir`` is not used.

        A file in float16 is taken too: patches and scores are converted at the border, and ONNX
        Runtime computes in float32 between its half-precision tensors.

        Raises:
            BackendUnavailableError: onnxruntime is missing, or the precision is not fp32.
            EngineIncompatibleError: the file cannot be loaded, or does not fit ``net``.
        """
        if options.precision not in ("auto", "fp32"):
            raise BackendUnavailableError(
                f"backend {BACKEND}: precision {options.precision} was asked for, it computes in "
                "fp32; ask for fp32 or auto, or choose the backend openvino"
            )
        library = import_onnxruntime()
        threads = options.threads or usable_cores()
        source = model if isinstance(model, bytes) else str(model)
        try:
            session = library.InferenceSession(
                source, session_options(library, threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no root of their own
            raise load_error(net, model, "onnxruntime", error) from error
        batch = fixed_batch(checked_input(net, session_ports(session.get_inputs())))
        checked_output(net, session_ports(session.get_outputs()))
        spec = EngineSpec(
            net=net,
            backend=BACKEND,
            precision="fp32",
            batch=batch or options.batch,
            threads=threads,
            versions=(("onnxruntime", library.__version__),),
        )
        return cls(session, spec, file_batch=batch)

    @property
    def spec(self) -> EngineSpec:
        """What this engine is."""
        return self._spec

    def run(self, patches: Array) -> Array:
        """The scores of ``patches``, see ``Engine.run``."""
        with self._turn:
            return run_calls(self._spec, patches, self._whole_call)

    def close(self) -> None:
        """Release the session."""
        with self._turn:
            self._session = None

    def __enter__(self) -> "OrtCpuEngine":
        """The engine itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def _call(self, patches: Array, scores: Array) -> None:
        if self._session is None:
            raise closed_error(self._spec)
        net = self._spec.net
        source = converted(patches, self._in_dtype, self._spec)
        target = (
            scores if self._out_dtype == np.float32 else np.empty(scores.shape, self._out_dtype)
        )
        # Bound memory: patches are read and scores written in place, and a wrong shape is an error.
        binding = self._session.io_binding()
        binding.bind_input(
            net.input_name, "cpu", 0, self._in_dtype, source.shape, source.ctypes.data
        )
        binding.bind_output(
            net.output_name, "cpu", 0, self._out_dtype, target.shape, target.ctypes.data
        )
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # its errors have no root of their own
            raise failed_error(self._spec, error) from error
        if target is not scores:
            fill_scores(scores, target, net)


def import_onnxruntime() -> Any:  # noqa: ANN401
    """The onnxruntime module, with its telemetry off.

    Recent wheels keep a database in the user's cache folder and send it away. The variable stops
    that when it is set before the first import; the call silences most of it where it comes later.

    Raises:
        BackendUnavailableError: the package is missing or broken.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {BACKEND}: onnxruntime cannot be imported ({error}), expected a working "
            'package; pip install "kits-trt[cpu]"'
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def session_options(library: Any, threads: int) -> Any:  # noqa: ANN401
    """The session's options.

    All optimisations are on: among them constants are folded, so weights that are stored in half
    precision and cast are widened once, at loading (a test looks for casts that are left). Threads
    do not spin while they wait: in a process with several nets that keeps the waiting ones from
    slowing the one that works (by about a fifth on two cores), for 1-2 % on one net alone.
    """
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def session_ports(nodes: Any) -> tuple[Port, ...]:  # noqa: ANN401
    """A session's inputs or outputs."""
    return tuple(
        Port(
            name=node.name,
            dtype=_DTYPES.get(node.type, node.type),
            shape=tuple(axis if isinstance(axis, int) else None for axis in node.shape),
        )
        for node in nodes
    )


def port_dtype(nodes: Any, name: str) -> "np.dtype[Any]":  # noqa: ANN401
    """The dtype of the tensor of that name."""
    return np.dtype(next(port.dtype for port in session_ports(nodes) if port.name == name))
