"""Nets that take patches where they lie on the device and leave scores beside them."""

from typing import Any

import numpy as np

from kits_runtime.arrays import Arrays
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.errors import EngineError
from kits_runtime.infer import RunNet

__all__ = ["net_on_device"]


def net_on_device(engine: GpuEngine, arrays: Arrays) -> RunNet:
    """An engine for the executor's windows on the device; nothing passes through the host.

    It keeps an engine's promises: it raises ``ValueError`` for patches that do not fit, and
    ``EngineError`` for scores that are not finite.
    """
    net = engine.spec.net
    in_dtype, out_dtype = engine.dtypes

    def ask(patches: Any) -> Any:  # noqa: ANN401
        windows = patches.shape[0]
        if tuple(patches.shape) != net.input_shape(windows):
            raise ValueError(
                f"net {net.name}: patches on the device are {tuple(patches.shape)}, expected "
                f"{net.input_shape(windows)}; cut the windows as the manifest says"
            )
        given = arrays.xp.ascontiguousarray(patches.astype(in_dtype, copy=False))
        scores = arrays.xp.empty(net.output_shape(windows), out_dtype)
        arrays.wait()  # the engine has a stream of its own
        engine.run_at(arrays.address(given), arrays.address(scores), windows)
        scores = scores.astype(np.float32, copy=False)
        if not bool(arrays.xp.isfinite(scores).all()):
            raise EngineError(
                f"net {net.name} on {engine.spec.backend} in {engine.spec.precision}: found "
                "scores that are not finite, expected all to be; look for bad values in the scan, "
                "or run in fp32"
            )
        return scores

    return ask
