import gc

import numpy as np
import pytest

from kits_runtime.memory import Memory


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_memory_is_lent_again_when_the_last_view_is_gone() -> None:
    memory = Memory()
    first = memory.empty((30, 40), np.int16)
    place, view = address(first), first.transpose()[3:].view()
    view[...] = 7
    del first
    other = memory.empty((30, 40), np.int16)
    assert address(other) != place
    assert (view == 7).all()

    del view
    assert address(memory.empty((20, 30), np.int32)) == place


def test_zeros_are_zeros_in_memory_that_was_used() -> None:
    memory = Memory()
    used = memory.empty((50,), np.uint8)
    used[:] = 9
    place = address(used)
    del used
    again = memory.zeros((5, 9), np.uint8)
    assert address(again) == place
    assert not again.any()
    assert again.flags.c_contiguous
    assert again.flags.writeable


def test_a_larger_array_gets_new_memory_and_the_smaller_is_let_go() -> None:
    memory = Memory()
    small = memory.empty((4096,), np.uint8)
    del small
    large = memory.zeros((3 * 4096,), np.uint8)
    assert not large.any()
    place = address(large)
    del large
    assert address(memory.empty((1,), np.uint8)) == place


def test_no_more_than_a_few_blocks_are_kept() -> None:
    memory = Memory()
    lent = [memory.empty((1 << 26,), np.uint8) for _ in range(8)]
    places = {address(array) for array in lent}
    assert len(places) == 8
    del lent
    gc.collect()
    assert len(memory._spare) == 3


def test_too_much_is_out_of_memory() -> None:
    with pytest.raises(MemoryError):
        Memory().empty((1 << 40, 1 << 30), np.int16)


def test_an_array_of_nothing_is_no_error() -> None:
    assert Memory().zeros((0, 3), np.int16).shape == (0, 3)
