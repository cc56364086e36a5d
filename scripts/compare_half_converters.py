"""Compares three ways from a float32 graph to an FP16-typed one, on every net.

Usage: python scripts/compare_half_converters.py [--preset small|paper] [--nets A,B] [--out DIR]

The ways: ``half_from_float`` of this project; ``convert_to_mixed_precision`` of nvidia-modelopt's
AutoCast; ``convert_float_to_float16`` of onnxconverter-common. The last two are optional packages
(AutoCast also needs onnx-graphsurgeon, onnxslim, polygraphy and nvidia-ml-py); so are openvino and
tensorrt-rtx-cu13-libs with -bindings. What is not installed is left out of the record.

Adds lines to DIR/converters.jsonl: whether a graph is made and valid, its opset, size and casts,
the share of the convolutions' operations that are half, who loads it ('yes', or the first line of
the refusal), the largest score error of the emulated graph on a phantom's window, what becomes of
a weight that half cannot hold, and whether a second conversion gives the same bytes.
"""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from half_nets import StudiedNet, append_records, chosen_nets, windows_of
from measure_half_sensitivity import rounded, scores_of
from onnx import numpy_helper

from kits_export.emulated_half import emulated_half
from kits_export.half_graph import HalfGraph, half_from_float
from kits_runtime.engines.openvino_cpu import import_openvino
from kits_runtime.engines.ort_cpu import import_onnxruntime

LARGE_WEIGHT = 7e4
Convert = Callable[[onnx.ModelProto], onnx.ModelProto]


def main() -> int:
    """Compares the converters on the nets that the command line names."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    nets, out = chosen_nets(__doc__ or "")
    for net in nets:
        if net.weights != "random":
            continue
        records = [record_of(net, way, convert) for way, convert in installed_ways()]
        append_records(out / "converters.jsonl", records)
        print(net.name, net.preset, [record["way"] for record in records], flush=True)
    return 0


def installed_ways() -> Iterator[tuple[str, Convert]]:
    """The converters that can be imported."""
    yield "kits-trt", lambda model: half_from_float(model).model
    if util.find_spec("modelopt"):
        yield "modelopt AutoCast", autocast
    if util.find_spec("onnxconverter_common"):
        yield "onnxconverter-common", converter_common


def autocast(model: onnx.ModelProto) -> onnx.ModelProto:
    """AutoCast as it comes, but for half patches and scores and opset 17."""
    from modelopt.onnx.autocast import convert_to_mixed_precision

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(model, path)
        converted: onnx.ModelProto = convert_to_mixed_precision(str(path), opset=17)
    return converted


def converter_common(model: onnx.ModelProto) -> onnx.ModelProto:
    """The converter's defaults: half patches and scores."""
    from onnxconverter_common.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copy)
    return converted


def record_of(net: StudiedNet, way: str, convert: Convert) -> dict[str, Any]:
    """What one converter makes of one net."""
    record: dict[str, Any] = net.facts() | {"way": way, "way_version": version_of(way)}
    try:
        half = convert(net.model)
        onnx.checker.check_model(half, full_check=True)
    except Exception as error:  # anything may go wrong inside them: that is what is compared
        return record | {"made": first_line(error)}
    content = half.SerializeToString()
    return record | {
        "made": "yes",
        "opset": next(item.version for item in half.opset_import if item.domain in ("", "ai.onnx")),
        "patches": onnx.TensorProto.DataType.Name(half.graph.input[0].type.tensor_type.elem_type),
        "size_share": rounded(len(content) / net.model.ByteSize()),
        "casts": sum(node.op_type == "Cast" for node in half.graph.node),
        "half_flop_share": rounded(half_flop_share(half)),
        "same_bytes_twice": convert(net.model).SerializeToString() == content,
        "producer": f"{half.producer_name} {half.producer_version}".strip(),
        "largest_error": emulated_error(net, half),
        "weight_beyond_half": fate_of_large_weight(net.model, convert),
        "loads": {name: answer(load, content) for name, load in installed_loaders().items()},
    }


