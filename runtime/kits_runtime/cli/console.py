"""What the commands share: how errors end a process, and how progress is shown."""

import contextlib
import logging
import math
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from types import FrameType
from typing import TextIO

from kits_runtime.cli.start import ENDS, EXIT_INTERRUPTED
from kits_runtime.errors import KitsError

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 8

_WIND_DOWN_S = 10.0
_MOST_CELLS, _FEWEST_CELLS = 24, 6


def exit_code_of(command: Callable[[], int], *, name: str, debug: bool) -> int:
    """Runs a command and gives its exit code; an error becomes one line on stderr."""
    try:
        return command()
    except KitsError as error:
        return _reported(error, name, error.exit_code, debug=debug)
    except KeyboardInterrupt:
        say(f"{name}: interrupted; finished results are intact")
        return EXIT_INTERRUPTED
    except MemoryError as error:
        return _reported(error, name, 7, debug=debug)
    except OSError as error:
        return _reported(error, name, EXIT_ERROR, debug=debug)


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Lets a polite request to end (SIGTERM) do what Ctrl-C does.

    More of them are ignored for a while: the case being written is finished and nothing temporary
    stays behind, which takes a moment.
    """
    heard_at = -math.inf
    kinds = [kind for kind in ENDS if signal.getsignal(kind) is not signal.SIG_IGN]

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal heard_at
        now = time.monotonic()
        if now - heard_at >= _WIND_DOWN_S:
            heard_at = now
            raise KeyboardInterrupt

    previous = {kind: signal.signal(kind, interrupt) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)


def error_line(error: BaseException) -> str:
    """The one line that says what went wrong."""
    if isinstance(error, MemoryError):
        return "out of memory. Close other programs, or segment a smaller part of the scan."
    if isinstance(error, OSError) and not isinstance(error, KitsError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}. Check the path and its permissions."
    return " ".join(str(error).split())


def say(line: str) -> None:
    """Writes a line for people, to stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def version() -> str:
    """The version of this package."""
    return metadata.version("kits-trt")


def set_up_logging(*, verbose: bool, debug: bool) -> None:
    """Sends the packages' log to stderr: warnings, and more when asked."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")


def bar(share: float, cells: int) -> str:
    """A bar of so many cells between brackets, filled up to a share from 0 to 1."""
    full = int(cells * min(1.0, max(0.0, share)))
    return f"[{'#' * full}{'.' * (cells - full)}]"


def clock_time(seconds: float) -> str:
    """Seconds as people read a clock: 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProgressLine:
    """One line on a terminal that is written over while a case runs; nothing elsewhere."""

    def __init__(self, stream: TextIO, *, enabled: bool) -> None:
        self._stream = stream
        self._enabled = enabled and stream.isatty()
        self._width = 0

    def show(self, text: str) -> None:
        """Replaces the line; a text that is too long for the terminal is cut off."""
        if self._enabled:
            self._replace(text, self._room())

    def show_bar(self, share: float, text: str) -> None:
        """The same with a bar before the text, as long as there is room for, or none."""
        if self._enabled:
            room = self._room()
            cells = min(_MOST_CELLS, room - len(text) - len("[] "))
            drawn = f"{bar(share, cells)} " if cells >= _FEWEST_CELLS else ""
            self._replace(drawn + text, room)

    def clear(self) -> None:
        """Removes the line."""
        if self._enabled and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0

    def _room(self) -> int:
        return max(1, shutil.get_terminal_size().columns - 1)

    def _replace(self, text: str, room: int) -> None:
        text = text[:room]
        self._stream.write("\r" + text.ljust(min(self._width, room)))
        self._stream.flush()
        self._width = len(text)


def _reported(error: BaseException, name: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    say(f"{name}: {error_line(error)}")
    return code
