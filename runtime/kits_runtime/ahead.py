"""Work that is done ahead of whoever takes its results, by other threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

Waiting = Callable[[], AbstractContextManager[object]]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def results_ahead(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    at_once: int,
    waiting: Waiting = nullcontext,
) -> Generator[_Result]:
    """Yields the result of each item in order, while so many threads work on those that follow.

    With ``at_once`` 1 nothing is done ahead and no thread is made: work happens when its result is
    asked for. Otherwise threads are waited for in the context that ``waiting`` gives. An error is
    raised where its result would be yielded; what has not begun by then is left undone.
    """
    if at_once == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="results-ahead")
    begun: deque[Future[_Result]] = deque()

    def next_result() -> _Result:
        with waiting():
            return begun.popleft().result()

    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > at_once:
                yield next_result()
        while begun:
            yield next_result()
    finally:
        pool.shutdown(cancel_futures=True)
