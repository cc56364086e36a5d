"""Which backend runs the nets, and why."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Literal, TypeAlias

from kits_runtime.engines.cuda_driver import visible_gpus
from kits_runtime.engines.openvino_cpu import OpenVinoEngine
from kits_runtime.engines.ort_cpu import OrtCpuEngine
from kits_runtime.engines.protocol import Engine, EngineOptions, Model, NetSpec
from kits_runtime.errors import BackendUnavailableError

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
Opener: TypeAlias = Callable[[Model, NetSpec, EngineOptions], Engine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One row of the table: what to install, what keeps it from running here, how it opens a net.

    ``why_not`` returns None where the backend can run. It looks without importing the library.
    """

    name: str
    extra: str
    why_not: Callable[[], str | None]
    open: Opener
    on_gpu: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backend to use, why, and which better ones were passed over: (name, why) pairs."""

    backend: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()
    on_gpu: bool = False


def package_missing(package: str) -> str | None:
    """Why ``package`` cannot be imported, None if it can; looks without importing it."""
    found = importlib.util.find_spec(package)
    # A folder that an uninstall left behind is found too, but has no file to import.
    if found is None or found.origin is None:
        return f"the package {package} is not installed"
    return None


def no_tensorrt() -> str | None:
    """Why tensorrt cannot run here, None if it can."""
    why = package_missing("tensorrt")
    if why is not None:
        return why
    # 10.5 left everything before Turing behind.
    old = _version("tensorrt").startswith("8.")
    return no_gpu((6, 0) if old else (7, 5))


def no_tensorrt_rtx() -> str | None:
    """Why tensorrt_rtx cannot run here, None if it can."""
    why = package_missing("tensorrt_rtx")
    if why is not None and package_missing("tensorrt_rtx_bindings") is not None:
        return why
    return no_gpu((7, 5))


def no_ort_cuda() -> str | None:
    """Why onnxruntime-gpu cannot run here, None if it can."""
    both = double_installs()
    if both:
        return (
            f"{' and '.join(both)} overwrite each other: uninstall both, then install the one "
            "that is needed"
        )
    if not _version("onnxruntime-gpu"):
        return "the package onnxruntime-gpu is not installed"
    return package_missing("onnxruntime") or no_gpu((5, 2))


def no_gpu(least: tuple[int, int]) -> str | None:
    """Why no GPU of at least this compute capability is here, None if the first one is."""
    gpus = visible_gpus()
    if gpus.first is None:
        return gpus.why_none or "no GPU"
    if gpus.first.compute_capability < least:
        major, minor = least
        return f"{gpus.first.name} is {gpus.first.sm}, older than SM{major}{minor}"
    return None


# What opens GPUs is imported when it is used: it would add a third to the time of every start.
def _open_tensorrt(
    flavour: Literal["trt", "trt-rtx"], model: Model, net: NetSpec, options: EngineOptions
) -> Engine:
    from kits_runtime.engines.tensorrt.opening import open_tensorrt

    return open_tensorrt(flavour, model, net, options)


def _open_ort_cuda(model: Model, net: NetSpec, options: EngineOptions) -> Engine:
    from kits_runtime.engines.ort_cuda import open_ort_cuda

    return open_ort_cuda(model, net, options)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


# In the order of preference. GPUs come first; on processors OpenVINO with bf16 takes a third to a
# half of ONNX Runtime's time.
BACKENDS: tuple[Backend, ...] = (
    Backend(
        name="trt",
        extra="trt",
        why_not=no_tensorrt,
        open=partial(_open_tensorrt, "trt"),
        on_gpu=True,
    ),
    Backend(
        name="trt-rtx",
        extra="trt-rtx",
        why_not=no_tensorrt_rtx,
        open=partial(_open_tensorrt, "trt-rtx"),
        on_gpu=True,
    ),
    Backend(
        name="ort-cuda",
        extra="gpu",
        why_not=no_ort_cuda,
        open=_open_ort_cuda,
        on_gpu=True,
    ),
    Backend(
        name="openvino",
        extra="openvino",
        why_not=partial(package_missing, "openvino"),
        open=OpenVinoEngine.open,
    ),
    Backend(
        name="ort-cpu",
        extra="cpu",
        why_not=partial(package_missing, "onnxruntime"),
        open=OrtCpuEngine.open,
    ),
)


def choose_backend(name: str = "auto", *, device: Device = "auto") -> Choice:
    """The backend called ``name``, or with 'auto' the first of the table that can run here.

    'auto' on a machine without a GPU passes over the backends that need one without a word, unless
    ``device`` asks for one.

    Raises:
        ValueError: no backend has that name.
        BackendUnavailableError: it cannot run here, is for another device, or with 'auto' none can.
    """
    if name == "auto":
        return _first_that_runs(_candidates(device))
    row = _row(name)
    why = row.why_not()
    if why is None and device != "auto" and row.on_gpu != (device == "cuda"):
        why = f"does not run on {device}"
    if why is not None:
        raise BackendUnavailableError(
            f"backend {name}: {why}, expected one that can run here; {_remedy(row)}"
        )
    return Choice(backend=name, reason="asked for by name", on_gpu=row.on_gpu)


def open_engine(
    model: Model,
    net: NetSpec,
    *,
    backend: Choice | str = "auto",
    options: EngineOptions | None = None,
) -> Engine:
    """``model``, a path or the bytes of an ONNX file, opened by the chosen backend.

    Raises:
        ValueError: no backend has that name.
        BackendUnavailableError: the backend, or the precision asked for, cannot run here.
        EngineIncompatibleError: the file cannot be loaded, or does not fit ``net``.
    """
    choice = choose_backend(backend) if isinstance(backend, str) else backend
    return _row(choice.backend).open(model, net, options or EngineOptions())


def double_installs() -> tuple[str, ...]:
    """The packages, with versions, that overwrite each other here; empty if all is well.

    onnxruntime and onnxruntime-gpu unpack into the same folder, so with both installed the last one
    wins, and removing either breaks the other.
    """
    found = []
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return tuple(found) if len(found) > 1 else ()


def _candidates(device: Device) -> tuple[Backend, ...]:
    if device == "cuda":
        return tuple(row for row in BACKENDS if row.on_gpu)
    if device == "auto" and visible_gpus().devices:
        return BACKENDS
    return tuple(row for row in BACKENDS if not row.on_gpu)


def _first_that_runs(rows: tuple[Backend, ...]) -> Choice:
    rejected: list[tuple[str, str]] = []
    for row in rows:
        why = row.why_not()
        if why is None:
            reason = "the first in the order of preference that can run here"
            return Choice(
                backend=row.name, reason=reason, rejected=tuple(rejected), on_gpu=row.on_gpu
            )
        rejected.append((row.name, why))
    found = ", ".join(f"{name}: {why}" for name, why in rejected)
    raise BackendUnavailableError(
        f"backend auto: none can run here ({found}), expected at least one; {_remedy(rows[0])}"
    )


def _row(name: str) -> Backend:
    for row in BACKENDS:
        if row.name == name:
            return row
    allowed = ", ".join(("auto", *(row.name for row in BACKENDS)))
    raise ValueError(f"backend is {name!r}, expected one of {allowed}")


def _remedy(row: Backend) -> str:
    return f'pip install "kits-trt[{row.extra}]"'
