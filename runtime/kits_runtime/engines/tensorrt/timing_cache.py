"""The times of kernels, kept between builds so that the next one need not measure them again."""

import logging
from pathlib import Path
from typing import Any

from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.files import replacing
from kits_runtime.locks import locked

logger = logging.getLogger(__name__)


def load_timings(library: Library, config: Any, path: Path | None) -> Any:  # noqa: ANN401
    """Give a configuration the times in a file; one of another version or GPU is left out.

    What comes back must live until the engine is built. It is None where nothing is kept.
    """
    if path is None or library.ahead_of_time:  # tensorrt_rtx measures nothing while building
        return None
    kept = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, False):
        logger.warning("%s: found times of another version, GPU or kind; measuring afresh", path)
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def keep_timings(config: Any, timings: Any, path: Path | None) -> None:  # noqa: ANN401
    """Write the times that a build ended with, joined with what others wrote meanwhile."""
    if path is None or timings is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(path.name + ".lock")):
        if path.is_file():
            others = config.create_timing_cache(path.read_bytes())
            if others is not None:
                timings.combine(others, False)
        with replacing(path) as stream:
            stream.write(bytes(timings.serialize()))
