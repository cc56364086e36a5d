"""The GPU's used memory over a block, as the driver's own tool reports it many times a second."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kits_bench.gpu_check.plan import Facts
from kits_runtime.errors import BackendUnavailableError

TOOL = "nvidia-smi"
_EVERY_MS = 50
_FIRST_WITHIN_S = 10.0


@dataclass(slots=True)
class Sampled:
    """The readings, MiB; the first is from before the block."""

    mib: list[int] = field(default_factory=list)

    @property
    def facts(self) -> Facts:
        """Before, the most, and the difference: other processes' changes count as ours."""
        if not self.mib:
            raise BackendUnavailableError(f"{TOOL}: found no reading, expected numbers")
        return {
            "before_mib": self.mib[0],
            "most_mib": max(self.mib),
            "own_mib": max(self.mib) - self.mib[0],
            "readings": len(self.mib),
        }


@contextmanager
def sampled_mib(tool: str = TOOL) -> Iterator[Sampled]:
    """Reads the first GPU's used memory until the block ends.

    Raises:
        BackendUnavailableError: the tool is not there.
    """
    program = shutil.which(tool)
    if program is None:
        raise BackendUnavailableError(f"{tool}: found no such program, expected the driver's tool")
    query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    child = subprocess.Popen(
        [program, *query, "-lms", str(_EVERY_MS)], stdout=subprocess.PIPE, text=True
    )
    found, first = Sampled(), threading.Event()

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip().isdigit():
                found.mib.append(int(line))
                first.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        first.wait(_FIRST_WITHIN_S)
        yield found
    finally:
        child.kill()
        child.wait()
        thread.join()
        assert child.stdout is not None
        child.stdout.close()
