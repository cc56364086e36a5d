"""What one run leaves for people and programs: facts, not log lines."""

import dataclasses
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kits_runtime.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """Which bundle ran."""

    path: str
    sha256: str
    system: str
    preset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """Which backend ran it and why that one; ``rejected`` are (name, why not)."""

    name: str
    reason: str
    precision: str
    threads: int
    rejected: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The record of one segmented scan.

    ``stage_ms`` is wall time by phase, each millisecond counted once. ``windows`` counts what each
    net was asked. Volumes are those of the labels' classes; ``warnings`` never change the labels.
    """

    bundle: BundleFacts
    backend: BackendFacts
    scan_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    volumes_ml: Mapping[str, float]
    windows: Mapping[str, int]
    stage_ms: Mapping[str, float]
    total_ms: float
    peak_rss_mb: float
    versions: Mapping[str, str]
    warnings: tuple[str, ...]

    def to_plain(self) -> dict[str, object]:
        """The record as JSON takes it; times to a hundredth of a millisecond."""
        plain = dataclasses.asdict(self)
        plain["stage_ms"] = {name: round(ms, 2) for name, ms in self.stage_ms.items()}
        plain["total_ms"] = round(self.total_ms, 2)
        plain["peak_rss_mb"] = round(self.peak_rss_mb, 1)
        plain["volumes_ml"] = {name: round(ml, 3) for name, ml in self.volumes_ml.items()}
        return plain


def volumes_ml(
    labels: NDArray[np.uint8], volume: Volume, names: tuple[str, ...]
) -> dict[str, float]:
    """The volume of each foreground class in millilitres.

    ``labels`` may be a part of the volume's grid. They are compared class by class: a bincount
    would first make eight bytes of every voxel.
    """
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    return {
        name: int(np.count_nonzero(labels == value)) * voxel_ml
        for value, name in enumerate(names)
        if value
    }


def peak_rss_mb() -> float:
    """The most memory that this process has held so far, in MB (10^6 bytes).

    Linux's own count of the process is asked first: getrusage's starts from what the parent held
    when it started this process.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    told = next((line for line in lines if line.startswith("VmHWM:")), None)
    if told is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return int(told.split()[1]) * 1024 / 1e6


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of Python, this package, its base and further packages."""
    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in ("kits-trt", "numpy", "scipy", *packages):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
