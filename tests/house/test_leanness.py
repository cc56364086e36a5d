"""The runtime, and the phantom of `make demo`, load where torch and its friends cannot be had."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEAVY = ("torch", "monai", "onnx", "onnxscript", "safetensors", "pandas")
ENGINES = (
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "cupy",
)
UPPER = ("kits_trt", "kits_export", "kits_bench")

# Not `sys.modules[name] = None`: scipy takes a name that is in sys.modules for an installed one.
PROBE = """
import importlib, importlib.abc, json, pkgutil, sys

package, everything, *refused = sys.argv[1:]

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is refused in this process", name=name)

def fail(name):
    raise

sys.meta_path.insert(0, Refuse())
loaded = [importlib.import_module(package)]
if everything == "everything":
    found = pkgutil.walk_packages(loaded[0].__path__, package + ".", onerror=fail)
    names = [module.name for module in found if not module.name.endswith(".__main__")]
    loaded += [importlib.import_module(name) for name in names]
print(json.dumps(sorted(module.__name__ for module in loaded)))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def modules_in(folder: Path, package: str) -> list[str]:
    names = {package}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        names.add(".".join([package, *(part for part in parts if part != "__init__")]))
    return sorted(name for name in names if not name.endswith(".__main__"))


def load(run_in: Run, package: str, *, everything: bool, refused: tuple[str, ...]) -> list[str]:
    extent = "everything" if everything else "package"
    result = run_in([sys.executable, "-c", PROBE, package, extent, *refused])
    assert result.returncode == 0, result.stderr
    loaded: list[str] = json.loads(result.stdout.splitlines()[-1])
    return loaded


def test_every_runtime_module_loads_without_torch_onnx_and_the_upper_packages(
    run_in: Run, root: Path
) -> None:
    loaded = load(run_in, "kits_runtime", everything=True, refused=HEAVY + UPPER)
    assert loaded == modules_in(root / "runtime" / "kits_runtime", "kits_runtime")


def test_runtime_loads_without_any_engine(run_in: Run) -> None:
    refused = HEAVY + UPPER + ENGINES + ("matplotlib", "pydicom")
    assert load(run_in, "kits_runtime", everything=False, refused=refused) == ["kits_runtime"]


def test_every_phantom_module_loads_in_the_lean_environment(run_in: Run, root: Path) -> None:
    refused = (*HEAVY, *ENGINES, "matplotlib", "kits_export", "kits_bench")
    loaded = load(run_in, "kits_trt.phantom", everything=True, refused=refused)
    assert loaded == modules_in(root / "kits_trt" / "phantom", "kits_trt.phantom")


def test_the_probe_refuses_what_it_is_told_to(run_in: Run) -> None:
    result = run_in([sys.executable, "-c", PROBE, "nibabel", "package", "numpy"])
    assert result.returncode != 0
    assert "numpy is refused in this process" in result.stderr
