"""The engines that an export builds besides the bundle; they go to the engine cache."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kits_export.export import Build
from kits_runtime.errors import BackendUnavailableError

TARGETS = ("onnx", "trt", "trt-rtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWishes:
    """How engines are to be built; ``compute_capabilities`` such as '86' need no GPU here."""

    precision: Literal["fp16", "fp32"] = "fp16"
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()


def targets_from_text(text: str) -> tuple[str, ...]:
    """The targets of a list with commas.

    Raises:
        ArgumentTypeError: there is none, or one that nobody knows.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise argparse.ArgumentTypeError(f"found {unknown[0]!r}, expected some of {list(TARGETS)}")
    return names


def builder_for(targets: tuple[str, ...], wishes: EngineWishes) -> Build | None:
    """What builds these targets from a bundle; None where the bundle is all.

    Raises:
        BackendUnavailableError: a target cannot be built here; said before any work.
    """
    engines = [name for name in targets if name != "onnx"]
    if not engines:
        return None
    raise BackendUnavailableError(
        f"--targets {engines[0]}: this version builds no engines yet, expected onnx; the bundle "
        "runs with OpenVINO and ONNX Runtime"
    )
