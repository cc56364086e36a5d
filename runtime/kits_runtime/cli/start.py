"""How every command starts: able to end politely before its libraries are there.

A command's array libraries take up to a second to import. Until its own ``main`` listens, an
interrupt here ends the process at once, with one line and the code for it: nothing has been begun
that could be left half done. This module imports only what Python has loaded by then.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

EXIT_INTERRUPTED = 130
ENDS = (signal.SIGINT, signal.SIGTERM)

Main = Callable[[], int]


def infer() -> int:
    """``kits-infer``."""

    def load() -> Main:
        from kits_runtime.cli.infer import main

        return main

    return started("kits-infer", load)


def info() -> int:
    """``kits-info``."""

    def load() -> Main:
        from kits_runtime.cli.info import main

        return main

    return started("kits-info", load)


def started(name: str, load: Callable[[], Main]) -> int:
    """Runs the command that ``load`` imports, and gives its exit code.

    The process ends without unwinding, because an exception that is raised in the middle of an
    import can be swallowed there, or turned into another. Signals that the caller has told the
    process to ignore stay ignored.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        os.write(2, f"{name}: interrupted\n".encode())
        os._exit(EXIT_INTERRUPTED)

    for kind in ENDS:
        if signal.getsignal(kind) is not signal.SIG_IGN:
            signal.signal(kind, end)
    return load()()
