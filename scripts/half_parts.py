"""Operators taken apart into the steps of a kernel, so that each step can be rounded on its own."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Weights = dict[str, NDArray[np.float32 | np.int64]]
Shape = tuple[int, ...]
Parts = Callable[[onnx.NodeProto, Weights, Shape], Iterator[onnx.NodeProto]]


def taken_apart(model: onnx.ModelProto, operator: str) -> onnx.ModelProto:
    """The same graph with every node of one operator replaced by its steps."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    given = set(weights)
    shapes = _shapes(model)
    nodes = []
    for node in model.graph.node:
        if node.op_type == operator:
            nodes += PARTS[operator](node, weights, shapes[node.input[0]])
        else:
            nodes.append(node)
    graph.ClearField("node")
    graph.node.extend(nodes)
    added = (name for name in weights if name not in given)
    graph.initializer.extend(numpy_helper.from_array(weights[name], name) for name in added)
    read = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    onnx.checker.check_model(result, full_check=True)
    return result


def _softmax(node: onnx.NodeProto, weights: Weights, _: Shape) -> Iterator[onnx.NodeProto]:
    name, (scores,) = node.name, node.input
    weights[f"{name}_axes"] = np.array([1])
    yield helper.make_node("ReduceMax", [scores], [f"{name}_max"], f"{name}_max", axes=[1])
    yield _step("Sub", name, [scores, f"{name}_max"])
    yield _step("Exp", name, [f"{name}_Sub"])
    yield _step("ReduceSum", name, [f"{name}_Exp", f"{name}_axes"])
    yield _step("Div", name, [f"{name}_Exp", f"{name}_ReduceSum"], output=node.output[0])


def _sigmoid(node: onnx.NodeProto, weights: Weights, _: Shape) -> Iterator[onnx.NodeProto]:
    name = node.name
    weights[f"{name}_one"] = np.array(1, np.float32)
    yield _step("Neg", name, [node.input[0]])
    yield _step("Exp", name, [f"{name}_Neg"])
    yield _step("Add", name, [f"{name}_Exp", f"{name}_one"])
    yield _step("Reciprocal", name, [f"{name}_Add"], output=node.output[0])


def _pooling(node: onnx.NodeProto, weights: Weights, shape: Shape) -> Iterator[onnx.NodeProto]:
    name = node.name
    weights[f"{name}_axes"] = np.arange(2, len(shape))
    weights[f"{name}_share"] = np.array(1 / np.prod(shape[2:]), np.float32)
    yield _step("ReduceSum", name, [node.input[0], f"{name}_axes"])
    yield _step("Mul", name, [f"{name}_ReduceSum", f"{name}_share"], output=node.output[0])


def _norm(node: onnx.NodeProto, weights: Weights, shape: Shape) -> Iterator[onnx.NodeProto]:
    name, axes = node.name, (-1, *(1 for _ in shape[2:]))
    gain, bias, mean, variance = (weights[item] for item in node.input[1:])
    epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
    weights[f"{name}_mean"] = mean.reshape(axes)
    factor = gain / np.sqrt(variance.astype(np.float64) + epsilon)
    weights[f"{name}_factor"] = factor.astype(np.float32).reshape(axes)
    weights[f"{name}_bias"] = bias.reshape(axes)
    yield _step("Sub", name, [node.input[0], f"{name}_mean"])
    yield _step("Mul", name, [f"{name}_Sub", f"{name}_factor"])
    yield _step("Add", name, [f"{name}_Mul", f"{name}_bias"], output=node.output[0])


PARTS: Mapping[str, Parts] = {
    "BatchNormalization": _norm,
    "GlobalAveragePool": _pooling,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
}


def _step(
    operator: str, node: str, inputs: list[str], *, output: str | None = None
) -> onnx.NodeProto:
    own = f"{node}_{operator}"
    return helper.make_node(operator, inputs, [output or own], own)


def _shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        info.name: tuple(axis.dim_value for axis in info.type.tensor_type.shape.dim)
        for info in (*inferred.input, *inferred.value_info, *inferred.output)
    }
