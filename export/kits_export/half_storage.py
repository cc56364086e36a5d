"""Half the size on disk, the same float32 graph: most weights kept as float16, widened on load.

A stored weight becomes a float16 initialiser and a Cast to float32 under the weight's old name, so
that all other nodes stay as they were. Engines fold such constant casts when they open the file.
This changes weights by half precision's rounding (relative 2^-11), not the arithmetic. The layers
of full resolution are the smallest of a net and their rounding is seen most, so they stay exact.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kits_export.half_range import readers_of, require_finite_weight, require_half_weight

EXACT_SHARE = 0.04
_SUFFIX = ".half"


def store_weights_as_half(
    model: onnx.ModelProto, *, exact_share: float = EXACT_SHARE
) -> onnx.ModelProto:
    """Return a copy of the model whose weights are stored as float16, but for the smallest.

    Those stay float32 that together are no more than ``exact_share`` of all numbers. Models that
    already store halves come back equal.

    Raises:
        BundleError: A weight is not finite.
        ParityError: A weight to be stored is beyond half precision.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    casts = []
    exact = _smallest(graph.initializer, exact_share)
    for index, item in enumerate(graph.initializer):
        if item.data_type != TensorProto.FLOAT:
            continue
        weights = numpy_helper.to_array(item)
        require_finite_weight(item.name, weights)
        if item.name in exact:
            continue
        require_half_weight(item.name, weights, readers=readers_of(graph.node, item.name))
        stored = numpy_helper.from_array(weights.astype(np.float16), item.name + _SUFFIX)
        graph.initializer[index].CopyFrom(stored)
        casts.append(_widening(item_name=stored.name))
    _insert_first(graph, casts)
    onnx.checker.check_model(result, full_check=True)
    return result


def _smallest(weights: Sequence[onnx.TensorProto], share: float) -> frozenset[str]:
    """The names of the smallest weights that together are no more than a share of all numbers."""
    sizes = sorted((math.prod(item.dims), item.name) for item in weights)
    room = share * sum(size for size, _ in sizes)
    totals = accumulate(size for size, _ in sizes)
    return frozenset(name for (_, name), total in zip(sizes, totals, strict=True) if total <= room)


def widen_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose stored halves are float32 initialisers again, without casts.

    For engines that want convolution weights as constants. Undoes ``store_weights_as_half`` up to
    the rounding to float16.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {item.name: item for item in graph.initializer}
    widening = [node for node in graph.node if _is_widening(node, constants)]
    for node in widening:
        item = constants[node.input[0]]
        weights = numpy_helper.to_array(item).astype(np.float32)
        item.CopyFrom(numpy_helper.from_array(weights, node.output[0]))
        graph.node.remove(node)
    onnx.checker.check_model(result, full_check=True)
    return result


def _is_widening(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    return node.op_type == "Cast" and node.input[0].endswith(_SUFFIX) and node.input[0] in constants


def _widening(*, item_name: str) -> onnx.NodeProto:
    name = item_name.removesuffix(_SUFFIX)
    return helper.make_node("Cast", [item_name], [name], name=f"widen/{name}", to=TensorProto.FLOAT)


def _insert_first(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
