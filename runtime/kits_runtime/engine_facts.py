"""What ``kits-info`` tells of kept engines: whether each would be used here, and if not, why."""

import datetime
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from kits_runtime.engines.cuda_driver import Gpu, Gpus, visible_gpus
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import (
    ENGINE_SUFFIX,
    EngineKey,
    Entry,
    read_entry,
    whole_engine,
)
from kits_runtime.engines.tensorrt.key import ANY
from kits_runtime.engines.tensorrt.library import Flavour, open_library
from kits_runtime.errors import BackendUnavailableError, BundleError

Facts = Mapping[str, object]
Differences = dict[str, tuple[str, str]]

_FLAVOURS: tuple[Flavour, ...] = ("trt", "trt-rtx")


def gpu_facts() -> Facts:
    """The GPUs that the driver shows, or why there are none."""
    gpus = visible_gpus()
    rows = [
        {
            "name": gpu.name,
            "compute_capability": gpu.sm,
            "memory_mib": gpu.memory_mib,
            "driver": gpu.driver,
            "cuda": gpu.cuda,
        }
        for gpu in gpus.devices
    ]
    return {"devices": rows, "why_none": gpus.why_none}


def cache_facts(
    folder: Path, *, nets: Collection[str] | None = None, verify: bool = False
) -> Facts:
    """The engines kept in a folder by name, the most recently used first; see ``engine_facts``.

    Only with ``verify`` are the files read and compared with their records.
    """
    entries = EngineCache(folder=folder).entries()
    gpus = visible_gpus()
    engines = {}
    for entry in entries:
        damage = _damage(entry) if verify else {}
        engines[entry.path.name] = _entry_facts(entry, _missed(entry, gpus, nets) | damage)
    return {
        "folder": str(folder),
        "bytes": sum(entry.size for entry in entries),
        "engines": engines,
    }


def engine_facts(path: Path, *, nets: Collection[str] | None = None) -> Facts:
    """One engine's record, and whether it would be used on this machine.

    ``nets`` are the SHA-256 of a bundle's net files; with them, the engine must serve one of these.

    Raises:
        BundleError: no such file, or no record beside it that can be read.
    """
    entry = read_entry(path)
    if entry is None:
        raise BundleError(
            f"{path}: found no engine with a readable record beside it, expected two files that "
            "this version keeps together; run the bundle, and the engine is built again"
        )
    missed = _missed(entry, visible_gpus(), nets) | _damage(entry)
    return {"engine": str(path), **_entry_facts(entry, missed)}


def holds_engines(folder: Path) -> bool:
    """Whether a folder is one of kept engines."""
    return folder.is_dir() and any(folder.glob("*" + ENGINE_SUFFIX))


def machine_differences(key: EngineKey, gpus: Gpus, version: Callable[[str], str]) -> Differences:
    """The fields in which a key misses this machine: (the engine's, what is here).

    Of several GPUs the one that misses least counts.
    """
    missed: Differences = {}
    here = version(key.flavour)
    if here != key.library:
        missed["library"] = (key.library, here)
    if not gpus.devices:
        return missed | {"compute_capability": (key.compute_capability, "no GPU")}
    return missed | min((_gpu_differences(key, gpu) for gpu in gpus.devices), key=len)


def version_here(flavour: str) -> str:
    """The version of a library as it calls itself, for which it is imported."""
    known = next((name for name in _FLAVOURS if name == flavour), None)
    if known is None:
        return "unknown to this version"
    try:
        return open_library(known).version
    except BackendUnavailableError:
        return "not installed"


def _gpu_differences(key: EngineKey, gpu: Gpu) -> Differences:
    missed: Differences = {}
    if gpu.sm not in key.compute_capability.split("+"):
        missed["compute_capability"] = (key.compute_capability, gpu.sm)
    if key.gpu not in (ANY, gpu.name):
        missed["gpu"] = (key.gpu, gpu.name)
    if key.driver not in (ANY, gpu.driver):
        missed["driver"] = (key.driver, gpu.driver)
    return missed


def _missed(entry: Entry, gpus: Gpus, nets: Collection[str] | None) -> Differences:
    missed = machine_differences(entry.key, gpus, version_here)
    if nets is not None and entry.key.onnx_sha256 not in nets:
        missed["onnx_sha256"] = (entry.key.onnx_sha256, "none of the bundle's nets")
    return missed


def _damage(entry: Entry) -> Differences:
    return (
        {} if whole_engine(entry) is not None else {"file": ("damaged", "the hash of its record")}
    )


def _entry_facts(entry: Entry, missed: Differences) -> Facts:
    key = entry.key
    used = datetime.datetime.fromtimestamp(entry.used_s, tz=datetime.timezone.utc)
    return {
        "used_here": not missed,
        "differs": {name: {"engine": own, "here": here} for name, (own, here) in missed.items()},
        "net": key.net,
        "onnx_sha256": key.onnx_sha256,
        "library": f"{key.flavour} {key.library}",
        "gpu": key.gpu,
        "compute_capability": key.compute_capability,
        "driver": key.driver,
        "profile": key.profile,
        "precision": key.precision,
        "options": key.options,
        "bytes": entry.size,
        "last_used": used.isoformat(timespec="seconds"),
        "built": dict(entry.facts),
    }
