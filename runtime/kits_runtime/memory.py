"""Memory for whole scans that is used again, case after case.

The system clears each page of new memory when it is first touched, and a virtual machine may have
to ask its host for it: on ours that takes up to 2 microseconds a page, a quarter of a second for a
scan. Memory that the process keeps costs nothing of this.
"""

import ctypes
import mmap
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SPARE_BLOCKS = 3  # as many as cases are on their way at once


class Memory:
    """Lends arrays; their memory comes back by itself when the last view of one is gone.

    A few blocks are kept for later. May be used by several threads.
    """

    def __init__(self) -> None:
        self._spare: list[mmap.mmap] = []
        self._turn = threading.Lock()

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array in C order whose content is arbitrary.

        Raises:
            MemoryError: there is not enough.
        """
        return self._array(shape, np.dtype(dtype))[0]

    def zeros(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros in C order.

        Raises:
            MemoryError: there is not enough.
        """
        array, is_new = self._array(shape, np.dtype(dtype))
        if not is_new:
            array.fill(0)
        return array

    def _array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[NDArray[Any], bool]:
        count = int(np.prod(shape, dtype=object))
        size = max(1, count * dtype.itemsize)
        block = self._taken(size)
        is_new = block is None
        if block is None:
            block = _new_block(size)
        lent = (ctypes.c_uint8 * size).from_buffer(block)
        weakref.finalize(lent, self._give_back, block).atexit = False
        return np.frombuffer(memoryview(lent), dtype, count).reshape(shape), is_new

    def _taken(self, size: int) -> mmap.mmap | None:
        """The smallest spare block that is large enough; where none is, one is let go."""
        with self._turn:
            fitting = [block for block in self._spare if len(block) >= size]
            chosen = min(fitting or self._spare, key=len, default=None)
            if chosen is not None:
                self._spare.remove(chosen)
            return chosen if fitting else None

    def _give_back(self, block: mmap.mmap) -> None:
        with self._turn:
            if len(self._spare) < _SPARE_BLOCKS:
                self._spare.append(block)


def _new_block(size: int) -> mmap.mmap:
    try:
        block = mmap.mmap(-1, size)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"{size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block
