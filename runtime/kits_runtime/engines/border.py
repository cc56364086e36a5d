"""The two sides of an engine's run: patches checked and dealt out in calls, scores checked.

A *call* is what a library does in one go: it reads patches and fills scores, both float32 and
C-contiguous. Engines supply the call; everything around it is here, once.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kits_runtime.engines.protocol import Array, EngineSpec, NetSpec
from kits_runtime.errors import EngineError

Call: TypeAlias = Callable[[Array, Array], None]


def run_calls(spec: EngineSpec, patches: Array, call: Call) -> Array:
    """The scores of all ``patches``, computed at most ``spec.batch`` windows a call.

    The scores are a new array, and each call writes straight into its part of it. Measured: a new
    array a run costs nothing next to one that is kept, so nobody has to share.

    Raises:
        ValueError: ``patches`` do not fit the spec's net.
        EngineError: a score is not finite.
    """
    check_patches(patches, spec.net)
    scores = np.empty(spec.net.output_shape(len(patches)), np.float32)
    for first in range(0, len(patches), spec.batch):
        part = slice(first, min(first + spec.batch, len(patches)))
        call(np.require(patches[part], requirements=("C", "A")), scores[part])
    check_finite(scores, spec)
    return scores


def always_full(call: Call, batch: int) -> Call:
    """A call that fills up with zero windows, for libraries that take exactly ``batch`` of them."""

    def full_call(patches: Array, scores: Array) -> None:
        windows = len(patches)
        if windows == batch:
            call(patches, scores)
            return
        room = np.zeros((batch, *patches.shape[1:]), np.float32)
        room[:windows] = patches
        answer = np.empty((batch, *scores.shape[1:]), np.float32)
        call(room, answer)
        scores[:] = answer[:windows]

    return full_call


def check_patches(patches: Array, net: NetSpec) -> None:
    """Raise ``ValueError`` unless ``patches`` are float32 and of the net's shape."""
    expected = net.input_shape(1)[1:]
    if patches.dtype != np.float32 or patches.shape[1:] != expected:
        raise ValueError(
            f"net {net.name}: patches are {patches.dtype} {_text(patches.shape)}, expected float32 "
            f"{_text(('n', *expected))}; cut the windows as the manifest says"
        )


def converted(patches: Array, dtype: "np.dtype[Any]", spec: EngineSpec) -> npt.NDArray[Any]:
    """The patches in the dtype that a net's file takes; themselves where that is float32.

    Raises:
        EngineError: they hold numbers that are too large for it.
    """
    if dtype == np.float32:
        return patches
    try:
        with np.errstate(over="raise"):
            return patches.astype(dtype)
    except FloatingPointError as error:
        raise EngineError(
            f"net {spec.net.name} on {spec.backend}: patches reach {np.abs(patches).max():g}, "
            "expected at most 65504 for a float16 net; run the bundle's fp32 file"
        ) from error


def fill_scores(scores: Array, answer: npt.NDArray[np.floating], net: NetSpec) -> None:
    """Write ``answer`` into ``scores``, which has the shape that the net owes.

    Raises:
        EngineError: the answer has another shape.
    """
    if answer.shape != scores.shape:
        raise EngineError(
            f"net {net.name}: scores came back as {_text(answer.shape)}, expected "
            f"{_text(scores.shape)}; the manifest and the net disagree, export the bundle again"
        )
    scores[...] = answer


def check_finite(scores: Array, spec: EngineSpec) -> None:
    """Raise ``EngineError`` if any score is NaN or infinite."""
    bad = scores.size - int(np.count_nonzero(np.isfinite(scores)))
    if bad:
        raise EngineError(
            f"net {spec.net.name} on {spec.backend} in {spec.precision}: {bad} of {scores.size} "
            "scores are not finite, expected all; look for bad values in the scan, or run in fp32"
        )


def closed_error(spec: EngineSpec) -> EngineError:
    """What to raise when an engine is used after closing."""
    return EngineError(
        f"net {spec.net.name} on {spec.backend}: the engine is closed, expected an open one; "
        "run inside its with block, or open it again"
    )


def failed_error(spec: EngineSpec, error: Exception) -> EngineError:
    """What to raise when the library failed inside a call."""
    return EngineError(
        f"net {spec.net.name} on {spec.backend}: the library failed ({one_line(error)}), expected "
        f"{spec.net.out_channels} channels of scores; check the bundle with kits-info"
    )


def one_line(error: BaseException) -> str:
    """An error of a library as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def _text(shape: tuple[object, ...]) -> str:
    return "(" + ", ".join(str(length) for length in shape) + ")"
