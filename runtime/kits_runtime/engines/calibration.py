"""How many windows a GPU should take at once: measured shortly, then kept beside the engines."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.files import replacing

_REPEATS = 3
# A larger batch costs memory and leaves more windows over, so it must win by more than noise.
_WORTH = 0.97


def calibrate(
    engine: GpuEngine, folder: Path, *, model: bytes, machine: str, clock: Callable[[], float]
) -> None:
    """Let an engine take as many windows at once as is best here; measured once, then kept."""
    batches = engine.batches
    if len(batches) == 1:
        return
    powers = [batch for batch in batches if batch & (batch - 1) == 0]
    spec = engine.spec
    patches = np.random.default_rng(0).random(spec.net.input_shape(batches[0]), np.float32)
    parts = (spec.net.name, hashlib.sha256(model).hexdigest()[:24], spec.backend, spec.precision)

    def measure() -> int:
        return best_batch(powers, lambda batch: engine.run(patches[:batch]), clock)

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / ("-".join(parts) + f"-{batches[0]}.batch")
    engine.limit_batch(kept_batch(path, machine, measure))


def best_batch(
    batches: Sequence[int], run: Callable[[int], object], clock: Callable[[], float]
) -> int:
    """The smallest batch whose time for a window is near the best; each is warmed up once."""
    times = {}
    for batch in batches:
        run(batch)
        spent = []
        for _ in range(_REPEATS):
            start = clock()
            run(batch)
            spent.append(clock() - start)
        times[batch] = float(np.median(spent)) / batch
    best = min(times.values())
    return min(batch for batch, time in times.items() if time * _WORTH <= best)


def kept_batch(path: Path, machine: str, measure: Callable[[], int]) -> int:
    """The batch that was measured on this machine, measured now where none is kept."""
    try:
        found = json.loads(path.read_bytes())
        batch = found["batch"]
        if found["machine"] == machine and isinstance(batch, int) and batch >= 1:
            return batch
    except (OSError, ValueError, KeyError, TypeError):
        pass  # whatever lies there, it is measured anew
    batch = measure()
    with replacing(path) as stream:
        stream.write(json.dumps({"machine": machine, "batch": batch}).encode())
    return batch
