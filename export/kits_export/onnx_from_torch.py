"""A torch network as a clean ONNX graph of opset 17.

torch's exporter writes opset 18 at the least. No operator that our networks use changed between
17 and 18 except the mean over axes, which is written as a global average pooling here (an operator
that every engine has a kernel for), so the graph is relabelled and never converted. An operator
that did change is refused by name.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator

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
    """Rewrite means over all spatial axes that keep them as global average poolings."""
    constants = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist())
        keepdims = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        if keepdims == 1 and len(axes) > 1 and axes == list(range(2, 2 + len(axes))):
            node.op_type = "GlobalAveragePool"
            del node.input[1]
            node.ClearField("attribute")


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
