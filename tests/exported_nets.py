"""Small nets with weights as training leaves them, their exports, and tiny graphs by hand."""

import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from kits_export.onnx_from_torch import onnx_from_net
from kits_trt.nets import NETS, SegmentationNet, build_net
from kits_trt.nets.initialise import convolutions

# One name for each configuration: nets that share one differ in their weights alone.
_NAME_OF = {presets["small"]: name for name, presets in NETS.items()}
NAMES = sorted(_NAME_OF.values())

_GRAPHS: dict[bytes, onnx.ModelProto] = {}


@functools.cache
def lively_net(name: str, preset: str = "small") -> SegmentationNet:
    """Return a net with normalisations, slopes and biases as training leaves them."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    net = build_net(name, preset)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean.normal_(0.0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.05, 0.4, generator=generator)
        for module in convolutions(net):
            if module.bias is not None:
                module.bias.normal_(0.0, 0.1, generator=generator)
    return net.eval()


def settled_net(name: str, preset: str) -> SegmentationNet:
    """Return a net whose normalisations have seen noise, as training's have seen their scans.

    Without that the paper's pre-activated nets reach thousands before the softmax, where float32
    itself is 1e-4 apart from one order of summing to another.
    """
    net = lively_net.__wrapped__(name, preset)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches: here of one
    with torch.no_grad():
        net.train()(torch.rand((2, *NETS[name][preset].patch_shape)))
    return net.eval()


@functools.cache
def exported(name: str) -> onnx.ModelProto:
    """Return the small net's float32 graph; callers leave it as it is."""
    shape = NETS[name]["small"].patch_shape
    return cached_onnx_from_net(lively_net(_NAME_OF[NETS[name]["small"]]), input_shape=shape)


def cached_onnx_from_net(net: SegmentationNet, *, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a copy of the net's graph, which is exported once in a test session.

    The exporter of torch takes seconds, and equal nets give equal graphs.
    """
    digest = hashlib.sha256(f"{net} {input_shape}".encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.numpy().tobytes())
    if digest.digest() not in _GRAPHS:
        _GRAPHS[digest.digest()] = onnx_from_net(net, input_shape=input_shape)
    model = onnx.ModelProto()
    model.CopyFrom(_GRAPHS[digest.digest()])
    return model


def noise(name: str, *, windows: int = 1) -> np.ndarray:
    """Return uniform random patches for a small net."""
    shape = (windows, *NETS[name]["small"].patch_shape)
    return np.random.default_rng(3).random(shape, dtype=np.float32)


def graph_of(
    nodes: Sequence[tuple[str, Sequence[str], str]], weights: Mapping[str, object]
) -> onnx.ModelProto:
    """Return a graph of (operator, inputs, output) on ``patches`` (n, 1, 2, 2).

    Nodes are named after their output; that of the last one must be ``scores``.
    """
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1, *size])
        for name, size in (("patches", (2, 2)), ("scores", ("rows", "columns")))
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name=f"node_{out}") for kind, inputs, out in nodes],
        "net",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.asarray(w, np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model
