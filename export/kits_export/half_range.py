"""Weights that half precision can hold: finite ones of at most 65504."""

from collections.abc import Sequence

import numpy as np
import onnx

from kits_runtime.errors import BundleError, ParityError

LARGEST_HALF = 65504.0


def require_finite_weight(name: str, weights: np.ndarray) -> None:
    """Check one weight.

    Raises:
        BundleError: It holds NaN or infinity; no precision helps that.
    """
    broken = int(np.count_nonzero(~np.isfinite(weights)))
    if broken:
        raise BundleError(
            f"weight {name}: found {broken} of {weights.size} values that are NaN or infinite, "
            "expected finite weights; export another checkpoint"
        )


def require_half_weight(name: str, weights: np.ndarray, *, readers: str) -> None:
    """Check one weight that is to be half; ``readers`` names the nodes that use it.

    Raises:
        ParityError: It is beyond half precision.
    """
    largest = float(np.abs(weights).max(initial=0.0))
    if largest > LARGEST_HALF:
        raise ParityError(
            f"weight {name} of node {readers}: found {largest:.6g}, expected at most "
            f"{LARGEST_HALF:g} (the largest half); store this net as float32"
        )


def readers_of(nodes: Sequence[onnx.NodeProto], name: str) -> str:
    """Return the names of the nodes that read a tensor, for messages."""
    return ", ".join(node.name or node.op_type for node in nodes if name in node.input)
