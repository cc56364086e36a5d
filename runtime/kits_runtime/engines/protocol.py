"""What an engine is: one net on one device, behind three small values and a protocol.

Every engine keeps the same promises, whatever library runs the net:

- ``run`` takes any number of windows. It makes calls of ``spec.batch`` windows and fills up the
  last one where its library needs that.
- The scores that ``run`` returns are the caller's own: a new array that no later run touches.
- ``run`` may be called from several threads. ``spec.at_once`` of them run beside each other, the
  others take turns, and each gets its own answer.
- Leaving the ``with`` block, or ``close``, gives the session's memory back; a later ``run`` raises
  ``EngineError``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from kits_runtime.manifest.schema import Net

Array: TypeAlias = npt.NDArray[np.float32]
Model: TypeAlias = Path | bytes
Precision: TypeAlias = Literal["auto", "fp32", "bf16", "fp16"]

PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSpec:
    """The contract of one net: its tensors' names, its channels and the shape of one window.

    ``size_vox`` is the spatial shape of a window, (y, x) or (z, y, x).
    """

    name: str
    input_name: str
    output_name: str
    in_channels: int
    out_channels: int
    size_vox: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the numbers, so that an engine can trust them."""
        if len(self.size_vox) not in (2, 3):
            raise ValueError(f"net {self.name}: size_vox is {self.size_vox}, expected 2 or 3 axes")
        numbers = (self.in_channels, self.out_channels, *self.size_vox)
        if min(numbers) < 1:
            raise ValueError(
                f"net {self.name}: channels and size_vox are {numbers}, expected all at least 1"
            )

    def input_shape(self, windows: int) -> tuple[int, ...]:
        """The shape of ``windows`` patches: (window, channel, *size)."""
        return (windows, self.in_channels, *self.size_vox)

    def output_shape(self, windows: int) -> tuple[int, ...]:
        """The shape of the scores of ``windows`` patches: (window, class, *size)."""
        return (windows, self.out_channels, *self.size_vox)


def net_spec_from_manifest(name: str, net: Net) -> NetSpec:
    """The contract of a bundle's net, under the name that the manifest gives it."""
    return NetSpec(
        name=name,
        input_name=net.input_name,
        output_name=net.output_name,
        in_channels=net.in_channels,
        out_channels=net.out_channels,
        size_vox=net.size_vox,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an open engine really is; a run record copies it.

    ``precision`` is that of the arithmetic, never 'auto'; ``batch`` is the number of windows per
    call; ``at_once`` calls from as many threads run beside each other; ``versions`` are (package,
    version) pairs; ``notes`` say what a reader of the record should know of this engine.
    """

    net: NetSpec
    backend: str
    precision: str
    batch: int
    threads: int
    at_once: int = 1
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What a caller may ask of an engine.

    ``batch`` windows a call, unless the net file fixes its batch axis: then the file's number holds
    and the engine's spec says so. ``at_once`` calls share the threads, where the backend can; else
    calls take turns, and the spec says 1. ``threads`` None is one per physical core that this
    process may use. ``precision`` 'auto' is bf16 where backend and processor have it, fp32
    otherwise. ``cache_dir`` keeps compiled nets between runs where the backend can (openvino); only
    this user may be able to write to it, because its files are loaded unchecked. ``engine_cache``
    is the same for engines that are built (trt, trt-rtx); without it they are built anew.
    ``device`` is the number of the GPU for backends that use one.
    """

    batch: int = 1
    at_once: int = 1
    threads: int | None = None
    precision: Precision = "auto"
    cache_dir: Path | None = None
    engine_cache: Path | None = None
    device: int = 0

    def __post_init__(self) -> None:
        """Check the values where the caller can see them."""
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}, expected at least 1")
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}, expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}, expected at least 1, or None")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )


class Engine(Protocol):
    """One net, ready to run; the module's docstring says what every engine promises."""

    @property
    def spec(self) -> EngineSpec:
        """What this engine is; still answers after closing."""
        ...

    def run(self, patches: Array) -> Array:
        """The scores (n, class, *size) of ``patches`` (n, channel, *size), both float32.

        Raises:
            ValueError: dtype, rank, channels or spatial shape are not those of the spec.
            EngineError: the engine is closed, failed, or gave scores that are not finite.
        """
        ...

    def close(self) -> None:
        """Give the session's memory back; closing twice does nothing."""
        ...

    def __enter__(self) -> "Engine":
        """The engine itself."""
        ...

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        ...
