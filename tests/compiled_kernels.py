"""The kernels' sources, compiled for the processor and run there: no GPU, the same arithmetic.

A shim gives the sources the few names of CUDA that they use. A kernel's threads stride over its
items, so one thread computes all; several are run one after another.
"""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from kits_runtime.kernels.launching import Launch
from kits_runtime.kernels.sources import source

_SHIM = """
struct Index { int x; };
extern "C" { Index blockIdx{0}, threadIdx{0}, blockDim{1}, gridDim{1}; }
#define __global__
#define __device__
"""
_SCALARS = {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "float32": ctypes.c_float}


def compiler() -> str | None:
    """A C++ compiler of this machine."""
    return shutil.which("g++") or shutil.which("clang++")


@functools.cache
def _library() -> ctypes.CDLL:
    found = compiler()
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        text, built = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        text.write_text(_SHIM + source())
        # As on a GPU, see sources.OPTIONS: a product is rounded before it is added to anything.
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
        command = [found, *flags, "-shared", "-fPIC", str(text), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(built))


def compiled_launch(blocks: int = 1, threads: int = 1) -> Launch:
    """A launch of the compiled kernels for arrays of the host, in so many blocks and threads."""
    library = _library()

    def place(name: str) -> ctypes.c_int:
        return ctypes.c_int.in_dll(library, name)

    def launch(name: str, _items: int, *arguments: Any) -> None:
        given = [_argument(each) for each in arguments]
        place("gridDim").value, place("blockDim").value = blocks, threads
        for block in range(blocks):
            for thread in range(threads):
                place("blockIdx").value, place("threadIdx").value = block, thread
                getattr(library, name)(*given)

    return launch


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    return _SCALARS[str(value.dtype)](value)
