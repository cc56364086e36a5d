"""One process at a time: a lock that ends with its holder, however that ends."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from kits_runtime.errors import KitsError


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock file ``path``; where another holds it, calls ``on_wait`` once and waits.

    The operating system lets go of the lock when its holder ends, so nothing stale can stay. The
    empty file does stay: removing it would let two holders in.

    Raises:
        KitsError: the lock file cannot be made.
    """
    try:
        stream = path.open("ab")
    except OSError as error:
        raise KitsError(
            f"{path}: found '{error.strerror or error}' while locking; expected a writable folder; "
            "choose another folder"
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
