"""Spreads work on cases over processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Iterator[Result]:
    """Yields the function's result for each item, in order; in this process for one worker.

    Function and items travel to the others, so both must pickle.
    """
    if workers <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    # Forking a process in which other threads run can hang: start fresh ones.
    with ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
