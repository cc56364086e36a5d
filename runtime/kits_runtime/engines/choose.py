"""Which backend runs the nets, and why."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TypeAlias

from kits_runtime.engines.openvino_cpu import OpenVinoEngine
from kits_runtime.engines.ort_cpu import OrtCpuEngine
from kits_runtime.engines.protocol import Engine, EngineOptions, Model, NetSpec
from kits_runtime.errors import BackendUnavailableError

Opener: TypeAlias = Callable[[Model, NetSpec, EngineOptions], Engine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One row of the table: what to install, what keeps it from running here, how it opens a net.

    ``why_not`` returns None where the backend can run. It looks without importing the library.
    ``open`` is None for a backend that this version does not have yet.
    """

    name: str
    extra: str
    why_not: Callable[[], str | None]
    open: Opener | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The backend to use, why, and which better ones were passed over: (name, why) pairs."""

    backend: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


def package_missing(package: str) -> str | None:
    """Why ``package`` cannot be imported, None if it can; looks without importing it."""
    found = importlib.util.find_spec(package)
    # A folder that an uninstall left behind is found too, but has no file to import.
    if found is None or found.origin is None:
        return f"the package {package} is not installed"
    return None


def _not_yet() -> str:
    return "not built into this version yet"


# In the order of preference: OpenVINO with bf16 takes a third to a half of ORT's time.
BACKENDS: tuple[Backend, ...] = (
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
    Backend(name="ort-cuda", extra="gpu", why_not=_not_yet),
    Backend(name="trt", extra="trt", why_not=_not_yet),
    Backend(name="trt-rtx", extra="trt-rtx", why_not=_not_yet),
)


def choose_backend(name: str = "auto") -> Choice:
    """The backend called ``name``, or with 'auto' the first of the table that can run here.

    Raises:
        ValueError: no backend has that name.
        BackendUnavailableError: it cannot run here, or with 'auto' none can.
    """
    if name == "auto":
        return _first_that_runs()
    row = _row(name)
    why = row.why_not()
    if why is not None:
        raise BackendUnavailableError(
            f"backend {name}: {why}, expected one that can run here; {_remedy(row)}"
        )
    return Choice(backend=name, reason="asked for by name")


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
    opener = _row(choice.backend).open
    if opener is None:
        raise BackendUnavailableError(
            f"backend {choice.backend}: {_not_yet()}, expected one that can run here; "
            f"{_remedy(_row(choice.backend))}"
        )
    return opener(model, net, options or EngineOptions())


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


def _first_that_runs() -> Choice:
    rejected: list[tuple[str, str]] = []
    for row in BACKENDS:
        why = row.why_not()
        if why is None:
            reason = "the first in the order of preference that can run here"
            return Choice(backend=row.name, reason=reason, rejected=tuple(rejected))
        rejected.append((row.name, why))
    found = ", ".join(f"{name}: {why}" for name, why in rejected)
    raise BackendUnavailableError(
        f"backend auto: none can run here ({found}), expected at least one; {_remedy(BACKENDS[0])}"
    )


def _row(name: str) -> Backend:
    for row in BACKENDS:
        if row.name == name:
            return row
    allowed = ", ".join(("auto", *(row.name for row in BACKENDS)))
    raise ValueError(f"backend is {name!r}, expected one of {allowed}")


def _remedy(row: Backend) -> str:
    if row.open is None:
        built = ", ".join(other.name for other in BACKENDS if other.open is not None)
        return f"choose auto or one of {built}"
    return f'pip install "kits-trt[{row.extra}]"'
