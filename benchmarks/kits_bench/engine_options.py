"""Engine options with the cache that users have, so that engines are built once."""

import os
from typing import cast

from kits_runtime.engines import EngineOptions
from kits_runtime.engines.batches import gpu_windows_a_call, windows_a_call
from kits_runtime.engines.choose import Choice
from kits_runtime.engines.engine_cache import cache_folder
from kits_runtime.engines.protocol import NetSpec, Precision


def cached_options(*, precision: str, threads: int | None = None) -> EngineOptions:
    """Options as ``kits-infer`` opens a bundle with, and a precision."""
    return EngineOptions(
        precision=cast(Precision, precision),
        threads=threads,
        engine_cache=cache_folder(os.environ),
    )


def batch_for(choice: Choice, net: NetSpec) -> int:
    """How many windows a call of a net takes on this backend."""
    size = net.size_vox
    return gpu_windows_a_call(size) if choice.on_gpu else windows_a_call(size)
