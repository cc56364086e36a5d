"""The engines that an export builds besides the bundle; they go to the engine cache."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from kits_export.export import Build
from kits_runtime.bundle import Bundle
from kits_runtime.engines.batches import gpu_windows_a_call
from kits_runtime.engines.cuda_driver import Gpu, visible_gpus
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import Built
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.engines.tensorrt import (
    BuildOptions,
    Library,
    build_engine,
    engine_key,
    open_library,
    require_target,
)
from kits_runtime.engines.tensorrt.library import Flavour
from kits_runtime.errors import BackendUnavailableError, UsageError
from kits_runtime.manifest.schema import Net

TARGETS = ("onnx", "trt", "trt-rtx")
_FLAVOURS: Mapping[str, Flavour] = {"trt": "trt", "trt-rtx": "trt-rtx"}
_CAPABILITY = re.compile(r"(?:sm)?_?([0-9]{1,2})\.?([0-9])", re.IGNORECASE)
_MIB = 1 << 20
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWishes:
    """How engines are to be built, and where they are kept.

    ``compute_capabilities`` such as 'SM86' need no GPU here, but a library that builds ahead of
    time; each gets an engine of its own, so that a machine finds the one of its GPU.
    """

    cache: Path
    precision: Literal["fp16", "fp32"] = "fp16"
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()


def targets_from_text(text: str) -> tuple[str, ...]:
    """The targets of a list with commas.

    Raises:
        ArgumentTypeError: one that nobody knows.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"found {unknown[0]!r}, expected some of {list(TARGETS)}")
    return names


def capabilities_from_text(text: str) -> tuple[str, ...]:
    """Compute capabilities as builders name them, from '86', '8.6' or 'SM86' with commas.

    Raises:
        ArgumentTypeError: one that is none.
    """
    found = []
    for part in text.split(","):
        match = _CAPABILITY.fullmatch(part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"found {part!r}, expected some such as 86,89")
        found.append(f"SM{match[1]}{match[2]}")
    return tuple(dict.fromkeys(found))


def builder_for(
    targets: Sequence[str], wishes: EngineWishes, *, tell: Tell = lambda _text: None
) -> Build | None:
    """What builds these targets from a bundle; None where the bundle is all.

    Raises:
        BackendUnavailableError: a target cannot be built here; said before any work.
        UsageError: compute capabilities without a target that takes them.
    """
    flavours = [_FLAVOURS[name] for name in targets if name != "onnx"]
    if wishes.compute_capabilities and "trt-rtx" not in flavours:
        raise UsageError(
            f"--compute-capability: found {', '.join(wishes.compute_capabilities)} without "
            "--targets trt-rtx, expected both; only that builder works ahead of time"
        )
    if not flavours:
        return None
    libraries = [_library(flavour, wishes) for flavour in flavours]

    def build(bundle: Bundle) -> None:
        for library in libraries:
            for name, net in bundle.manifest.nets.items():
                for plan in _plans(library, wishes, name, net):
                    _build_net(bundle, name, (library, plan), wishes, tell)

    return build


def _library(flavour: Flavour, wishes: EngineWishes) -> Library:
    """The library of a target, after asking whether it can build here what is wished."""
    ahead = flavour == "trt-rtx" and wishes.compute_capabilities
    gpus = visible_gpus()
    if gpus.first is None and not ahead:
        raise BackendUnavailableError(
            f"--targets {flavour}: found no GPU ({gpus.why_none}), expected one to build for. "
            "Here --targets onnx makes the bundle, and --targets trt-rtx with "
            "--compute-capability 86,89 builds engines ahead of time for the GPUs so named."
        )
    library = open_library(flavour)
    for plan in _plans(library, wishes, "", None):
        require_target(library, plan)
    return library


def _plans(
    library: Library, wishes: EngineWishes, name: str, net: Net | None
) -> list[BuildOptions]:
    """One plan for each engine of a net: one a compute capability, or one for the GPU here."""
    plan = BuildOptions(
        precision=wishes.precision,
        batch=1 if net is None else gpu_windows_a_call(net.size_vox),
        workspace_bytes=None if wishes.workspace_mib is None else wishes.workspace_mib * _MIB,
        version_compatible=wishes.version_compatible,
        timing_cache=wishes.timing_cache,
    )
    if library.flavour == "trt" or not wishes.compute_capabilities:
        return [plan]
    return [replace(plan, compute_capabilities=(each,)) for each in wishes.compute_capabilities]


def _build_net(
    bundle: Bundle,
    name: str,
    how: tuple[Library, BuildOptions],
    wishes: EngineWishes,
    tell: Tell,
) -> None:
    library, plan = how
    net = bundle.manifest.nets[name]
    spec = net_spec_from_manifest(name, net)
    gpu: Gpu | None = None if plan.compute_capabilities else visible_gpus().first
    sha256 = net.files[wishes.precision].sha256

    def built() -> Built:
        engine = build_engine(
            bundle.net_bytes(name, wishes.precision), spec, library=library, options=plan
        )
        return Built(
            data=engine.data,
            facts={
                "half_share": engine.half.share,
                "seconds": round(engine.seconds, 1),
                "plans_tried": list(engine.plans_tried),
                "batches": list(engine.batches),
                "plan": {key: str(value) for key, value in asdict(engine.plan).items()},
            },
        )

    EngineCache(folder=wishes.cache).get_or_build(
        engine_key(spec, sha256, library=library, options=plan, gpu=gpu), built, report=tell
    )
