"""What the library says while it works, and how a build is stopped.

The library calls back from native code, which an exception must never reach: it would end the
process. So whatever a callback raises (an interrupt, usually) is kept, the build is asked to stop,
and the error is raised again when native code has returned.
"""

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from kits_runtime.engines.tensorrt.library import Library

logger = logging.getLogger(__name__)

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the steps there are."""

_LEVELS = {
    "INTERNAL_ERROR": logging.DEBUG,  # errors are raised; here they would be said twice
    "ERROR": logging.DEBUG,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.NOTSET,
}
_KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING")
_MOST_KEPT = 200


class Heard:
    """What one build said: its errors, its warnings, and what a callback raised."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.raised: BaseException | None = None

    def note(self, severity: str, message: str) -> None:
        """Keep a message of the library."""
        kept = self.warnings if severity == "WARNING" else self.errors
        if severity in _KEPT and len(kept) < _MOST_KEPT:
            kept.append(" ".join(message.split()))

    def raise_again(self) -> None:
        """Raise what a callback raised."""
        if self.raised is not None:
            raise self.raised


@contextlib.contextmanager
def listening(library: Library) -> Iterator[tuple[Any, Heard]]:
    """The library's logger and what it hears inside the block; one build at a time.

    The library keeps the first logger that it is given for the whole process, so there is one for
    each library.
    """
    voice = _voice(library.module)
    with voice.turn:
        voice.heard = heard = Heard()
        try:
            yield voice, heard
        finally:
            voice.heard = Heard()


def monitor(library: Library, heard: Heard, progress: Progress | None) -> Any:  # noqa: ANN401
    """What the library reports its progress to, None where it cannot (8.6).

    It is made without a ``progress`` as well, so that an interrupt stops a build.
    """
    base = getattr(library.module, "IProgressMonitor", None)
    return None if base is None else _monitor_class(base)(heard, progress)


def _monitor_class(base: Any) -> Any:  # noqa: ANN401
    class Monitor(base):  # type: ignore[misc]
        """Passes progress on; after an error it asks for the end of the build."""

        def __init__(self, heard: Heard, progress: Progress | None) -> None:
            base.__init__(self)
            self._heard = heard
            self._progress = progress
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._tell(phase_name, step + 1)
            return self._heard.raised is None

        def phase_finish(self, phase_name: str) -> None:
            self._tell(phase_name, self._steps.pop(phase_name, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if self._progress is not None and self._heard.raised is None:
                    self._progress(phase, done, self._steps.get(phase, done))
            except BaseException as error:  # it must not reach native code
                self._heard.raised = error

    return Monitor


@functools.cache
def _voice(module: Any) -> Any:  # noqa: ANN401
    base = module.ILogger

    class Voice(base):  # type: ignore[misc,valid-type]
        """Keeps errors and warnings for whoever listens, and passes all on to Python's log."""

        def __init__(self) -> None:
            base.__init__(self)
            self.turn = threading.Lock()
            self.heard = Heard()

        def log(self, severity: Any, msg: str) -> None:  # noqa: ANN401
            try:
                self.heard.note(severity.name, msg)
                logger.log(_LEVELS.get(severity.name, logging.DEBUG), "%s", msg)
            except BaseException as error:  # it must not reach native code
                self.heard.raised = error

    return Voice()
