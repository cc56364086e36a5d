"""Transposed convolutions with few outputs, written for OpenVINO as plain convolutions.

A net that doubles its grid at the end does so into a few classes, and OpenVINO's kernel fills the
rest of a vector with zeros. It also leaves such a layer, and what leads to it, in float32 when all
else is in bf16: it looks for a plain convolution from the outputs upwards. Yet each place of an
output voxel within its stride (its *phase*) is a small convolution of the input, so all phases are
the channels of one, and moving them to their places gives the same numbers. Measured on the net of
``unet3d`` (32 to 3 channels): 6.8 ms become 2.6, and its other layers run in bf16 as well.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

# With as many outputs as a vector has lanes nothing is gained: measured with 16, 32 and 64.
_LANES = 16

Weights = NDArray[np.float32]


def phases_of(
    weights: Weights, strides: Sequence[int], pads: Sequence[int]
) -> tuple[Weights, list[int], list[int]]:
    """The convolution whose channels are the phases of a transposed one, and its padding.

    Args:
        weights: Of the transposed convolution, (in, out, *kernel).
        strides: Its strides.
        pads: What it cuts off at the beginning of each axis.

    Returns:
        Weights (phase * out, in, *kernel), and the zeros before and behind each axis. Phases are
        counted as the last axis fastest.
    """
    kernel = weights.shape[2:]
    axes = list(zip(strides, pads, kernel, strict=True))
    shifts = [{(r + p - k) // s for r in range(s) for k in _taps(r, p, s, n)} for s, p, n in axes]
    before = [-min(found) for found in shifts]
    behind = [max(found) for found in shifts]
    sizes = [a + b + 1 for a, b in zip(before, behind, strict=True)]
    by_tap = np.moveaxis(weights, (0, 1), (-1, -2))  # (*kernel, out, in)
    phases = np.zeros((*strides, *sizes, *by_tap.shape[-2:]), np.float32)
    for phase in product(*map(range, strides)):
        taps = [_taps(r, p, s, n) for r, (s, p, n) in zip(phase, axes, strict=True)]
        for tap in product(*taps):
            place = [
                (r + p - k) // s + a
                for r, k, (s, p, _), a in zip(phase, tap, axes, before, strict=True)
            ]
            phases[(*phase, *place)] = by_tap[tap]
    channels_first = np.moveaxis(phases, (-2, -1), (len(strides), len(strides) + 1))
    return channels_first.reshape(-1, len(weights), *sizes), before, behind


def _taps(phase: int, pad: int, stride: int, kernel: int) -> range:
    """The taps along an axis that reach outputs of a phase."""
    return range((phase + pad) % stride, kernel, stride)


def with_phases(library: Any, graph: Any) -> Any:  # noqa: ANN401
    """The graph with its transposed convolutions of few outputs replaced, where they can be."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "ConvolutionBackpropData":
            _replace(library.opset13, node)
    graph.validate_nodes_and_infer_types()
    return graph


def _replace(operations: Any, node: Any) -> None:  # noqa: ANN401
    settings = node.get_attributes()
    strides, pads = settings["strides"], settings["pads_begin"]
    weights = _constant(node.input_value(1).get_node())
    if weights is None or not _can_be_replaced(node, settings, weights):
        return
    phases, before, behind = phases_of(weights, strides, pads)
    ones = [1] * len(strides)
    small = operations.convolution(
        node.input_value(0), operations.constant(phases), ones, before, behind, ones
    )
    whole = operations.depth_to_space(small, "blocks_first", strides[0])
    whole.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(whole.output(0))


def _can_be_replaced(node: Any, settings: Any, weights: Weights) -> bool:  # noqa: ANN401
    strides = settings["strides"]
    taken, given = node.input(0).get_partial_shape(), node.output(0).get_partial_shape()
    if node.get_input_size() != 2 or taken.is_dynamic or given.is_dynamic:
        return False
    grown = [n * s for n, s in zip(list(taken.to_shape())[2:], strides, strict=True)]
    return (
        weights.shape[1] < _LANES
        and len(set(strides)) == 1
        and strides[0] > 1
        and min(weights.shape[2:]) >= strides[0]
        and set(settings["dilations"]) == {1}
        and list(given.to_shape())[2:] == grown
    )


def _constant(node: Any) -> Weights | None:  # noqa: ANN401
    """The numbers of a constant, whatever it is stored in."""
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    return np.asarray(node.get_data(), np.float32)
