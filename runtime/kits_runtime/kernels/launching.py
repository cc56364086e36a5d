"""Kernels by name: how many threads go through so many items, and cupy as the one who starts them.

A kernel's threads stride over its items, so any number of blocks computes the same.
"""

from typing import Any, Protocol

from kits_runtime.errors import BackendUnavailableError
from kits_runtime.kernels.sources import KERNELS, OPTIONS, source

THREADS = 256
# Some twenty blocks for each of the processors of a large GPU; more would only wait in line.
_MOST_BLOCKS = 1 << 12


class Launch(Protocol):
    """Starts a kernel for so many items, in the order of all other work of the arrays' module.

    Arguments are arrays of the device and numpy's scalars, whose types are those of the source.
    """

    def __call__(self, name: str, items: int, /, *arguments: Any) -> None:  # noqa: ANN401
        """Start it."""
        ...


def blocks_for(items: int) -> int:
    """The blocks of ``THREADS`` threads that go through so many items, at least one."""
    return min(max(1, -(-items // THREADS)), _MOST_BLOCKS)


def cupy_launch(cupy: Any) -> Launch:  # noqa: ANN401
    """Kernels of cupy, which compiles them for a GPU once and keeps the result on disk.

    Raises:
        BackendUnavailableError: cupy cannot compile or load them here.
    """
    try:
        module = cupy.RawModule(code=source(), options=OPTIONS)
        kernels = {name: module.get_function(name) for name in KERNELS}
    except MemoryError:
        raise
    except Exception as error:  # its errors have no root of their own
        raise BackendUnavailableError(
            f"cupy: found no way to compile our kernels ({' '.join(str(error).split())[:200]}), "
            "expected CUDA's runtime compiler of cupy's version; install nvidia-cuda-nvrtc and "
            "nvidia-cuda-runtime, or uninstall cupy and only the nets run on the GPU"
        ) from error

    def launch(name: str, items: int, *arguments: Any) -> None:  # noqa: ANN401
        kernels[name]((blocks_for(items),), (THREADS,), arguments)

    return launch
