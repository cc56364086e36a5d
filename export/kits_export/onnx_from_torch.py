"""A torch network as a clean ONNX graph of opset 17.

torch's exporter writes opset 18 at the least. No operator that our networks use changed between
17 and 18 except the mean over axes, which is written as a global average pooling here (an operator
that every engine has a kernel for), so the graph is relabelled and never converted. An operator
that did change is refused by name.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from kits_runtime.errors import ParityError

OPSET = 17
IR_VERSION = 8  # the IR of opset 17's day: TensorRT 8.6 was built against it
INPUT_NAME = "patches"
OUTPUT_NAME = "scores"
BATCH_AXIS = "batch"
_EXPORTED_OPSET = 18
_MOST_SUMMED, _TILE = 128 * 128, 16
_EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")  # their loggers


def onnx_from_net(net: nn.Module, *, input_shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the network in evaluation mode as a float32 ONNX model of opset 17.

    The graph reads ``patches`` (batch, *input_shape) and writes ``scores``; the batch axis is
    symbolic, all others are fixed. Batch normalisations are folded into their convolutions. The
    bytes depend on weights and versions alone: paths, stack traces and tool names are removed.

    Args:
        net: A network whose call returns one array of scores; its mode is left as it was.
        input_shape: Shape of one patch without the batch axis.

    Raises:
        ParityError: The graph needs an operator that opset 17 defines differently.
    """
    program = program_from_net(net, input_shape=input_shape)
    model: onnx.ModelProto = program.model_proto
    _strip_provenance(model)
    _pool_instead_of_mean(model)
    _drop_unused_initializers(model)
    _relabel_opset(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def program_from_net(net: nn.Module, *, input_shape: tuple[int, ...]) -> torch.onnx.ONNXProgram:
    """Return what torch's exporter makes of a network in evaluation mode, as it comes.

    The values of its ONNX graph have the names of its torch graph's nodes, but for the output.
    """
    was_training = net.training
    net.eval()
    try:
        with _quiet_exporter(), torch.no_grad():
            program = torch.onnx.export(
                net,
                (torch.zeros((2, *input_shape)),),
                dynamo=True,
                opset_version=_EXPORTED_OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS, min=1)},),
                verbose=False,
            )
    finally:
        net.train(was_training)
    if program is None:  # the signature's other branch; the exporter in use always returns one
        raise RuntimeError("torch.onnx.export returned no program")
    return program


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on optional packages, on its passes and on deprecations."""
    levels = {name: logging.getLogger(name).level for name in _EXPORTERS}
    for name in _EXPORTERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _strip_provenance(model: onnx.ModelProto) -> None:
    graph = model.graph
    for message in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "net"
    model.producer_name = "kits-trt"
    for field in ("producer_version", "domain", "model_version"):
        model.ClearField(field)


def _pool_instead_of_mean(model: onnx.ModelProto) -> None:
    """Rewrite means over all spatial axes that keep them as global average poolings.

    ONNX Runtime adds one number after the other: over 512 x 512 of them a mean is off by 5e-4. The
    mean of a large plane is therefore that of the means of its tiles.
    """
    constants = {item.name: item for item in model.graph.initializer}
    shapes = _shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if _is_spatial_mean(node, constants):
            node.op_type = "GlobalAveragePool"
            del node.input[1]
            node.ClearField("attribute")
            tile = _tile(shapes.get(node.input[0], ()))
            if tile:
                tiles = f"{node.output[0]}.tiles"
                nodes.append(
                    onnx.helper.make_node(
                        "AveragePool",
                        [node.input[0]],
                        [tiles],
                        name=f"{node.name}.tiles",
                        kernel_shape=tile,
                        strides=tile,
                    )
                )
                node.input[0] = tiles
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _is_spatial_mean(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
        return False
    axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist())
    keepdims = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
    return keepdims == 1 and len(axes) > 1 and axes == list(range(2, 2 + len(axes)))


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The spatial shape of every value that has one."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim[2:])
        for value in (*inferred.value_info, *inferred.input)
    }


def _tile(plane: Sequence[int]) -> list[int]:
    """The tiles whose means are taken first; none of a plane that is small."""
    if math.prod(plane) <= _MOST_SUMMED:
        return []
    return [math.gcd(size, _TILE) for size in plane]


def _drop_unused_initializers(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _relabel_opset(model: onnx.ModelProto) -> None:
    changed = sorted(
        f"{node.op_type} ({node.name})"
        for node in model.graph.node
        if node.domain
        or onnx.defs.get_schema(node.op_type, OPSET).since_version
        != onnx.defs.get_schema(node.op_type, _EXPORTED_OPSET).since_version
    )
    if changed:
        raise ParityError(
            f"exported graph: found {', '.join(changed)}, expected only operators that opset "
            f"{OPSET} defines as opset {_EXPORTED_OPSET} does; rewrite them in the network"
        )
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION


def weights_by_name(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return copies of the graph's initialisers by name."""
    return {item.name: numpy_helper.to_array(item).copy() for item in model.graph.initializer}
