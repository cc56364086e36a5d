"""What is there: GPU, driver, backends and why they cannot run, packages that are missing."""

import importlib.util
import platform
import shutil
import sys
from importlib import metadata

from kits_bench.gpu_check.plan import Facts
from kits_bench.machine import machine_facts
from kits_runtime.engine_facts import gpu_facts
from kits_runtime.engines import BACKENDS, double_installs

NEEDED = ("numpy", "scipy", "nibabel", "isal")
# What else is measured with a package, for people who read why something is unrun.
WANTED = {
    "onnxruntime": "the reference of parity, ort-cuda",
    "cupy": "array steps on the GPU",
    "tensorrt": "trt",
    "tensorrt_rtx": "trt-rtx",
    "torch": "B0 and B1",
    "monai": "B0 of unet3d",
    "onnx": "B0, B1 and rooflines",
    "onnxscript": "exports; needless with a prepared folder",
}


def environment() -> Facts:
    """The facts of this interpreter and this machine."""
    missing = [name for name in (*NEEDED, *WANTED) if importlib.util.find_spec(name) is None]
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "gpu": gpu_facts(),
        "backends": {row.name: {"why_not": row.why_not()} for row in BACKENDS},
        "packages": {name: _version(name) for name in (*NEEDED, *WANTED) if name not in missing},
        "missing": {name: WANTED.get(name, "everything") for name in missing},
        "both_onnxruntimes": list(double_installs()),
        "torch": torch_facts() if "torch" not in missing else {"why_none": "torch is missing"},
        "nvidia_smi": shutil.which("nvidia-smi") is not None,
        "machine": dict(machine_facts()),
    }


def torch_facts() -> Facts:
    """Whether torch can use a GPU, and why not."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"why_none": f"torch cannot be imported ({' '.join(str(error).split())[:200]})"}
    facts: Facts = {"version": torch.__version__, "cuda": torch.version.cuda}
    if not torch.cuda.is_available():
        return {**facts, "why_none": "torch sees no GPU"}
    return {**facts, "why_none": None, "device": torch.cuda.get_device_name(0)}


def _version(package: str) -> str:
    for name in (package, package.replace("_", "-"), f"{package}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "there, version unknown"
