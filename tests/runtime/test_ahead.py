import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kits_runtime.ahead import results_ahead


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_results_come_in_the_order_of_their_items(at_once: int) -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0 and at_once > 1:
            assert second_is_done.wait(10)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(results_ahead(work, range(7), at_once=at_once)) == [n * n for n in range(7)]


def test_one_at_a_time_works_in_the_callers_thread_when_asked() -> None:
    seen: list[int] = []

    def work(item: int) -> int:
        seen.append(threading.get_ident())
        return item

    results = results_ahead(work, range(3), at_once=1)

    assert seen == []
    assert next(results) == 0
    assert seen == [threading.get_ident()]


def test_two_are_worked_on_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)  # broken unless two threads meet there

    assert list(results_ahead(lambda item: both.wait() * 0 + item, range(4), at_once=2)) == [
        0,
        1,
        2,
        3,
    ]


def test_an_error_comes_in_its_place_and_nothing_begins_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("item 1")
        return item

    results = results_ahead(work, range(100), at_once=2)

    assert next(results) == 0
    with pytest.raises(ValueError, match="item 1"):
        next(results)
    assert len(begun) < 10
    assert not _workers()


def test_closing_early_leaves_no_thread() -> None:
    results = results_ahead(lambda item: item, range(100), at_once=3)
    next(results)

    results.close()

    assert not _workers()


def test_waiting_is_entered_once_for_each_result() -> None:
    waited: list[str] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        waited.append("in")
        yield
        waited.append("out")

    list(results_ahead(lambda item: item, range(4), at_once=2, waiting=waiting))

    assert waited == ["in", "out"] * 4


def _workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("results-ahead")]
