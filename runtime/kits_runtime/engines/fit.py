"""Whether a net file's tensors fit the spec that the manifest gives."""

from collections.abc import Sequence
from dataclasses import dataclass

from kits_runtime.engines.border import one_line
from kits_runtime.engines.protocol import Model, NetSpec
from kits_runtime.errors import EngineIncompatibleError

FLOAT_DTYPES = ("float32", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One tensor of a net file. A free axis is None; ``shape`` () is a shape that is not known."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """The dtype and shape as messages show them."""
        axes = ", ".join("free" if length is None else str(length) for length in self.shape)
        return f"{self.dtype} ({axes})"


def checked_input(net: NetSpec, ports: Sequence[Port]) -> Port:
    """The net's one input, once its dtype and shape fit.

    Raises:
        EngineIncompatibleError: missing, not alone, or of another dtype or shape.
    """
    port = _named(net, net.input_name, ports)
    if len(ports) != 1:
        raise EngineIncompatibleError(
            f"net {net.name}: the file has {len(ports)} inputs ({_names(ports)}), expected only "
            f"{net.input_name!r}; export a net with one input"
        )
    _check(net, port, net.input_shape(1)[1:])
    return port


def checked_output(net: NetSpec, ports: Sequence[Port]) -> Port:
    """The net's output of scores, once its dtype and shape fit; other outputs are ignored.

    Raises:
        EngineIncompatibleError: missing, or of another dtype or shape.
    """
    port = _named(net, net.output_name, ports)
    _check(net, port, net.output_shape(1)[1:])
    return port


def fixed_batch(port: Port) -> int | None:
    """The number of windows that the file insists on, None where its batch axis is free."""
    return port.shape[0] if port.shape else None


def load_error(net: NetSpec, model: Model, library: str, error: Exception) -> Exception:
    """What to raise when a library cannot load a net file."""
    source = f"{len(model)} bytes" if isinstance(model, bytes) else str(model)
    return EngineIncompatibleError(
        f"net {net.name}: {library} cannot load {source} ({one_line(error)}), expected an ONNX net "
        "of opset 17 with windows of the manifest's size; export the bundle again"
    )


def _named(net: NetSpec, name: str, ports: Sequence[Port]) -> Port:
    for port in ports:
        if port.name == name:
            return port
    raise EngineIncompatibleError(
        f"net {net.name}: the file has no tensor {name!r} but {_names(ports)}, expected the names "
        "of the manifest; export the bundle again"
    )


def _check(net: NetSpec, port: Port, expected: tuple[int, ...]) -> None:
    known = port.shape[1:]
    fits = not port.shape or (
        len(known) == len(expected)
        and all(got in (None, want) for got, want in zip(known, expected, strict=True))
    )
    if fits and port.dtype in FLOAT_DTYPES:
        return
    axes = ", ".join(str(length) for length in expected)
    raise EngineIncompatibleError(
        f"net {net.name}: tensor {port.name!r} is {port}, expected {' or '.join(FLOAT_DTYPES)} "
        f"(n, {axes}); the manifest and the net file disagree, export the bundle again"
    )


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(repr(port.name) for port in ports) or "none"
