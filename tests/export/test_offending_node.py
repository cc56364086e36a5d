"""The node that breaks half precision is named, also where a later node hides the damage."""

import numpy as np
import onnx
import pytest
from exported_nets import exported, graph_of, noise

from kits_export.emulated_half import emulated_half
from kits_export.half_graph import half_from_float
from kits_export.offending_node import OffendingNode, first_offending_node, node_outputs
from kits_runtime.engines.ort_cpu import import_onnxruntime


def offender(
    model: onnx.ModelProto, patches: object, *, relative_error: float | None = None
) -> OffendingNode | None:
    return first_offending_node(
        model,
        emulated_half(half_from_float(model)),
        np.asarray(patches, np.float32).reshape(-1, 1, 2, 2),
        relative_error=relative_error,
    )


def hidden_overflow() -> onnx.ModelProto:
    nodes = [
        ("Add", ["patches", "zero"], "same"),
        ("Mul", ["same", "gain"], "large"),
        ("Relu", ["large"], "kept"),
        ("Mul", ["kept", "share"], "scores"),
    ]
    return graph_of(nodes, {"zero": 0.0, "gain": 4096.0, "share": 1 / 4096})


def test_the_first_node_beyond_half_is_named_though_the_scores_are_finite() -> None:
    found = offender(hidden_overflow(), [-1, -2, -16, 15])  # Relu makes 0 of minus infinity
    assert found is not None
    assert (found.name, found.operator, found.tensor) == ("node_large", "Mul", "large")
    assert (found.broken, found.size, found.largest) == (1, 4, 65536.0)
    assert found.relative_error == np.inf
    assert str(found) == (
        "node node_large (Mul), output large: found 1 of 4 values that are not finite in half and "
        "reach 65536 in float32, expected at most 65504; keep this node float32, or export this "
        "net as fp32"
    )


def test_nobody_is_named_while_all_is_within_half() -> None:
    assert offender(hidden_overflow(), [-1, -2, -15, 15]) is None


def test_what_float32_cannot_hold_either_is_not_halfs_fault() -> None:
    nodes = [("Exp", ["patches"], "big"), ("Relu", ["big"], "scores")]
    assert offender(graph_of(nodes, {}), [0, 1, 2, 100]) is None  # exp(100) is not a float32


def test_a_float_node_is_left_out_and_its_half_reader_named() -> None:
    nodes = [("Exp", ["patches"], "big"), ("Mul", ["big", "one"], "scores")]
    found = offender(graph_of(nodes, {"one": 1.0}), [0, 1, 2, 12])  # exp(12) = 162755
    assert found is not None
    assert (found.name, found.broken) == ("node_scores", 1)


def test_the_node_that_loses_the_digits_is_named_by_its_relative_error() -> None:
    nodes = [("Add", ["patches", "up"], "sum"), ("Add", ["sum", "down"], "scores")]
    model = graph_of(nodes, {"up": 2048.0, "down": -2048.0})
    # 2048.5 becomes 2048: an error of 0.5 in 2048.5, and of 0.5 in 0.5 after the way back.
    patches = [0.5, 0, 0, 0]
    first = offender(model, patches, relative_error=2e-4)
    second = offender(model, patches, relative_error=3e-4)
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("node_sum", "node_scores")
    assert first.relative_error == pytest.approx(0.5 / 2048.5)
    assert second.relative_error == 1.0
    assert "found a relative error of 1 in half, expected less" in str(second)
    assert offender(model, patches, relative_error=1.0) is None


@pytest.mark.parametrize("name", ["msvnet", "res-net"])
def test_running_node_by_node_is_running_the_graph(name: str) -> None:
    session = import_onnxruntime().InferenceSession(
        exported(name).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"patches": noise(name)})[0]
    steps = list(node_outputs(exported(name), noise(name)))
    assert [node.name for node, _, _ in steps] == [node.name for node in exported(name).graph.node]
    np.testing.assert_allclose(steps[-1][2], expected, atol=1e-5)


def test_a_planted_overflow_in_a_real_net_is_found_where_it_was_planted() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported("msvnet"))
    victim = [node for node in model.graph.node if node.op_type == "Conv"][20]
    bias = next(item for item in model.graph.initializer if item.name == victim.input[2])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] = 65504.0
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    weights = next(item for item in model.graph.initializer if item.name == victim.input[1])
    scaled = onnx.numpy_helper.to_array(weights) * np.float32(1e3)
    weights.CopyFrom(onnx.numpy_helper.from_array(scaled, weights.name))
    found = first_offending_node(model, emulated_half(half_from_float(model)), noise("msvnet"))
    assert found is not None
    assert (found.name, found.operator) == (victim.name, "Conv")
    assert found.broken > 0
    assert found.largest > 65504
