"""From the bytes of an ONNX file to a built engine, with any of the libraries.

An engine built ahead of time, for named compute capabilities, needs no GPU; any other build does,
because kernels are timed on it.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from kits_runtime.engines.cuda_driver import visible_gpus
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt.half_share import HalfShare
from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.engines.tensorrt.listening import Heard, Progress, listening, monitor
from kits_runtime.engines.tensorrt.onnx_bytes import widened
from kits_runtime.engines.tensorrt.options import BuildOptions, smaller_plans
from kits_runtime.engines.tensorrt.parsing import ParsedNet, parsed_net, said
from kits_runtime.engines.tensorrt.settings import configured
from kits_runtime.engines.tensorrt.timing_cache import keep_timings, load_timings
from kits_runtime.errors import (
    BackendUnavailableError,
    EngineError,
    EngineIncompatibleError,
    OutOfMemoryError,
)

logger = logging.getLogger(__name__)

# What the libraries say when the GPU is full, and when the limit that was set is too tight.
_NO_ROOM = ("out of memory", "outofmemory", "insufficient memory")
_NO_WORKSPACE = ("within workspace limit", "insufficient workspace")


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

    def facts(self) -> dict[str, object]:
        """How it came about, as plain values for the record that is kept beside it."""
        return {
            "batches": list(self.batches),
            "half_share": round(self.half.share, 6),
            "flops_per_window": self.half.total_flops,
            "wide_layers": [name for name, _ in self.half.wide_layers],
            "plans_tried": list(self.plans_tried),
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


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
    with listening(library) as (voice, heard):
        parsed = parsed_net(library, net, content, (voice, heard))
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
    parsed: ParsedNet,
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
                f"'{said(errors, 'no reason given')}', expected an engine; "
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
