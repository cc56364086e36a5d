"""Who tells of an error that several processes have: the first one on their machine."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kits_runtime.cli.start import EXIT_INTERRUPTED
from kits_runtime.errors import KitsError

_TURN_S = 10.0


@contextmanager
def first_tells(environment: Mapping[str, str], *, turn_s: float = _TURN_S) -> Iterator[None]:
    """Gives the first process of a machine the time to tell of an error before this one does.

    ``torchrun`` ends the others once one has ended. Whoever is ended while waiting therefore has
    nothing to add and leaves silently; whoever is still there has an error of its own and raises
    it.
    """
    if local_rank(environment) == 0:
        yield
        return
    try:
        yield
    except KitsError as error:
        try:
            time.sleep(turn_s)
        except KeyboardInterrupt:
            raise SystemExit(error.exit_code) from None
        raise
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None


def local_rank(environment: Mapping[str, str]) -> int:
    """The number of this process on its machine, by which it takes a GPU."""
    return int(environment.get("LOCAL_RANK", "0"))
