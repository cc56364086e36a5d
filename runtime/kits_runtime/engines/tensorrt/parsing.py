"""From the bytes of an ONNX file to the library's network, and what a parser's refusal means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kits_runtime.engines.fit import Port, checked_input, checked_output, fixed_batch
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt.half_share import HalfShare, half_share
from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.engines.tensorrt.listening import Heard
from kits_runtime.engines.tensorrt.onnx_bytes import opset_of
from kits_runtime.errors import BackendUnavailableError, BundleError, EngineIncompatibleError

_DTYPES = {"FLOAT": "float32", "HALF": "float16"}
_MOST_SAID = 300


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParsedNet:
    """A network with what must live as long as it does: the parser holds the weights."""

    builder: Any
    network: Any
    parser: Any
    half: HalfShare
    file_batch: int | None


def parsed_net(library: Library, net: NetSpec, onnx: bytes, ears: tuple[Any, Heard]) -> ParsedNet:
    """The network of a file, once it fits ``net``; ``ears`` are the logger and what it hears.

    Raises:
        BackendUnavailableError: the library gives no builder.
        BundleError: the parser refuses the file; the message names node and operator.
        EngineIncompatibleError: the file's opset or tensors do not fit.
    """
    _check_opset(library, net, onnx)
    voice, heard = ears
    try:
        builder = library.module.Builder(voice)
    except TypeError as error:  # the binding's way to say that it got nothing
        reason = said(heard.errors or heard.warnings, error)
        raise BackendUnavailableError(
            f"backend {library.flavour}: found no builder ({reason}), expected one; "
            "look at the driver with nvidia-smi"
        ) from error
    network = builder.create_network(library.network_flags())
    parser = library.module.OnnxParser(network, voice)
    if not parser.parse(onnx):
        raise _parse_error(net, parser, heard)
    heard.raise_again()
    try:
        batch = _fitting_batch(net, network)
        half = half_share(library, network)
    except UnicodeDecodeError as error:
        raise BundleError(
            f"net {net.name}: found a name of bytes that are no text, expected names in UTF-8; "
            "export the bundle again"
        ) from error
    return ParsedNet(builder=builder, network=network, parser=parser, half=half, file_batch=batch)


def _fitting_batch(net: NetSpec, network: Any) -> int | None:  # noqa: ANN401
    """The batch that the file insists on, once its tensors are those of the spec."""
    inputs = [_port(network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [_port(network.get_output(index)) for index in range(network.num_outputs)]
    batch = fixed_batch(checked_input(net, inputs))
    checked_output(net, outputs)
    return batch


def _parse_error(net: NetSpec, parser: Any, heard: Heard) -> BundleError:  # noqa: ANN401
    if not parser.num_errors:
        found = f"the file: {said(heard.errors, 'no reason given')}"
    else:
        error = parser.get_error(0)
        # 8.6 knows the node's number only.
        name = _told(getattr(error, "node_name", str))
        operator = _told(getattr(error, "node_operator", str)) or "operator unknown"
        node = name or (f"number {error.node()}" if error.node() >= 0 else "")
        place = f"node {node} ({operator})" if node else "the file"
        found = f"{place}: {_told(error.desc)[:_MOST_SAID]}"
    return BundleError(
        f"net {net.name}: the TensorRT parser refuses {found}; expected an ONNX net of opset 17 "
        "with operators that it has; export the bundle again"
    )


def _told(text: Callable[[], str]) -> str:
    """One line of the parser's; it quotes the file, whose bytes need not be text."""
    try:
        return " ".join(text().split())
    except UnicodeDecodeError:
        return "(bytes that are no text)"


def _port(tensor: Any) -> Port:  # noqa: ANN401
    dtype = tensor.dtype.name
    shape = tuple(None if length < 0 else int(length) for length in tensor.shape)
    return Port(name=tensor.name, dtype=_DTYPES.get(dtype, dtype), shape=shape)


def said(errors: list[str], otherwise: object) -> str:
    """The last error that the library told, which is the most general one, on one line."""
    return (errors[-1] if errors else str(otherwise))[:_MOST_SAID]


def _check_opset(library: Library, net: NetSpec, onnx: bytes) -> None:
    newest, found = library.newest_opset, opset_of(onnx)
    if newest is not None and found is not None and found > newest:
        raise EngineIncompatibleError(
            f"net {net.name}: found opset {found}, expected at most {newest} for tensorrt "
            f"{library.version}; export the bundle again"
        )
