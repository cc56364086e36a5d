"""FP16-typed graphs: the same nodes as the float32 graph, with half weights and half tensors.

TensorRT 10, 11 and RTX take each node's precision from the graph's types, so here every node is
typed on purpose: half where an operator's rounded results proved good enough, float32 where one
of ``FLOAT_OPERATORS`` needs it, where the operator is unknown, or where the caller says so.

The border is half too: patches and scores are moved in half the bytes, and no Cast stands before
the first convolution. Between nodes of different types stands one Cast for each tensor and type,
right behind the tensor's producer, however many nodes read it.

Values keep their names: ``x`` in the float32 graph is ``x`` here, in the type that its producer
has (graph outputs: in half). A second form of it is called ``x.half`` or ``x.float``.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kits_export.half_range import readers_of, require_finite_weight, require_half_weight

# Even kernels that calculate in half inside cost the scores hardly more here than half tensors do
# by themselves; docs/adr/0011-fp16-typed-graphs.md has the record.
HALF_OPERATORS = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Gather"}
    | {"Identity", "MaxPool", "Mul", "PRelu", "Relu", "Reshape", "Sigmoid", "Slice", "Softmax"}
    | {"Unsqueeze"}
)
# What stays float32 and why. Operators in neither table stay float32 because nobody measured them.
FLOAT_OPERATORS: Mapping[str, str] = MappingProxyType(
    {"GlobalAveragePool": "a plane's sum passes 65504 where a kernel adds it up in half"}
)
_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfGraph:
    """An FP16-typed graph and the names of its nodes that stay float32, in graph order."""

    model: onnx.ModelProto
    float_nodes: tuple[str, ...]


def half_from_float(
    model: onnx.ModelProto,
    *,
    keep_float: Collection[str] = (),
    half_operators: Collection[str] = HALF_OPERATORS,
) -> HalfGraph:
    """Return the FP16-typed graph of a float32 graph; the same bytes for the same graph.

    Args:
        model: A float32 graph of plain nodes, as ``onnx_from_net`` returns it; left unchanged.
        keep_float: Names of further nodes that stay float32.
        half_operators: Operators whose nodes become half; nodes of all others stay float32.

    Raises:
        ValueError: ``keep_float`` names a node that the graph does not have.
        BundleError: A weight is NaN or infinite.
        ParityError: A weight of a half node is beyond half precision.
    """
    _require_nodes(model.graph, keep_float)
    tiles = _tiles_of_planes(model.graph)
    kept = [
        node
        for node in model.graph.node
        if node.op_type not in half_operators or node.name in keep_float or node.name in tiles
    ]
    types = _planned(model, kept={node.output[0] for node in kept})
    nodes, weights = list(_nodes(model.graph, types)), list(_weights(model.graph, types))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for part, items in (("node", nodes), ("initializer", weights), ("value_info", [])):
        graph.ClearField(part)
        getattr(graph, part).extend(items)
    for end in (*graph.input, *graph.output):
        if end.type.tensor_type.elem_type == _FLOAT:
            end.type.tensor_type.elem_type = _HALF
    onnx.checker.check_model(result, full_check=True)
    return HalfGraph(model=result, float_nodes=tuple(node.name for node in kept))


def _tiles_of_planes(graph: onnx.GraphProto) -> set[str]:
    """Poolings that are the first half of a plane's mean; they stay float32 as the second does."""
    means = {node.input[0] for node in graph.node if node.op_type == "GlobalAveragePool"}
    return {
        node.name
        for node in graph.node
        if node.op_type == "AveragePool" and node.output[0] in means
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Types:
    """The type of each node, and which types of each tensor of floats exist.

    ``plain`` is the type that goes by the tensor's own name, ``wanted`` are those that are read.
    """

    node: Mapping[str, int]
    plain: Mapping[str, int]
    wanted: Mapping[str, set[int]]

    def name(self, tensor: str, element: int) -> str:
        """The name of a tensor in one type; tensors of other things than floats have one name."""
        if self.plain.get(tensor, element) == element:
            return tensor
        return tensor + (".half" if element == _HALF else ".float")


def _planned(model: onnx.ModelProto, *, kept: Collection[str]) -> _Types:
    graph = model.graph
    node_types = {
        node.output[0]: _FLOAT if node.output[0] in kept else _HALF for node in graph.node
    }
    wanted: dict[str, set[int]] = {name: set() for name in _float_tensors(model)}
    weights = {item.name for item in graph.initializer if item.name in wanted}
    plain = dict.fromkeys(weights, _FLOAT)
    for node in graph.node:
        element = node_types[node.output[0]]
        for name in wanted.keys() & set(node.input):
            wanted[name].add(element)
            if element == _HALF and name in weights:
                plain[name] = _HALF  # as soon as one half node reads it
        plain |= {name: element for name in node.output if name in wanted}
    for end in (*graph.input, *graph.output):
        if end.name in wanted:
            wanted[end.name].add(_HALF)
            plain[end.name] = _HALF
    return _Types(node=node_types, plain=plain, wanted=wanted)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = [*inferred.input, *inferred.value_info, *inferred.output]
    named = [info.name for info in infos if info.type.tensor_type.elem_type == _FLOAT]
    return named + [item.name for item in inferred.initializer if item.data_type == _FLOAT]


def _nodes(graph: onnx.GraphProto, types: _Types) -> Iterator[onnx.NodeProto]:
    for end in graph.input:
        yield from _casts(end.name, _HALF, types)
    for node in graph.node:
        element = types.node[node.output[0]]
        typed = onnx.NodeProto()
        typed.CopyFrom(node)
        typed.input[:] = [types.name(name, element) for name in node.input]
        typed.output[:] = [types.name(name, element) for name in node.output]
        yield typed
        for name in node.output:
            yield from _casts(name, element, types)


def _casts(tensor: str, element: int, types: _Types) -> Iterator[onnx.NodeProto]:
    for other in sorted(types.wanted.get(tensor, set()) - {element}):
        source, target = types.name(tensor, element), types.name(tensor, other)
        yield helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=other)


def _weights(graph: onnx.GraphProto, types: _Types) -> Iterator[onnx.TensorProto]:
    half_nodes = [node for node in graph.node if types.node[node.output[0]] == _HALF]
    for item in graph.initializer:
        if item.data_type != _FLOAT:
            yield item
            continue
        values = numpy_helper.to_array(item)
        require_finite_weight(item.name, values)
        wanted = types.wanted[item.name]
        if _HALF in wanted:
            require_half_weight(item.name, values, readers=readers_of(half_nodes, item.name))
            yield numpy_helper.from_array(values.astype(np.float16), item.name)
        if _FLOAT in wanted:
            yield numpy_helper.from_array(values, types.name(item.name, _FLOAT))


def _require_nodes(graph: onnx.GraphProto, names: Collection[str]) -> None:
    unknown = sorted(set(names) - {node.name for node in graph.node})
    if unknown:
        raise ValueError(
            f"keep_float names {', '.join(unknown)}, expected nodes of the graph; take the names "
            "from its node list"
        )
