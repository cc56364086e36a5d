"""FP16-typed graphs: half where they should be, small, repeatable, and close to float32."""

import functools

import numpy as np
import onnx
import pytest
from exported_nets import NAMES, exported, graph_of, noise
from onnx import TensorProto

from kits_export.emulated_half import emulated_half, open_emulated
from kits_export.half_graph import FLOAT_OPERATORS, HALF_OPERATORS, HalfGraph, half_from_float
from kits_export.onnx_from_torch import weights_by_name
from kits_runtime.engines.ort_cpu import import_onnxruntime
from kits_runtime.errors import BundleError, ParityError

SE_BLOCKS = 4


def scores_of(content: bytes, patches: np.ndarray) -> np.ndarray:
    session = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"patches": patches})[0]


@functools.cache
def emulated_scores(name: str) -> np.ndarray:
    session = open_emulated(emulated_half(half_from_float(exported(name))), threads=2)
    return session.run(["scores"], {"patches": noise(name)})[0]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def types_of(model: onnx.ModelProto) -> dict[str, str]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        info.name: TensorProto.DataType.Name(info.type.tensor_type.elem_type)
        for info in (*graph.input, *graph.value_info, *graph.output)
    }


def doubled_twice() -> onnx.ModelProto:
    nodes = [("Mul", ["patches", "two"], "first"), ("Mul", ["first", "two"], "second")]
    return graph_of([*nodes, ("Add", ["second", "first"], "scores")], {"two": 2.0})


@pytest.mark.parametrize("name", NAMES)
def test_emulated_scores_stay_close_to_those_of_float32(name: str) -> None:
    # Half keeps 11 bits: tensors are 5e-4 off, and some forty layers of them give the mean below.
    # The largest error is where random weights put both classes' sums far from 0 and close to
    # each other, and the softmax turns an error of 0.1 in sums of 200 into one of 0.025.
    exact = scores_of(exported(name).SerializeToString(), noise(name))
    apart = np.abs(emulated_scores(name) - exact)
    assert 1e-5 < apart.mean() < 1e-3
    assert apart.max() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_loads_the_half_file_and_agrees_with_its_emulation(name: str) -> None:
    half = half_from_float(exported(name))
    patches = noise(name).astype(np.float16)
    found = scores_of(half.model.SerializeToString(), patches)
    assert found.dtype == np.float16
    assert np.abs(found - emulated_scores(name)).mean() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_everything_is_half_but_the_pooling_of_squeeze_and_excitation(name: str) -> None:
    half = half_from_float(exported(name))
    pools = [n for n in exported(name).graph.node if n.op_type == "GlobalAveragePool"]
    assert len(pools) == (SE_BLOCKS if name == "msvnet" else 0)
    assert half.float_nodes == tuple(node.name for node in pools)
    assert operators(half.model).count("Cast") == 2 * len(pools)
    assert {array.dtype.name for array in weights_by_name(half.model).values()} <= (
        {"float16", "int64"}
    )
    types = types_of(half.model)
    assert {name for name, kind in types.items() if kind == "FLOAT"} == {
        name for node in pools for name in (f"{node.input[0]}.float", node.output[0])
    }
    assert (types["patches"], types["scores"]) == ("FLOAT16", "FLOAT16")


@pytest.mark.parametrize("name", NAMES)
def test_a_half_file_is_half_as_large(name: str) -> None:
    half = half_from_float(exported(name)).model.ByteSize()
    assert half <= 0.55 * exported(name).ByteSize() + 64 * 1024
    assert half > 0.5 * sum(array.nbytes for array in weights_by_name(exported(name)).values())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_graph_gives_the_same_bytes_and_is_left_alone(name: str) -> None:
    given = exported(name).SerializeToString()
    first = half_from_float(exported(name)).model
    assert half_from_float(onnx.load_from_string(given)).model.SerializeToString() == (
        first.SerializeToString()
    )
    assert exported(name).SerializeToString() == given
    assert [(item.domain, item.version) for item in first.opset_import] == [("", 17)]
    assert (first.ir_version, len(first.metadata_props)) == (8, 0)


def test_weights_are_rounded_to_nearest_and_nodes_keep_their_order() -> None:
    half = half_from_float(exported("res-net"))
    before, after = weights_by_name(exported("res-net")), weights_by_name(half.model)
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array.astype(np.float16))
    assert operators(half.model) == operators(exported("res-net"))


def test_neighbours_that_stay_float_share_one_cast_in_and_have_none_between() -> None:
    half = half_from_float(doubled_twice(), keep_float=("node_second", "node_scores"))
    assert half.float_nodes == ("node_second", "node_scores")
    # 'first' is half and read twice as float32; 'scores' leaves as half.
    assert operators(half.model) == ["Mul", "Cast", "Mul", "Add", "Cast"]
    cast = half.model.graph.node[1]
    assert (list(cast.input), list(cast.output)) == (["first"], ["first.float"])
    assert list(half.model.graph.node[3].input) == ["second", "first.float"]


def test_a_weight_of_half_and_float_nodes_is_there_in_both_types() -> None:
    half = half_from_float(doubled_twice(), keep_float=("node_second",))
    types = {name: array.dtype.name for name, array in weights_by_name(half.model).items()}
    assert types == {"two": "float16", "two.float": "float32"}


def test_operators_without_a_measurement_stay_float() -> None:
    model = graph_of([("Exp", ["patches"], "big"), ("Relu", ["big"], "scores")], {})
    half = half_from_float(model)
    assert half.float_nodes == ("node_big",)
    assert operators(half.model) == ["Cast", "Exp", "Cast", "Relu"]
    every = half_from_float(model, half_operators={"Exp", "Relu"})
    assert every == HalfGraph(model=every.model, float_nodes=())
    assert operators(every.model) == ["Exp", "Relu"]


def test_no_operator_is_in_both_tables() -> None:
    assert HALF_OPERATORS & set(FLOAT_OPERATORS) == set()


def test_keeping_a_node_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"names node_x, node_y, expected nodes of the graph"):
        half_from_float(doubled_twice(), keep_float=("node_y", "node_first", "node_x"))


def test_a_weight_beyond_half_is_refused_unless_its_node_stays_float() -> None:
    model = graph_of([("Mul", ["patches", "gain"], "scores")], {"gain": [-65520.0]})
    with pytest.raises(ParityError, match=r"weight gain of node node_scores: found 65520, .*65504"):
        half_from_float(model)
    kept = half_from_float(model, keep_float=("node_scores",))
    assert weights_by_name(kept.model)["gain"] == np.float32(-65520)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("keep", [(), ("node_scores",)])
def test_a_weight_that_is_not_finite_is_refused_in_any_type(
    value: float, keep: tuple[str, ...]
) -> None:
    model = graph_of([("Mul", ["patches", "gain"], "scores")], {"gain": [[1.0], [value]]})
    with pytest.raises(BundleError, match="weight gain: found 1 of 2 values that are NaN or"):
        half_from_float(model, keep_float=keep)
