"""Rooflines: what a net must compute and move, how fast it ran, and the roof measured beside it."""

import itertools
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kits_runtime.engines import Choice, Engine, EngineOptions, NetSpec, open_engine

BYTES_OF = {"fp32": 4, "bf16": 2, "fp16": 2}
# Convolutions with as much arithmetic for their data as there is: channels, window, kernel.
_PEAK_NETS = ((512, (64, 64), 1), (256, (64, 64), 3))
_COPIED_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class NetWork:
    """What one window of a net costs: operations of its convolutions, and numbers moved.

    ``least_numbers`` are input, output and weights, as if all between stayed in caches;
    ``unfused_numbers`` are what each operator reads and writes, as if nothing did.
    """

    flop: int
    least_numbers: int
    unfused_numbers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """What a backend reached on convolutions made for it, and what memory copies reached."""

    gflop_per_s: float
    gb_per_s: float

    def at(self, flop_per_byte: float) -> float:
        """The GFLOP/s that are attainable at an arithmetic intensity."""
        return min(self.gflop_per_s, flop_per_byte * self.gb_per_s)


def work_of(model: onnx.ModelProto) -> NetWork:
    """The cost of one window, from the graph's shapes alone."""
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in (*single.graph.input, *single.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    shapes = _shapes(onnx.shape_inference.infer_shapes(single, data_prop=True))
    weights = {item.name for item in model.graph.initializer}
    flop = unfused = 0
    for node in single.graph.node:
        flop += _flop_of(node, shapes)
        unfused += sum(math.prod(shapes.get(name, ())) for name in (*node.input, *node.output))
    ends = (*single.graph.input, *single.graph.output)
    least = sum(math.prod(shapes[value.name]) for value in ends)
    least += sum(math.prod(shapes[name]) for name in weights)
    return NetWork(flop=flop, least_numbers=least, unfused_numbers=unfused)


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return shapes


def _flop_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Twice the multiply-adds of a convolution; 0 for everything else."""
    if node.op_type == "Conv":
        places = math.prod(shapes[node.output[0]])
    elif node.op_type == "ConvTranspose":
        places = math.prod(shapes[node.input[0]])
    else:
        return 0
    # Weights are (out, in / groups, ...), or transposed (in, out / groups, ...).
    return 2 * places * math.prod(shapes[node.input[1]][1:])


def measure_roof(choice: Choice, options: EngineOptions, *, repeats: int) -> Roof:
    """The roof of a backend, measured now."""
    best = 0.0
    for channels, size, kernel in _PEAK_NETS:
        model = peak_net(channels, size, kernel)
        spec = NetSpec(
            name="peak",
            input_name="patches",
            output_name="scores",
            in_channels=channels,
            out_channels=channels,
            size_vox=size,
        )
        work = work_of(model)
        with open_engine(
            model.SerializeToString(), spec, backend=choice, options=options
        ) as engine:
            took_s = median_run_s(engine, repeats=repeats)
        best = max(best, work.flop / took_s / 1e9)
    return Roof(gflop_per_s=best, gb_per_s=copied_gb_per_s(repeats=repeats))


def peak_net(channels: int, size: tuple[int, int], kernel: int) -> onnx.ModelProto:
    """Four equal convolutions one after the other."""
    generator = np.random.default_rng(0)
    shape = (channels, channels, kernel, kernel)
    weights = generator.standard_normal(shape, np.float32) / np.float32(
        math.sqrt(math.prod(shape[1:]))
    )
    names = ["patches", "first", "second", "third", "scores"]
    nodes = [
        helper.make_node("Conv", [before, "weights"], [after], pads=[kernel // 2] * 4)
        for before, after in itertools.pairwise(names)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", channels, *size))
        for name in ("patches", "scores")
    ]
    graph = helper.make_graph(
        nodes, "peak", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def median_run_s(engine: Engine, *, repeats: int) -> float:
    """Seconds of one window, over calls of as many as the engine takes at once."""
    batch = engine.spec.batch
    shape = engine.spec.net.input_shape(batch)
    patches = np.random.default_rng(1).random(shape, np.float32)
    engine.run(patches)
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        engine.run(patches)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) / batch


def copied_gb_per_s(*, repeats: int) -> float:
    """Gigabytes a second read and written by copies that no cache can hold, by one thread."""
    source = np.zeros(_COPIED_BYTES, np.uint8)
    target = np.empty_like(source)
    source[:] = 1
    spent = []
    for _ in range(max(2, repeats)):
        start = time.perf_counter()
        np.copyto(target, source)
        spent.append(time.perf_counter() - start)
    return 2 * _COPIED_BYTES / min(spent) / 1e9


def roofline_facts(
    work: NetWork, *, took_s: float, precision: str, roof: Roof
) -> dict[str, object]:
    """What a record says of one net on one backend."""
    width = BYTES_OF.get(precision, 4)
    least_bytes, unfused_bytes = width * work.least_numbers, width * work.unfused_numbers
    achieved = work.flop / took_s / 1e9
    intensity = work.flop / max(unfused_bytes, 1)
    attainable = roof.at(intensity)
    return {
        "window_ms": round(took_s * 1e3, 3),
        "gflop": round(work.flop / 1e9, 3),
        "least_mb": round(least_bytes / 1e6, 3),
        "unfused_mb": round(unfused_bytes / 1e6, 3),
        "flop_per_byte_unfused": round(intensity, 3),
        "flop_per_byte_least": round(work.flop / max(least_bytes, 1), 3),
        "gflop_per_s": round(achieved, 2),
        "roof_gflop_per_s": round(roof.gflop_per_s, 2),
        "roof_gb_per_s": round(roof.gb_per_s, 2),
        "attainable_gflop_per_s": round(attainable, 2),
        "share_of_roof": round(achieved / roof.gflop_per_s, 4),
        "precision": precision,
    }
