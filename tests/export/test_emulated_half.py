"""The emulation is float16 arithmetic, bit by bit, and no optimiser takes its roundings away."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_nets import NAMES, exported, graph_of, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kits_export.emulated_half import emulated_half, open_emulated
from kits_export.half_graph import half_from_float
from kits_runtime.engines.ort_cpu import (
    OrtCpuEngine,
    import_onnxruntime,
    session_options,
)
from kits_runtime.engines.protocol import EngineOptions, NetSpec

GAIN, SHIFT = np.float32(1.2345), np.float32(-7.89)


def affine() -> onnx.ModelProto:
    nodes = [("Mul", ["patches", "gain"], "scaled"), ("Add", ["scaled", "shift"], "scores")]
    return graph_of(nodes, {"gain": GAIN, "shift": SHIFT})


def there_and_back(gain: float) -> onnx.ModelProto:
    nodes = [("Mul", ["patches", "gain"], "large"), ("Mul", ["large", "share"], "scores")]
    return graph_of(nodes, {"gain": gain, "share": 1 / gain})


def emulated_scores(model: onnx.ModelProto, patches: np.ndarray, **how: object) -> np.ndarray:
    session = open_emulated(emulated_half(half_from_float(model, **how)))
    return session.run(["scores"], {"patches": patches})[0]


@given(arrays.arrays(np.float32, (1, 1, 2, 2), elements=st.floats(-2e5, 2e5, width=32)))
@settings(max_examples=50, deadline=None)
def test_emulated_half_is_numpys_float16_arithmetic(patches: np.ndarray) -> None:
    found = emulated_scores(affine(), patches)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = patches.astype(np.float16) * np.float16(GAIN)
        expected = scaled + np.float16(SHIFT)
    assert scaled.dtype == expected.dtype == np.float16
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_node_that_stays_float_is_not_rounded_until_a_half_node_reads_it() -> None:
    patches = np.full((1, 1, 2, 2), 0.1, np.float32)
    found = emulated_scores(affine(), patches, keep_float=("node_scaled",))
    product = np.float32(np.float16(0.1)) * GAIN  # weight and product in float32
    expected = np.float16(product) + np.float16(SHIFT)
    np.testing.assert_array_equal(found, np.full_like(found, expected))


def test_a_convolution_sums_in_float32_and_rounds_once() -> None:
    # 2048 + 1 + 1 + 1 + 1: in half each sum would stay at 2048; in float32 it is 2052.
    kernel = np.ones((1, 1, 2, 2), np.float32)
    model = graph_of([("Conv", ["patches", "kernel"], "scores")], {"kernel": kernel})
    patches = np.array([[[[2048, 1], [1, 2]]]], np.float32)
    assert emulated_scores(model, patches).item() == 2052.0


def test_what_passes_65504_in_between_comes_back_infinite() -> None:
    # 63 x 1024 = 64512 is half's; 64 x 1024 = 65536 and more are not.
    patches = np.array([[[[63, 64], [-64, -1]]]], np.float32)
    found = emulated_scores(there_and_back(1024.0), patches)
    np.testing.assert_array_equal(found, [[[[63, np.inf], [-np.inf, -1]]]])


@pytest.mark.parametrize("name", NAMES)
def test_the_optimised_graph_keeps_every_rounding(name: str, tmp_path: Path) -> None:
    emulated = emulated_half(half_from_float(exported(name)))
    library = import_onnxruntime()
    options = session_options(library, 1)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    library.InferenceSession(
        emulated.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    counts = [
        sum(node.op_type == "Cast" for node in model.graph.node)
        for model in (emulated, onnx.load(options.optimized_model_filepath))
    ]
    nodes = [node for node in exported(name).graph.node if node.op_type != "GlobalAveragePool"]
    exact = ("Concat", "Gather", "MaxPool", "Relu", "Reshape", "Slice", "Unsqueeze")
    rounded = [node for node in nodes if node.op_type not in exact]
    pools = len(exported(name).graph.node) - len(nodes)
    # Each rounding is two casts: of the patches, of half nodes, of what float nodes hand to half.
    assert counts == [2 * (1 + len(rounded) + pools)] * 2


def test_every_tensor_is_one_that_half_can_hold() -> None:
    emulated = emulated_half(half_from_float(exported("res-net")))
    halves = [node.output[0] for node in exported("res-net").graph.node]
    emulated.graph.output.extend(onnx.ValueInfoProto(name=name) for name in halves[:-1])
    session = open_emulated(emulated)
    for values in session.run(halves, {"patches": noise("res-net")}):
        np.testing.assert_array_equal(values, values.astype(np.float16).astype(np.float32))


def test_the_runtimes_own_engine_computes_the_same() -> None:
    model = emulated_half(half_from_float(exported("msvnet")))
    patches = noise("msvnet", windows=2)
    net = NetSpec(
        name="msvnet", input_name="patches", output_name="scores",
        in_channels=9, out_channels=2, size_vox=(64, 64),
    )  # fmt: skip
    expected = open_emulated(model, threads=2).run(None, {"patches": patches})[0]
    with OrtCpuEngine.open(model.SerializeToString(), net, EngineOptions(batch=2)) as engine:
        np.testing.assert_allclose(engine.run(patches), expected, atol=2e-3)
