"""What ran a measurement: processor, cores, load, versions and commit."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kits_runtime.record import versions

MEASURED_WITH = ("nibabel", "isal", "onnxruntime", "openvino", "torch", "monai", "SimpleITK")


def machine_facts() -> Mapping[str, object]:
    """The facts that every record carries."""
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": engine_versions(),
        "commit": commit(),
    }


def engine_versions() -> Mapping[str, str]:
    """The versions of everything that a measurement depends on."""
    return versions(*MEASURED_WITH)


def machine_name() -> str:
    """A short name of this machine for a folder: its processor and its cores."""
    plain = re.sub(r"\((r|tm)\)|cpu|processor|@.*", " ", processor_name().lower())
    words = re.findall(r"[a-z0-9]+", plain)
    return "-".join([*words, str(len(os.sched_getaffinity(0))), "cores"])


def processor_name() -> str:
    """The processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def commit() -> str | None:
    """The commit of the working tree, marked where it has changes; None outside a repository."""
    here = Path(__file__).parent
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:  # no git here
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None
