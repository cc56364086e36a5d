"""An ONNX graph as a torch module, operator by operator, so that baselines run a bundle's own nets.

Whatever bundle is measured, its nets run in torch with exactly the weights of its files. Batch
normalisations that the export folded stay folded, which favours torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from kits_runtime.errors import BundleError

Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Tensor], Attributes], Tensor]

_CONV = {2: functional.conv2d, 3: functional.conv3d}
_RISING = {2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}
_MEAN_POOL = {2: functional.avg_pool2d, 3: functional.avg_pool3d}


class GraphInTorch(nn.Module):
    """A graph of one input; ``output`` may be any of its tensors, the graph's own by default."""

    def __init__(self, model: onnx.ModelProto, *, output: str | None = None) -> None:
        super().__init__()
        graph = model.graph
        self._input = graph.input[0].name
        self._output = output or graph.output[0].name
        self._nodes = [
            (_operator(node), tuple(node.input), node.output[0], attributes_of(node))
            for node in nodes_behind(model, self._output)
        ]
        read = {name for _, names, _, _ in self._nodes for name in names}
        self._constants: dict[str, str] = {}
        for item in graph.initializer:
            if item.name in read:
                place = f"constant_{len(self._constants)}"
                self.register_buffer(place, torch.from_numpy(numpy_helper.to_array(item).copy()))
                self._constants[item.name] = place
        self._widen()

    def forward(self, patches: Tensor) -> Tensor:
        """Return the output for patches (n, channel, ...)."""
        known = {name: getattr(self, place) for name, place in self._constants.items()}
        known[self._input] = patches
        for operator, names, output, attributes in self._nodes:
            known[output] = operator([known[name] for name in names if name], attributes)
        return known[self._output]  # type: ignore[no-any-return]

    def _widen(self) -> None:
        """Does once what casts of stored halves would do at each call."""
        kept = []
        for operator, names, output, attributes in self._nodes:
            if operator is _cast and names[0] in self._constants:
                place = self._constants[names[0]]
                setattr(self, place, getattr(self, place).float())
                self._constants[output] = place
            else:
                kept.append((operator, names, output, attributes))
        self._nodes = kept


def nodes_behind(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    """Return the nodes that a tensor depends on, in the graph's order."""
    wanted, nodes = {tensor}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            wanted.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _operator(node: onnx.NodeProto) -> Operator:
    if node.op_type not in _OPERATORS:
        raise BundleError(
            f"net: found operator {node.op_type} ({node.name}), expected one of "
            f"{', '.join(sorted(_OPERATORS))}. Add it to the operators that torch can run."
        )
    return _OPERATORS[node.op_type]


def _padded(values: Tensor, pads: Sequence[int], fill: float = 0.0) -> tuple[Tensor, list[int]]:
    """The values with what symmetric padding cannot do done, and the padding that is left."""
    half = len(pads) // 2
    before, after = list(pads[:half]), list(pads[half:])
    if before == after:
        return values, before
    flat = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]
    return functional.pad(values, flat, value=fill), [0] * half


def _conv(given: Sequence[Tensor], told: Attributes) -> Tensor:
    ndim = given[1].ndim - 2
    values, padding = _padded(given[0], told.get("pads", [0] * 2 * ndim))
    return _CONV[ndim](
        values,
        given[1],
        given[2] if len(given) > 2 else None,
        stride=told.get("strides", [1] * ndim),
        padding=padding,
        dilation=told.get("dilations", [1] * ndim),
        groups=told.get("group", 1),
    )


def _conv_transpose(given: Sequence[Tensor], told: Attributes) -> Tensor:
    ndim = given[1].ndim - 2
    pads = told.get("pads", [0] * 2 * ndim)
    extra = told.get("output_padding", [0] * ndim)
    # What is cut less at the end than at the start is the same as more output there.
    extra = [e + p - q for e, p, q in zip(extra, pads[:ndim], pads[ndim:], strict=True)]
    return _RISING[ndim](
        given[0],
        given[1],
        given[2] if len(given) > 2 else None,
        stride=told.get("strides", [1] * ndim),
        padding=list(pads[:ndim]),
        output_padding=extra,
        groups=told.get("group", 1),
        dilation=told.get("dilations", [1] * ndim),
    )


