"""What an export starts from: a system, its trained nets, and what their training says of itself.

Either one checkpoint of a whole system, or plain state dicts of torch, one file a net. The latter
is the only place where anything is unpickled, and torch is told to take weights alone.
"""

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kits_export.half_range import LARGEST_HALF
from kits_runtime.errors import BundleError, UsageError
from kits_runtime.pipeline import file_sha256
from kits_trt.nets import SYSTEM_NETS, SegmentationNet
from kits_trt.systems import SYSTEMS, Preset, System
from kits_trt.train.checkpoint import (
    Facts,
    net_from_state,
    read_system_checkpoint,
    system_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedSystem:
    """Nets in evaluation mode by name, the facts of their training, and the hash of their file."""

    system: System
    nets: Mapping[str, SegmentationNet]
    facts: Facts
    sha256: str


def trained_from_checkpoint(path: Path) -> TrainedSystem:
    """The system that a checkpoint holds, with cysts as a class where it was trained with them.

    Raises:
        BundleError: the file is damaged or not a whole checkpoint of one of our systems.
    """
    nets, facts = read_system_checkpoint(path)
    system = system_of(facts, where=str(path))
    return TrainedSystem(system=system, nets=nets, facts=facts, sha256=file_sha256(path))


def trained_from_states(name: str, preset: str, files: Mapping[str, Path]) -> TrainedSystem:
    """A system from one plain state dict a net, ``.pt``, ``.pth`` or ``.safetensors``.

    Raises:
        UsageError: no such system or preset, or the files are not one for each net.
        BundleError: a file is damaged, or its tensors are not those of the net.
    """
    system = built_system(name, preset)
    if sorted(files) != sorted(system.nets):
        raise UsageError(
            f"--net: found {sorted(files) or 'none'}, expected one for each net of {name}: "
            f"{sorted(system.nets)}; give --net NAME=FILE for each"
        )
    nets = {
        net: net_from_state(_state(files[net]), (name, net, preset), where=f"{files[net]}: ")
        for net in SYSTEM_NETS[name]
    }
    return TrainedSystem(
        system=system, nets=nets, facts={}, sha256=hash_of_files(files[net] for net in nets)
    )


def built_system(name: str, preset: str) -> System:
    """A system in one of its presets.

    Raises:
        UsageError: no such system or preset.
    """
    presets: tuple[Preset, ...] = get_args(Preset)
    if name not in SYSTEMS:
        raise UsageError(f"--system: found {name!r}, expected one of {sorted(SYSTEMS)}")
    for known in presets:
        if known == preset:
            return SYSTEMS[name](known)
    raise UsageError(f"--preset: found {preset!r}, expected one of {list(presets)}")


def require_half_weights(trained: TrainedSystem, *, where: str) -> None:
    """Check that every weight is within half precision, before anything is exported.

    Running statistics are left out: they are divided by before the graph is written.

    Raises:
        BundleError: a weight is beyond; the message names net and tensor.
    """
    for name, net in trained.nets.items():
        for key, value in net.named_parameters():
            largest = float(value.detach().abs().max()) if value.numel() else 0.0
            if largest > LARGEST_HALF:
                raise BundleError(
                    f"{where}: {name}/{key}: found {largest:.6g}, expected at most "
                    f"{LARGEST_HALF:g} (the largest half); export with --precision fp32"
                )


def hash_of_files(paths: Iterable[Path]) -> str:
    """One SHA-256 for several files: that of their hashes in order; of one file, its own."""
    each = [file_sha256(path) for path in paths]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


def _state(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BundleError(
            f"{path}: found {reason}, expected a plain state dict of torch; save "
            "net.state_dict() alone"
        ) from error
    tensors = isinstance(loaded, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items()
    )
    if not tensors:
        raise BundleError(
            f"{path}: found {type(loaded).__name__} that holds more than tensors, expected a plain "
            "state dict; save net.state_dict() alone"
        )
    return dict(loaded)
