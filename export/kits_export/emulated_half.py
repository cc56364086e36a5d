"""Half precision on a processor without it: float32 arithmetic, every half result rounded.

Engines for CPUs compute FP16 graphs in wider arithmetic and so hide what overflows on a GPU. Here
each node that is half in the FP16-typed graph becomes a float32 node behind which a Cast to
float16 and one back to float32 round its results: beyond 65504 they become infinite. That is a GPU
with float32 accumulators. It is stricter than a fused kernel, which rounds once where several
nodes stand here, and it does not show an accumulator that is itself half: that is why operators
which add up many values are kept float32 (see ``half_graph.FLOAT_OPERATORS``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kits_export.half_graph import HalfGraph
from kits_runtime.engines.ort_cpu import import_onnxruntime, session_options

# Their results are some of their inputs, or zero: halves already.
_EXACT = frozenset(
    {"Concat", "Gather", "Identity", "MaxPool", "Relu", "Reshape", "Slice", "Unsqueeze"}
)
_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_RAW, _ROUNDED = ".raw", ".rounded"


def emulated_half(half: HalfGraph) -> onnx.ModelProto:
    """Return a float32 graph that computes what the FP16-typed graph computes on a GPU.

    Patches and scores are float32; patches are rounded to half first. Tensors keep their names,
    and those that are half in the given graph hold float32 values that float16 can hold.
    """
    halves = _half_tensors(half.model)
    result = onnx.ModelProto()
    result.CopyFrom(half.model)
    graph = result.graph
    nodes = list(_emulated_nodes(half.model.graph, halves))
    for part in ("node", "value_info"):
        graph.ClearField(part)
    graph.node.extend(nodes)
    for item in graph.initializer:
        if item.data_type == _HALF:
            wide = numpy_helper.to_array(item).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(wide, item.name))
    for end in (*graph.input, *graph.output):
        if end.type.tensor_type.elem_type == _HALF:
            end.type.tensor_type.elem_type = _FLOAT
    onnx.checker.check_model(result, full_check=True)
    return result


def open_emulated(emulated: onnx.ModelProto, *, threads: int = 1) -> Any:  # noqa: ANN401
    """Return a session of ONNX Runtime that keeps every rounding of ``emulated_half``.

    All its optimisations stay on: it removes a Cast and its way back only where the way there
    loses nothing (float16, float32, float16), never a rounding (float32, float16, float32).
    tests/export/test_emulated_half.py looks for that in the optimised graph.
    """
    library = import_onnxruntime()
    return library.InferenceSession(
        emulated.SerializeToString(),
        session_options(library, threads),
        providers=["CPUExecutionProvider"],
    )


def _half_tensors(model: onnx.ModelProto) -> frozenset[str]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = (*inferred.input, *inferred.value_info, *inferred.output)
    return frozenset(info.name for info in infos if info.type.tensor_type.elem_type == _HALF)


def _emulated_nodes(graph: onnx.GraphProto, halves: frozenset[str]) -> Iterator[onnx.NodeProto]:
    renamed = {}
    for end in graph.input:
        if end.name in halves:
            renamed[end.name] = end.name + _ROUNDED
            yield from _rounding(end.name, renamed[end.name])
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Cast":
            copy.op_type = "Identity"
            copy.ClearField("attribute")
        if node.output[0] not in halves or (copy.op_type in _EXACT and node.op_type != "Cast"):
            yield copy
            continue
        copy.output[0] += _RAW
        yield copy
        yield from _rounding(copy.output[0], node.output[0])


def _rounding(source: str, target: str) -> Iterator[onnx.NodeProto]:
    middle = target + ".fp16"
    yield helper.make_node("Cast", [source], [middle], name=f"round_{target}", to=_HALF)
    yield helper.make_node("Cast", [middle], [target], name=f"widen_{target}", to=_FLOAT)
