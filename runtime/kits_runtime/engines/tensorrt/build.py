"""From the bytes of an ONNX file to a built engine, with any of the libraries.

An engine built ahead of time, for named compute capabilities, needs no GPU; any other build does,
because kernels are timed on it.
"""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kits_runtime.engines.cuda_driver import visible_gpus
from kits_runtime.engines.fit import Port, checked_input, checked_output, fixed_batch
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt.half_share import HalfShare, half_share
from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.engines.tensorrt.listening import Heard, Progress, listening, monitor
from kits_runtime.engines.tensorrt.onnx_bytes import opset_of, widened
from kits_runtime.engines.tensorrt.options import BuildOptions, smaller_plans
from kits_runtime.engines.tensorrt.settings import configured
from kits_runtime.engines.tensorrt.timing_cache import keep_timings, load_timings
from kits_runtime.errors import (
    BackendUnavailableError,
    BundleError,
    EngineError,
    EngineIncompatibleError,
    OutOfMemoryError,
)

logger = logging.getLogger(__name__)

_DTYPES = {"FLOAT": "float32", "HALF": "float16"}
# What the libraries say when the GPU is full, and when the limit that was set is too tight.
_NO_ROOM = ("out of memory", "outofmemory", "insufficient memory")
_NO_WORKSPACE = ("within workspace limit", "insufficient workspace")
_MOST_SAID = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """An engine and how it came about.

    ``batches`` has the batch of each profile, the main one first. ``plan`` is what it was built
    with: the last of ``plans_tried``, which has more than one where memory was short.
    """

    data: bytes
    batches: tuple[int, ...]
    half: HalfShare
    plan: BuildOptions
    plans_tried: tuple[str, ...]
    seconds: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parsed:
    """A network with what must live as long as it does: the parser holds the weights."""

    builder: Any
    network: Any
    parser: Any
    half: HalfShare
    file_batch: int | None


def build_engine(
    onnx: bytes,
    net: NetSpec,
    *,
    library: Library,
    options: BuildOptions,
    progress: Progress | None = None,
) -> BuiltEngine:
    """An engine for ``net`` from the bytes of its file.

    Weights that are stored as half for their size are widened first. Where memory is short, smaller
    plans are tried. An interrupt, or an error of ``progress``, ends the build and is raised again
    (on 8.6 only when the build is done: it has no way to stop one).

    Raises:
        BackendUnavailableError: no GPU, or a compute capability that the library cannot build for.
        BundleError: the parser refuses the file; the message names node and operator.
        EngineIncompatibleError: the file does not fit ``net``, or has no half where fp16 was asked.
        OutOfMemoryError: no plan fits.
        EngineError: the build failed in another way.
    """
    require_target(library, options)
    started = time.perf_counter()
    content = widened(onnx)
    _check_opset(library, net, content)
    with listening(library) as (voice, heard):
        parsed = _parsed(library, net, content, (voice, heard))
        _check_half(net, parsed.half, options)
        data, tried = _built(library, net, parsed, options, (heard, progress))
    plan = tried[-1]
    return BuiltEngine(
        data=data,
        batches=plan.batches if parsed.file_batch is None else (parsed.file_batch,),
        half=parsed.half,
        plan=plan,
        plans_tried=tuple(each.shown() for each in tried),
        seconds=time.perf_counter() - started,
        warnings=tuple(heard.warnings),
    )


def require_target(library: Library, options: BuildOptions) -> None:
    """Check that the library can build for what the options name.

    Raises:
        BackendUnavailableError: it cannot.
    """
    where = f"backend {library.flavour}"
    if options.version_compatible and library.ahead_of_time:
        raise BackendUnavailableError(
            f"{where}: found a wish for a version-compatible engine, expected none, because "
            f"{library.version} comes without the lean runtime; build without it"
        )
    if options.compute_capabilities:
        known = [name for name in library.members("ComputeCapability") if name.startswith("SM")]
        unknown = [name for name in options.compute_capabilities if name not in known]
        if not unknown:
            return
        able = ", ".join(known) or "the GPU of this machine alone"
        raise BackendUnavailableError(
            f"{where}: found compute capability {', '.join(unknown)}, "
            f"expected one that {library.version} builds for ({able}); choose one of them"
        )
    gpus = visible_gpus()
    if gpus.first is None:
        raise BackendUnavailableError(
            f"{where}: found no GPU to build for ({gpus.why_none}), expected one in this machine; "
            "build there, or build for trt-rtx with the compute capability named, such as SM86"
        )


