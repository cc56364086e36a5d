"""Transposed convolutions of few outputs give the same numbers as convolutions of their phases."""

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from kits_runtime.engines.openvino_cpu import import_openvino
from kits_runtime.engines.openvino_rise import with_phases

Array = NDArray[np.float32]
SIZE = (2, 4, 3)


def random_array(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rising_net(weights: Array, *, stride: int, pads: tuple[int, int], added: int) -> bytes:
    """One transposed convolution, and its bias; ``pads`` are before and behind each axis."""
    axes = weights.ndim - 2
    node = helper.make_node(
        "ConvTranspose",
        ["patches", "weights", "bias"],
        ["scores"],
        strides=[stride] * axes,
        pads=[pads[0]] * axes + [pads[1]] * axes,
        output_padding=[added] * axes,
    )
    real = onnx.TensorProto.FLOAT
    bias = np.arange(weights.shape[1], dtype=np.float32)
    graph = helper.make_graph(
        [node],
        "rising",
        [helper.make_tensor_value_info("patches", real, [1, len(weights), *SIZE[-axes:]])],
        [helper.make_tensor_value_info("scores", real, None)],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def spread_out(patch: Array, weights: Array, *, stride: int, before: int, size: list[int]) -> Array:
    """What a transposed convolution is: each voxel adds its kernel around its own place."""
    room = [stride * n + 2 * k for n, k in zip(patch.shape[1:], weights.shape[2:], strict=True)]
    sums = np.zeros((weights.shape[1], *room), np.float64)
    for place in product(*map(range, patch.shape[1:])):
        added = np.tensordot(patch[(slice(None), *place)], weights, axes=(0, 0))
        cut = [
            slice(stride * a, stride * a + k) for a, k in zip(place, added.shape[1:], strict=True)
        ]
        sums[(slice(None), *cut)] += added
    inner = tuple(slice(before, before + n) for n in size)
    bias = np.arange(weights.shape[1]).reshape(-1, *[1] * len(size))
    return (sums[(slice(None), *inner)] + bias).astype(np.float32)


def opened(model: bytes) -> tuple[Any, list[str]]:
    """The graph with phases, and the kinds of its operations."""
    library = import_openvino()
    graph = with_phases(library, library.Core().read_model(model))
    return graph, [node.get_type_name() for node in graph.get_ordered_ops()]


def answer(graph: Any, patch: Array) -> Array:
    library = import_openvino()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = library.Core().compile_model(graph, "CPU", settings)
    found: Array = compiled({"patches": patch[None]})["scores"][0]
    return found


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "added"),
    [(3, 2, (1, 1), 1), (2, 2, (0, 0), 0), (4, 2, (1, 1), 0), (3, 3, (0, 0), 0), (5, 2, (2, 2), 1)],
)
def test_phases_give_what_each_voxel_spreads_out(
    axes: int, kernel: int, stride: int, pads: tuple[int, int], added: int
) -> None:
    weights = random_array(kernel, (4, 3, *[kernel] * axes))
    patch = random_array(1, (4, *SIZE[-axes:]))

    graph, kinds = opened(rising_net(weights, stride=stride, pads=pads, added=added))

    assert "ConvolutionBackpropData" not in kinds
    size = [stride * n for n in SIZE[-axes:]]
    expected = spread_out(patch, weights, stride=stride, before=pads[0], size=size)
    np.testing.assert_allclose(answer(graph, patch), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("out", "kernel", "stride", "pads", "added"),
    [(16, 2, 2, (0, 0), 0), (3, 3, 2, (0, 0), 0), (3, 3, 1, (1, 1), 0), (3, 2, 3, (0, 0), 1)],
    ids=["as many outputs as lanes", "another size", "no stride", "a kernel below its stride"],
)
def test_what_would_gain_nothing_or_does_not_fit_is_left_as_it_is(
    out: int, kernel: int, stride: int, pads: tuple[int, int], added: int
) -> None:
    weights = random_array(kernel, (4, out, *[kernel] * 3))

    _, kinds = opened(rising_net(weights, stride=stride, pads=pads, added=added))

    assert "ConvolutionBackpropData" in kinds
