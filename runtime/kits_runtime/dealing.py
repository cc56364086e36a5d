"""How a net's windows are dealt out to its engine: so many a call, and so many calls at once."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from kits_runtime.engines.batches import windows_a_call
from kits_runtime.engines.cores import usable_cores
from kits_runtime.engines.protocol import EngineOptions
from kits_runtime.manifest.schema import Boxes, Net, Stage

# The layers of a small window are too short for threads to share them well, and such windows come
# in dozens: two at a time take 12 % less. Larger ones are few, and one must have all threads.
_SMALL_WINDOW = 1 << 19


def dealt_out(
    options: EngineOptions, name: str, net: Net, stages: Sequence[Stage]
) -> EngineOptions:
    """The options of the net that stages have by this name, with both numbers chosen."""
    batch = windows_a_call(net.size_vox)
    if len(net.size_vox) == 2:
        return replace(options, batch=batch, at_once=1)
    many = all(_has_many_windows(stage) for stage in stages if name in stage.nets)
    threads = options.threads or usable_cores()
    both = many and threads > 1 and prod(net.size_vox) <= _SMALL_WINDOW
    return replace(options, batch=batch, at_once=2 if both else 1)


def _has_many_windows(stage: Stage) -> bool:
    """Whether windows slide along all axes of more than a box, which a single one often covers."""
    windows = stage.windows
    return not isinstance(stage.look, Boxes) and all(
        step < size for step, size in zip(windows.stride, windows.shape, strict=True)
    )