def _check_opset(library: Library, net: NetSpec, onnx: bytes) -> None:
    newest, found = library.newest_opset, opset_of(onnx)
    if newest is not None and found is not None and found > newest:
        raise EngineIncompatibleError(
            f"net {net.name}: found opset {found}, expected at most {newest} for tensorrt "
            f"{library.version}; export the bundle again"
        )


def _parsed(library: Library, net: NetSpec, onnx: bytes, ears: tuple[Any, Heard]) -> _Parsed:
    voice, heard = ears
    try:
        builder = library.module.Builder(voice)
    except TypeError as error:  # the binding's way to say that it got nothing
        raise BackendUnavailableError(
            f"backend {library.flavour}: found no builder ({_said(heard.errors, error)}), expected "
            "one; look at the driver with nvidia-smi"
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
    return _Parsed(builder=builder, network=network, parser=parser, half=half, file_batch=batch)


def _fitting_batch(net: NetSpec, network: Any) -> int | None:  # noqa: ANN401
    """The batch that the file insists on, once its tensors are those of the spec."""
    inputs = [_port(network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [_port(network.get_output(index)) for index in range(network.num_outputs)]
    checked_output(net, outputs)
    return fixed_batch(checked_input(net, inputs))


def _parse_error(net: NetSpec, parser: Any, heard: Heard) -> BundleError:  # noqa: ANN401
    if not parser.num_errors:
        found = f"the file: {_said(heard.errors, 'no reason given')}"
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


def _check_half(net: NetSpec, half: HalfShare, options: BuildOptions) -> None:
    if options.precision != "fp16" or half.share >= options.least_half_share:
        return
    wide = ", ".join(name for name, _ in half.wide_layers[:3]) or "nothing that could be half"
    raise EngineIncompatibleError(
        f"net {net.name}: found {half.share:.1%} of the operations in half precision, expected at "
        f"least {options.least_half_share:.0%} (largest in float32: {wide}); build from the "
        "bundle's fp16 file, or ask for fp32"
    )


def _built(
    library: Library,
    net: NetSpec,
    parsed: _Parsed,
    options: BuildOptions,
    watchers: tuple[Heard, Progress | None],
) -> tuple[bytes, list[BuildOptions]]:
    heard, progress = watchers
    tried: list[BuildOptions] = []
    for plan in smaller_plans(options):
        tried.append(plan)
        before = len(heard.errors)
        config = configured(library, parsed.builder, parsed.network, plan)
        timings = load_timings(library, config, plan.timing_cache)
        watcher = monitor(library, heard, progress)
        if watcher is not None:
            config.progress_monitor = watcher
        serialized = parsed.builder.build_serialized_network(parsed.network, config)
        heard.raise_again()
        if serialized is not None:
            keep_timings(config, timings, plan.timing_cache)
            return bytes(serialized), tried
        errors = heard.errors[before:]
        if plan is options and _speak_of(_NO_WORKSPACE, errors):
            raise OutOfMemoryError(
                f"net {net.name} on {library.flavour}: found no kernel for {plan.shown()}, "
                "expected a workspace with room for one; allow more of it"
            )
        if not _speak_of(_NO_ROOM + _NO_WORKSPACE, errors):
            raise EngineError(
                f"net {net.name} on {library.flavour}: the build failed with "
                f"'{_said(errors, 'no reason given')}', expected an engine; "
                "build with --debug, or choose another backend"
            )
        logger.warning("net %s: out of memory with %s", net.name, plan.shown())
    raise OutOfMemoryError(
        f"net {net.name} on {library.flavour}: found too little GPU memory for "
        f"{len(tried)} plans, the last with {tried[-1].shown()}; expected room for one of them; "
        "end other programs on the GPU, or build on one with more memory"
    )


def _speak_of(phrases: Iterable[str], errors: Iterable[str]) -> bool:
    return any(phrase in error.lower() for error in errors for phrase in phrases)


def _said(errors: list[str], otherwise: object) -> str:
    """The last error that the library told, which is the most general one, on one line."""
    return (errors[-1] if errors else str(otherwise))[:_MOST_SAID]
