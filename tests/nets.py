"""Tiny ONNX nets with known answers, as bytes: opset 17, input 'patches', output 'scores'."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT = "patches"
OUTPUT = "scores"

Stored: TypeAlias = Literal["float32", "half", "float16"]
Batch: TypeAlias = int | str


def conv_softmax_net(
    weights: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    *,
    size: Sequence[int | str],
    stored: Stored = "float32",
    batch: Batch = "n",
) -> bytes:
    """Softmax over classes of a zero-padded convolution; weights (out, in, *kernel), kernel odd.

    ``stored`` 'half' keeps float16 weights that a Cast widens, 'float16' makes the whole net half.
    """
    dtype = np.float16 if stored in ("half", "float16") else np.float32
    initializers = [
        numpy_helper.from_array(weights.astype(dtype), "weights"),
        numpy_helper.from_array(bias.astype(dtype), "bias"),
    ]
    names, nodes = ["weights", "bias"], []
    if stored == "half":
        nodes = [
            helper.make_node("Cast", [name], [f"wide_{name}"], to=TensorProto.FLOAT)
            for name in names
        ]
        names = ["wide_weights", "wide_bias"]
    pads = [length // 2 for length in weights.shape[2:]] * 2
    nodes += [
        helper.make_node("Conv", [INPUT, *names], ["sums"], pads=pads),
        helper.make_node("Softmax", ["sums"], [OUTPUT], axis=1),
    ]
    channels = (weights.shape[1], weights.shape[0])
    element = TensorProto.FLOAT16 if stored == "float16" else TensorProto.FLOAT
    return _model(nodes, initializers, channels, size=size, batch=batch, element=element)


def threshold_net(
    thresholds: Sequence[float],
    *,
    size: Sequence[int | str],
    in_channels: int = 1,
    channel: int = 0,
    batch: Batch = "n",
) -> bytes:
    """One-hot scores of a voxel's value: class k where thresholds[k-1] <= value < thresholds[k].

    There is one class more than thresholds. The value is that of input channel ``channel``.
    """
    axes = (1, -1, *(1 for _ in size))
    edges = np.asarray([-np.inf, *thresholds, np.inf], np.float32)
    initializers = [
        numpy_helper.from_array(edges[:-1].reshape(axes), "from"),
        numpy_helper.from_array(edges[1:].reshape(axes), "to"),
        numpy_helper.from_array(np.asarray([channel], np.int64), "channel"),
    ]
    nodes = [
        helper.make_node("Gather", [INPUT, "channel"], ["values"], axis=1),
        helper.make_node("GreaterOrEqual", ["values", "from"], ["reached"]),
        helper.make_node("Less", ["values", "to"], ["below"]),
        helper.make_node("And", ["reached", "below"], ["inside"]),
        helper.make_node("Cast", ["inside"], [OUTPUT], to=TensorProto.FLOAT),
    ]
    channels = (in_channels, len(thresholds) + 1)
    return _model(nodes, initializers, channels, size=size, batch=batch)


def identity_net(channels: int, *, size: Sequence[int | str], batch: Batch = "n") -> bytes:
    """Scores that are the patches."""
    node = helper.make_node("Identity", [INPUT], [OUTPUT])
    return _model([node], [], (channels, channels), size=size, batch=batch)


def unary_net(operator: str, *, size: Sequence[int | str]) -> bytes:
    """Scores that are one ONNX operator of the patches, such as Log or Exp; one channel."""
    return _model([helper.make_node(operator, [INPUT], [OUTPUT])], [], (1, 1), size=size)


def shrinking_net(*, size: Sequence[int | str]) -> bytes:
    """Scores at half the patches' size, in a file that does not say so; one channel."""
    ones = [1 for _ in size]
    twos = [2 for _ in size]
    node = helper.make_node("MaxPool", [INPUT], [OUTPUT], kernel_shape=ones, strides=twos)
    axes = [f"axis{index}" for index in range(len(size))]
    return _model([node], [], (1, 1), size=axes)


def two_input_net(*, size: Sequence[int | str]) -> bytes:
    """Scores that are the sum of two inputs, 'patches' and 'more'; one channel."""
    node = helper.make_node("Add", [INPUT, "more"], [OUTPUT])
    model = onnx.load_from_string(_model([node], [], (1, 1), size=size, checked=False))
    model.graph.input.append(_info("more", TensorProto.FLOAT, ("n", 1, *size)))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def class_index_net(*, size: Sequence[int | str]) -> bytes:
    """The index of the largest of two channels, as int64: no scores."""
    node = helper.make_node("ArgMax", [INPUT], [OUTPUT], axis=1, keepdims=1)
    return _model([node], [], (2, 1), size=size, out_element=TensorProto.INT64)


def _model(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[TensorProto],
    channels: tuple[int, int],
    *,
    size: Sequence[int | str],
    batch: Batch = "n",
    element: int = TensorProto.FLOAT,
    out_element: int | None = None,
    checked: bool = True,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [_info(INPUT, element, (batch, channels[0], *size))],
        [_info(OUTPUT, out_element or element, (batch, channels[1], *size))],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if checked:
        onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _info(name: str, element: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, list(shape))
