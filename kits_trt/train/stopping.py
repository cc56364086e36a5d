"""Ends a training politely: the step that runs is finished and saved first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_asked_for() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C or SIGTERM came; a second one interrupts at once, without saving."""
    heard = 0

    def hear(_signal: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        if heard > 1:
            raise KeyboardInterrupt

    kinds = [kind for kind in _ENDS if signal.getsignal(kind) is not signal.SIG_IGN]
    previous = {kind: signal.signal(kind, hear) for kind in kinds}
    try:
        yield lambda: heard > 0
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
