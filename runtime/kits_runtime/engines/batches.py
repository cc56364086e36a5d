"""How many windows an engine is opened for, from the shape of one alone."""

from collections.abc import Sequence
from math import prod

# On two cores the time a window is flat from 1 to 16; padding of the last call is least with few.
_SLICES_A_CALL = 4
# A call of so many voxels is what the largest published windows but one take alone; a GPU has work
# enough with that, and the net's own memory does not grow beyond what it needs for these.
_GPU_VOXELS_A_CALL = 1 << 21


def windows_a_call(size_vox: Sequence[int]) -> int:
    """What a processor takes at once: some slices, or one window of three axes."""
    return 1 if len(size_vox) == 3 else _SLICES_A_CALL


def gpu_windows_a_call(size_vox: Sequence[int]) -> int:
    """The most that a GPU takes at once: a power of two. What is best there is measured later."""
    if len(size_vox) == 2:
        return _SLICES_A_CALL
    return 1 << max(0, (_GPU_VOXELS_A_CALL // prod(size_vox)).bit_length() - 1)