def version_of(way: str) -> str:
    """The converter's version."""
    package = {"modelopt AutoCast": "nvidia-modelopt"}.get(way, way)
    return metadata.version(package) if way != "kits-trt" else "this commit"


def half_flop_share(model: onnx.ModelProto) -> float:
    """The share of the convolutions' multiplications whose results are half."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    ends = (*graph.input, *graph.value_info, *graph.output)
    infos = {info.name: info.type.tensor_type for info in ends}
    sizes = {item.name: list(item.dims) for item in graph.initializer}
    sizes |= {node.output[0]: sizes[node.input[0]] for node in graph.node if node.input[0] in sizes}
    counted = {True: 0.0, False: 0.0}
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            # Every place of the output meets every weight; with ConvTranspose, of the input.
            met = infos[node.output[0] if node.op_type == "Conv" else node.input[0]].shape
            places = np.prod([axis.dim_value for axis in met.dim][2:], dtype=float)
            half = infos[node.output[0]].elem_type == onnx.TensorProto.FLOAT16
            counted[half] += places * np.prod(sizes[node.input[1]], dtype=float)
    return counted[True] / (counted[True] + counted[False])


def fate_of_large_weight(model: onnx.ModelProto, convert: Convert) -> str:
    """What becomes of a weight of 70000 in the first convolution."""
    planted = onnx.ModelProto()
    planted.CopyFrom(model)
    read = next(node.input[1] for node in planted.graph.node if node.op_type == "Conv")
    item = next(item for item in planted.graph.initializer if item.name == read)
    values = numpy_helper.to_array(item).copy()
    values.flat[0] = LARGE_WEIGHT
    item.CopyFrom(numpy_helper.from_array(values, item.name))
    try:
        converted = convert(planted)
    except Exception as error:  # a refusal, or a failure of a foreign converter
        return first_line(error)
    weights = [numpy_helper.to_array(item) for item in converted.graph.initializer]
    largest = max(float(array.max()) for array in weights if array.dtype.kind == "f")
    return "kept" if largest == LARGE_WEIGHT else f"changed to {largest:g}"


def emulated_error(net: StudiedNet, half: onnx.ModelProto) -> float | str:
    """The largest score error on a phantom's window, or why the graph cannot be emulated."""
    patches = dict(windows_of(net))["phantom"]
    try:
        emulated = emulated_half(HalfGraph(model=half, float_nodes=()))
        found = scores_of(emulated, patches)
    except Exception as error:  # a graph of a foreign converter
        return first_line(error)
    return rounded(float(np.abs(found - scores_of(net.model, patches)).max()))


def installed_loaders() -> Mapping[str, Callable[[bytes], str]]:
    """The readers of graphs that can be imported."""
    loaders = {"onnxruntime": load_onnxruntime}
    if util.find_spec("openvino"):
        loaders["openvino"] = load_openvino
    if util.find_spec("tensorrt_rtx_bindings"):
        loaders["tensorrt_rtx parser"] = parse_tensorrt
    return loaders


def load_onnxruntime(content: bytes) -> str:
    """Opens a session."""
    import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    return "yes"


def load_openvino(content: bytes) -> str:
    """Compiles for the processor."""
    core = import_openvino().Core()
    core.compile_model(core.read_model(content), "CPU")
    return "yes"


def parse_tensorrt(content: bytes) -> str:
    """Parses into a network; needs no GPU."""
    import tensorrt_rtx_bindings as trt

    # The extension module looks itself up under the package's name.
    sys.modules.setdefault("tensorrt_rtx", trt)
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    return "yes" if parser.parse(content) else str(parser.get_error(0).desc())


def answer(load: Callable[[bytes], str], content: bytes) -> str:
    """What a loader says."""
    try:
        return load(content)
    except Exception as error:  # libraries have no common root of errors
        return first_line(error)


def first_line(error: Exception) -> str:
    """The beginning of an error's text."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


if __name__ == "__main__":
    sys.exit(main())
