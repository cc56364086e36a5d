"""Nets on an NVIDIA GPU with ONNX Runtime, its tensors bound to memory on the device."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kits_runtime.engines import ort_cpu
from kits_runtime.engines.border import failed_error, one_line
from kits_runtime.engines.cuda_memory import CudaDevice, Device
from kits_runtime.engines.fit import checked_input, checked_output, fixed_batch, load_error
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.protocol import EngineOptions, EngineSpec, Model, NetSpec
from kits_runtime.errors import BackendUnavailableError, EngineError

BACKEND = "ort-cuda"
PROVIDER = "CUDAExecutionProvider"


def open_ort_cuda(model: Model, net: NetSpec, options: EngineOptions) -> GpuEngine:
    """``model`` in a session on a GPU.

    The arithmetic is that of the file: 'auto' takes any, fp16 stands for a file that is typed so.
    TF32 is off.

    Raises:
        BackendUnavailableError: onnxruntime-gpu is missing or finds no CUDA.
        EngineIncompatibleError: the file cannot be loaded, or does not fit ``net``.
    """
    if options.precision == "bf16":
        raise BackendUnavailableError(
            f"backend {BACKEND}: precision bf16 was asked for, it computes in fp32 and fp16; "
            "ask for one of these"
        )
    device = CudaDevice(options.device)
    try:
        provider = (
            PROVIDER,
            {
                "device_id": str(device.index),
                "user_compute_stream": str(device.stream),
                "use_tf32": "0",
            },
        )
        return open_session(model, net, options, device=device, providers=[provider])
    except BaseException:
        device.close()
        raise


def open_session(
    model: Model,
    net: NetSpec,
    options: EngineOptions,
    *,
    device: Device,
    providers: Sequence[tuple[str, dict[str, str]]],
) -> GpuEngine:
    """``model`` in a session of these providers, with its tensors in the device's memory.

    Raises:
        BackendUnavailableError: the session left the first provider out.
        EngineIncompatibleError: the file cannot be loaded, or does not fit ``net``.
    """
    library = ort_cpu.import_onnxruntime()
    source = model if isinstance(model, bytes) else str(model)
    settings = ort_cpu.session_options(library, options.threads or 1)
    try:
        session = library.InferenceSession(source, settings, providers=list(providers))
    except Exception as error:  # its errors have no root of their own
        raise load_error(net, model, "onnxruntime", error) from error
    session.disable_fallback()
    require_provider(session.get_providers(), providers[0][0])
    inputs = ort_cpu.session_ports(session.get_inputs())
    outputs = ort_cpu.session_ports(session.get_outputs())
    file_batch = fixed_batch(checked_input(net, inputs))
    checked_output(net, outputs)
    batch = file_batch or options.batch
    spec = EngineSpec(
        net=net,
        backend=BACKEND,
        precision="fp32" if options.precision == "auto" else options.precision,
        batch=batch,
        threads=options.threads or 1,
        versions=(("onnxruntime", library.__version__),),
    )
    batches = (batch,) if file_batch else tuple(range(batch, 0, -1))
    run_options = library.RunOptions()
    # Whoever reads scores waits for the stream; a wait of the library's own cannot be recorded.
    run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    compute = BoundSession(session, spec, device=device, batches=batches, run_options=run_options)
    half = any(dtype == np.float16 for dtype in compute.dtypes)
    if half and options.precision == "auto":
        spec = replace(spec, precision="fp16")
    return GpuEngine(spec, device, compute)


def require_provider(found: Sequence[str], wanted: str) -> None:
    """Check that a session kept the provider it was asked to use; it only warns when it does not.

    Raises:
        BackendUnavailableError: it did not.
    """
    if wanted not in found:
        raise BackendUnavailableError(
            f"backend {BACKEND}: the session came up with {', '.join(found) or 'no provider'}, "
            f"expected {wanted}; install the CUDA and cuDNN libraries that this onnxruntime-gpu "
            "was built for, or choose another backend"
        )


class BoundSession:
    """A session whose tensors are bound, and its work recorded, once for each number of windows.

    The session works on the device's own stream, so that its first run of a size can be followed by
    one that is recorded. What cannot be recorded, or gives other scores then, runs step by step.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401
        spec: EngineSpec,
        *,
        device: Device,
        batches: tuple[int, ...],
        run_options: Any,  # noqa: ANN401
    ) -> None:
        self.batches = batches
        self.notes: tuple[str, ...] = ()
        self.dtypes = (
            ort_cpu.port_dtype(session.get_inputs(), spec.net.input_name),
            ort_cpu.port_dtype(session.get_outputs(), spec.net.output_name),
        )
        self._session = session
        self._spec = spec
        self._device = device
        self._run_options = run_options
        self._bindings: dict[int, Any] = {}
        self._graphs: dict[int, int] = {}
        self._places = (0, 0)

    def bind(self, patches: int, scores: int) -> None:
        """Get ready to read and write at these addresses."""
        self._places = (patches, scores)
        self._bindings.clear()
        self._graphs.clear()

    def queue(self, windows: int) -> None:
        """Compute; the session works on the device's own stream."""
        if windows in self._graphs:
            self._device.launch(self._graphs[windows])
            return
        is_first = windows not in self._bindings
        if is_first:
            self._bindings[windows] = self._bound(windows)
        self._run(windows)
        if is_first:
            self._record(windows)

    def close(self) -> None:
        """Release the session."""
        self._bindings.clear()
        self._session = None

    def _run(self, windows: int) -> None:
        try:
            self._session.run_with_iobinding(self._bindings[windows], self._run_options)
        except Exception as error:  # its errors have no root of their own
            raise failed_error(self._spec, error) from error

    def _record(self, windows: int) -> None:
        """Records a run that was made once; keeps the graph if it gives the same scores."""
        expected = self._scores(windows)
        try:
            graph = self._device.recorded(partial(self._run, windows))
            self._device.launch(graph)
            self._require_same(self._scores(windows), expected)
            self._graphs[windows] = graph
        except EngineError as error:
            self.notes += (
                f"net {self._spec.net.name}: batch {windows} runs without a CUDA graph "
                f"({one_line(error)})",
            )
            with suppress(EngineError):  # the library may tell of the failed recording once more
                self._run(windows)
            self._run(windows)

    def _scores(self, windows: int) -> "np.ndarray[Any, np.dtype[Any]]":
        scores = np.empty(self._spec.net.output_shape(windows), self.dtypes[1])
        self._device.download(scores, self._places[1])
        self._device.wait()
        return scores

    def _require_same(self, found: Any, expected: Any) -> None:  # noqa: ANN401
        """Other kernels or another order of sums may change the last bits, never a hundredth."""
        most = float(np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0))
        if not np.allclose(found, expected, rtol=0, atol=0.01 * most, equal_nan=True):
            raise EngineError("the recorded run gave other scores")

    def _bound(self, windows: int) -> Any:  # noqa: ANN401
        net, where = self._spec.net, (self._device.name, self._device.index)
        binding = self._session.io_binding()
        binding.bind_input(
            net.input_name, *where, self.dtypes[0], net.input_shape(windows), self._places[0]
        )
        binding.bind_output(
            net.output_name, *where, self.dtypes[1], net.output_shape(windows), self._places[1]
        )
        return binding
