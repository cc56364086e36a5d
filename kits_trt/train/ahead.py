"""Draws samples beside the training, in order, a few ahead of it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Drawn = TypeVar("Drawn")


def drawn_ahead(
    keys: Sequence[Key], draw: Callable[[Key], Drawn], *, workers: int, ahead: int
) -> Iterator[Drawn]:
    """Yields what each key draws, in the order of the keys, whatever the number of threads.

    Args:
        keys: What to draw.
        draw: A function of the key alone.
        workers: Threads that draw; with 0 the caller draws when it asks.
        ahead: The most that is drawn and not yet taken.

    Raises:
        Exception: Whatever ``draw`` raised, at the place of its key.
    """
    if workers == 0:
        yield from map(draw, keys)
        return
    waiting: deque[Future[Drawn]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="kits-draw")
    try:
        for key in keys:
            waiting.append(pool.submit(draw, key))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