def _max_pool(given: Sequence[Tensor], told: Attributes) -> Tensor:
    kernel = told["kernel_shape"]
    values, padding = _padded(given[0], told.get("pads", [0] * 2 * len(kernel)), -torch.inf)
    return _MAX_POOL[len(kernel)](values, kernel, told.get("strides", [1] * len(kernel)), padding)


def _mean_pool(given: Sequence[Tensor], told: Attributes) -> Tensor:
    kernel = told["kernel_shape"]
    if any(told.get("pads", ())):
        raise BundleError("net: found a padded AveragePool, expected none. Pad it apart.")
    return _MEAN_POOL[len(kernel)](given[0], kernel, told.get("strides", [1] * len(kernel)))


def _slice(given: Sequence[Tensor], _told: Attributes) -> Tensor:
    starts, stops = (part.tolist() for part in given[1:3])
    axes = given[3].tolist() if len(given) > 3 else list(range(len(starts)))
    index = [slice(None)] * given[0].ndim
    for axis, start, stop in zip(axes, starts, stops, strict=True):
        index[axis] = slice(start, min(stop, given[0].shape[axis]))
    return given[0][tuple(index)]


def _gather(given: Sequence[Tensor], told: Attributes) -> Tensor:
    axis = told.get("axis", 0) % given[0].ndim
    if not given[1].ndim:
        return given[0].select(axis, int(given[1]))
    return given[0].index_select(axis, given[1])


def _unsqueeze(given: Sequence[Tensor], _told: Attributes) -> Tensor:
    values = given[0]
    for axis in sorted(given[1].tolist()):
        values = values.unsqueeze(axis)
    return values


def _prelu(given: Sequence[Tensor], _told: Attributes) -> Tensor:
    return functional.prelu(given[0], given[1].reshape(-1))


def _batch_norm(given: Sequence[Tensor], told: Attributes) -> Tensor:
    scale, shift, mean, variance = given[1:]
    return functional.batch_norm(
        given[0], mean, variance, scale, shift, eps=told.get("epsilon", 1e-5)
    )


def _cast(given: Sequence[Tensor], _told: Attributes) -> Tensor:
    return given[0].float()


def _global_mean(given: Sequence[Tensor], _told: Attributes) -> Tensor:
    return given[0].mean(dim=tuple(range(2, given[0].ndim)), keepdim=True)


_OPERATORS: Mapping[str, Operator] = {
    "Add": lambda given, _: given[0] + given[1],
    "AveragePool": _mean_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": lambda given, told: torch.cat(list(given), dim=told["axis"]),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Div": lambda given, _: given[0] / given[1],
    "Gather": _gather,
    "GlobalAveragePool": _global_mean,
    "Identity": lambda given, _: given[0],
    "LeakyRelu": lambda given, told: functional.leaky_relu(given[0], told.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Mul": lambda given, _: given[0] * given[1],
    "PRelu": _prelu,
    "Reciprocal": lambda given, _: given[0].reciprocal(),
    "Relu": lambda given, _: given[0].relu(),
    "Reshape": lambda given, _: given[0].reshape(given[1].tolist()),
    "Sigmoid": lambda given, _: given[0].sigmoid(),
    "Slice": _slice,
    "Softmax": lambda given, told: given[0].softmax(dim=told.get("axis", -1)),
    "Sqrt": lambda given, _: given[0].sqrt(),
    "Sub": lambda given, _: given[0] - given[1],
    "Unsqueeze": _unsqueeze,
}


def torch_answer(net: nn.Module, patches: np.ndarray) -> np.ndarray:
    """Return the scores of float32 patches, computed eagerly where the net's weights are."""
    device = next((w.device for w in net.state_dict().values()), torch.device("cpu"))
    with torch.inference_mode():
        scores: np.ndarray = net(torch.from_numpy(patches).to(device)).float().cpu().numpy()
    return scores
