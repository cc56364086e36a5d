"""ONNX files taken apart without the onnx package, compared with what that package reads."""

import nets
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kits_export.half_storage import store_weights_as_half, widen_weights
from kits_runtime.engines.tensorrt import opset_of, widened
from kits_runtime.errors import EngineIncompatibleError

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(2, 1, 3, 3)).astype(np.float32)
BIAS = np.asarray([0.5, -2], np.float32)


def net(stored: nets.Stored) -> bytes:
    return nets.conv_softmax_net(WEIGHTS, BIAS, size=(4, 4), stored=stored)


def constants(content: bytes) -> dict[str, np.ndarray]:
    graph = onnx.load_from_string(content).graph
    return {item.name: numpy_helper.to_array(item) for item in graph.initializer}


def cast_net(*, read_twice: bool = False, to: int = TensorProto.FLOAT) -> bytes:
    """A half constant that is widened and added; perhaps added as half as well."""
    item = numpy_helper.from_array(np.asarray([1.5, -3], np.float16), "c")
    nodes = [
        helper.make_node("Cast", ["c"], ["wide"], to=to),
        helper.make_node("Add", ["patches", "wide"], ["scores"]),
    ]
    outputs = ["scores"]
    if read_twice:
        nodes.append(helper.make_node("Neg", ["c"], ["more"]))
        outputs.append("more")
    kinds = {"scores": TensorProto.FLOAT, "more": TensorProto.FLOAT16}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(name, kinds[name], [2]) for name in outputs],
        [item],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_stored_halves_become_the_float32_constants_that_the_casts_named() -> None:
    content = widened(net("half"))
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    found = constants(content)
    assert set(found) == {"wide_weights", "wide_bias"}
    assert found["wide_weights"].dtype == np.float32
    np.testing.assert_array_equal(found["wide_weights"], WEIGHTS.astype(np.float16))
    np.testing.assert_array_equal(found["wide_bias"], BIAS)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert kinds == ["Conv", "Softmax"]


def test_it_repeats_what_the_exporter_does_with_the_onnx_package() -> None:
    stored = store_weights_as_half(onnx.load_from_string(net("float32")), exact_share=0.0)
    own = constants(widened(bytes(stored.SerializeToString())))
    reference = constants(bytes(widen_weights(stored).SerializeToString()))
    assert own.keys() == reference.keys()
    for name, values in reference.items():
        np.testing.assert_array_equal(own[name], values)


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_nets_without_widened_weights_come_back_as_they_are(stored: nets.Stored) -> None:
    content = net(stored)
    assert widened(content) is content


def test_a_constant_that_others_read_stays_beside_its_wide_copy() -> None:
    found = constants(widened(cast_net(read_twice=True)))
    assert {name: values.dtype.name for name, values in found.items()} == {
        "wide": "float32",
        "c": "float16",
    }
    assert found["wide"].tolist() == found["c"].tolist() == [1.5, -3.0]


def test_casts_to_other_types_stay() -> None:
    content = cast_net(to=TensorProto.DOUBLE)
    assert widened(content) is content


def test_halves_that_are_stored_as_numbers_are_understood() -> None:
    model = onnx.load_from_string(cast_net())
    item = model.graph.initializer[0]
    bits = np.frombuffer(item.raw_data, np.uint16)
    item.ClearField("raw_data")
    item.int32_data.extend(int(each) for each in bits)
    assert constants(widened(bytes(model.SerializeToString())))["wide"].tolist() == [1.5, -3.0]


@pytest.mark.parametrize("version", [11, 17, 21])
def test_the_opset_is_that_of_onnxs_own_operators(version: int) -> None:
    model = onnx.load_from_string(net("float32"))
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("other", 3), helper.make_opsetid("", version)])
    assert opset_of(bytes(model.SerializeToString())) == version


def test_a_file_that_asks_for_no_opset_has_none() -> None:
    assert opset_of(b"") is None


@pytest.mark.parametrize("content", [b"garbage", b"\xff" * 12, b"\x3a\x05\x01", b"\x0d\x01"])
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(EngineIncompatibleError, match=r"ONNX file: found .*, expected an ONNX"):
        widened(content)


def outcome(content: bytes) -> str:
    try:
        widened(content)
        opset_of(content)
    except EngineIncompatibleError as error:
        return str(error).partition("found")[0]
    return "an answer"


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_an_answer_or_a_clear_error(place: int, bit: int) -> None:
    content = bytearray(net("half"))
    content[place % len(content)] ^= 1 << bit
    assert outcome(bytes(content)) in ("an answer", "ONNX file: ")


@given(length=st.integers(0, 600))
def test_a_truncated_file_is_an_answer_or_a_clear_error(length: int) -> None:
    assert outcome(net("half")[:length]) in ("an answer", "ONNX file: ")
