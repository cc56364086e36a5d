"""Adds up wall time by phase; time inside an inner phase does not count for the outer one."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Clock:
    """A stopwatch for nested phases of one run; not for use by several threads at once."""

    def __init__(self) -> None:
        self._spent_ms: dict[str, float] = {}
        self._inner_ms: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block under a name; the same name adds up."""
        start = time.perf_counter()
        self._inner_ms.append(0.0)
        try:
            yield
        finally:
            whole_ms = (time.perf_counter() - start) * 1e3
            own_ms = whole_ms - self._inner_ms.pop()
            self._spent_ms[name] = self._spent_ms.get(name, 0.0) + own_ms
            if self._inner_ms:
                self._inner_ms[-1] += whole_ms

    def spent_ms(self) -> Mapping[str, float]:
        """Milliseconds of each phase so far, in order of first use."""
        return dict(self._spent_ms)
