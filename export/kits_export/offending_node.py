"""Which node breaks half precision: float32 and emulated half in step, one node after another.

Nodes are run one at a time, so that only tensors which are still to be read are in memory and no
optimiser stands between two of them. Each node costs the opening of a session of its own, some
milliseconds; this is for naming a culprit, not for computing scores.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from kits_export.half_range import LARGEST_HALF
from kits_runtime.engines.ort_cpu import import_onnxruntime, session_options


@dataclass(frozen=True, slots=True, kw_only=True)
class OffendingNode:
    """The first node whose output leaves half precision.

    ``largest`` is the largest magnitude of the output in float32, ``broken`` the number of values
    that are finite there and not in half, ``relative_error`` the largest difference over
    ``largest`` (infinite where values are broken).
    """

    name: str
    operator: str
    tensor: str
    size: int
    largest: float
    broken: int
    relative_error: float

    def __str__(self) -> str:
        """One line for an error message."""
        where = f"node {self.name} ({self.operator}), output {self.tensor}: found"
        if self.broken:
            return (
                f"{where} {self.broken} of {self.size} values that are not finite in half and "
                f"reach {self.largest:.6g} in float32, expected at most {LARGEST_HALF:g}; keep "
                "this node float32, or export this net as fp32"
            )
        return (
            f"{where} a relative error of {self.relative_error:.3g} in half, expected less; keep "
            "this node float32, or export this net as fp32"
        )


def first_offending_node(
    model: onnx.ModelProto,
    emulated: onnx.ModelProto,
    patches: np.ndarray,
    *,
    relative_error: float | None = None,
) -> OffendingNode | None:
    """Return the first node, in graph order, that half precision breaks, or None.

    Args:
        model: The float32 graph.
        emulated: ``emulated_half`` of its FP16-typed graph.
        patches: One batch of float32 patches for both.
        relative_error: A node offends when its output's largest error, over the output's largest
            magnitude in float32, exceeds this; None: only when a value is not finite in half
            though it is in float32.
    """
    rounded = node_outputs(emulated, patches)
    for node, tensor, exact in node_outputs(model, patches):
        if exact.dtype != np.float32:
            continue
        half = next(values for _, name, values in rounded if name == tensor)
        found = _compared(node, tensor, exact=exact, half=half)
        if found.broken or (relative_error is not None and found.relative_error > relative_error):
            return found
    return None


def node_outputs(
    model: onnx.ModelProto, patches: np.ndarray
) -> Iterator[tuple[onnx.NodeProto, str, np.ndarray]]:
    """Yield each node with each of its outputs' names and values, in graph order.

    The graph must have one input, which ``patches`` become.
    """
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    live = {graph.input[0].name: patches}
    readings = Counter(name for node in graph.node for name in set(node.input))
    for node in graph.node:
        feeds = {name: live[name] for name in node.input if name in live}
        own = [weights[name] for name in dict.fromkeys(node.input) if name in weights]
        for name, values in zip(node.output, _run(node, feeds, own, model=model), strict=True):
            live[name] = values
            yield node, name, values
        for name in set(node.input):
            readings[name] -= 1
        for name in [name for name in live if readings[name] == 0]:
            del live[name]


def _run(
    node: onnx.NodeProto,
    feeds: dict[str, np.ndarray],
    weights: list[onnx.TensorProto],
    *,
    model: onnx.ModelProto,
) -> list[np.ndarray]:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values.dtype), None)
        for name, values in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    single = helper.make_model(
        helper.make_graph([node], "node", inputs, outputs, weights),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    library = import_onnxruntime()
    session = library.InferenceSession(
        single.SerializeToString(),
        session_options(library, threads=1),
        providers=["CPUExecutionProvider"],
    )
    values: list[np.ndarray] = session.run(None, feeds)
    return values


def _compared(
    node: onnx.NodeProto, tensor: str, *, exact: np.ndarray, half: np.ndarray
) -> OffendingNode:
    finite = np.isfinite(exact)
    broken = int(np.count_nonzero(finite & ~np.isfinite(half)))
    largest = float(np.abs(exact[finite]).max(initial=0.0))
    if broken:
        error = float("inf")
    else:
        apart = float(np.abs(half[finite] - exact[finite]).max(initial=0.0))
        error = apart / largest if apart else 0.0
    return OffendingNode(
        name=node.name,
        operator=node.op_type,
        tensor=tensor,
        size=exact.size,
        largest=largest,
        broken=broken,
        relative_error=error,
    )
