"""Exported graphs: clean, of opset 17, and equal to torch on the small preset of every net."""

import re

import numpy as np
import onnx
import pytest
import torch
from exported_nets import NAMES, exported, lively_net, settled_net
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from kits_export.half_graph import half_from_float
from kits_export.half_storage import EXACT_SHARE, store_weights_as_half, widen_weights
from kits_export.onnx_from_torch import INPUT_NAME, onnx_from_net, weights_by_name
from kits_export.torch_parity import require_torch_parity, score_difference
from kits_runtime.engines.ort_cpu import import_onnxruntime
from kits_runtime.errors import BundleError, ParityError
from kits_trt.nets import NETS

CLASSES = {"unet": 3, "res-unet-2": 3, "res-net": 3, "kidney-unet": 1, "tumour-unet": 1}
# Where a sum, a concatenation or the scan itself is normalised there is no convolution to fold it
# into: before each block and the head of the pre-activated nets. The first block of the Res-UNet
# begins with its convolution.
UNFOLDED = {"res-unet-2": 3 + 3 + 1, "res-net": 6 + 1}


class Scaled(nn.Module):
    """The smallest net that has a normalisation to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, patches: Tensor) -> Tensor:
        return torch.softmax(self.norm(self.convolution(patches)), dim=1)


class Spread(nn.Module):
    """A net that needs an operator which opset 18 redefined."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches.amax(dim=1, keepdim=True)


class Squeezing(nn.Module):
    """Planes behind a convolution, scaled by their means."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(2, 16, 3, padding=1)

    def forward(self, patches: Tensor) -> Tensor:
        planes = self.convolution(patches)
        return planes * planes.mean((2, 3), keepdim=True)


def scores_of(model: onnx.ModelProto, patches: np.ndarray) -> np.ndarray:
    ort = import_onnxruntime()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT_NAME: patches})[0]


def conv_model(weights: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["patches", "kernel"], ["scores"], name="only")
    size = weights.shape[1]
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["batch", size, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2, 4, 4])],
        [numpy_helper.from_array(weights, "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_repeats_torchs_scores_to_1e_4(name: str) -> None:
    shape = NETS[name]["small"].patch_shape
    difference = require_torch_parity(lively_net(name), exported(name), patch_shape=shape)
    assert difference.largest > 0.0  # two implementations, not one compared with itself
    assert difference.other_class < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_is_hardly_larger_than_its_weights(name: str) -> None:
    weights = sum(array.nbytes for array in weights_by_name(exported(name)).values())
    assert weights < exported(name).ByteSize() <= 1.05 * weights + 64 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_another_export_of_a_small_net_gives_the_same_bytes(name: str) -> None:
    again = onnx_from_net(lively_net(name), input_shape=NETS[name]["small"].patch_shape)
    assert again.SerializeToString() == exported(name).SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_papers_nets_keep_scores_size_and_bytes_too(name: str) -> None:
    net, shape = settled_net(name, "paper"), NETS[name]["paper"].patch_shape
    model = onnx_from_net(net, input_shape=shape)
    assert 0.0 < require_torch_parity(net, model, patch_shape=shape).largest <= 1e-4
    weights = sum(array.nbytes for array in weights_by_name(model).values())
    content = model.SerializeToString()
    assert weights < len(content) <= 1.05 * weights + 64 * 1024
    assert onnx_from_net(net, input_shape=shape).SerializeToString() == content


def test_the_mean_of_a_large_plane_is_as_exact_as_float32_allows() -> None:
    shape, net = (2, 512, 384), Squeezing()
    model = onnx_from_net(net, input_shape=shape)
    pools = [node for node in model.graph.node if "Pool" in node.op_type]
    assert [node.op_type for node in pools] == ["AveragePool", "GlobalAveragePool"]
    patches = np.full((1, *shape), 0.45, np.float32)  # as around a mask: every sum rounds one way
    with torch.inference_mode():
        exact = net.double()(torch.from_numpy(patches).double()).numpy()
    assert np.abs(scores_of(model, patches) - exact).max() < 2e-5 * np.abs(exact).max()
    # Behind a convolution one pooling of the whole plane is further off: the tiles are for that.
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.node.remove(next(n for n in whole.graph.node if n.op_type == "AveragePool"))
    pool = next(node for node in whole.graph.node if node.op_type == "GlobalAveragePool")
    pool.input[0] = pools[0].input[0]
    assert np.abs(scores_of(whole, patches) - exact).max() > 1e-4 * np.abs(exact).max()
    assert half_from_float(model).float_nodes == tuple(node.name for node in pools)


def test_the_mean_of_a_small_plane_is_one_pooling() -> None:
    model = onnx_from_net(Squeezing(), input_shape=(2, 96, 96))
    assert [node.op_type for node in model.graph.node] == ["Conv", "GlobalAveragePool", "Mul"]


@pytest.mark.parametrize("name", NAMES)
def test_half_storage_halves_the_file_and_moves_scores_by_less_than_two_hundredths(
    name: str,
) -> None:
    shape = NETS[name]["small"].patch_shape
    stored = store_weights_as_half(exported(name))
    difference = score_difference(lively_net(name), stored, patch_shape=shape, batch=1)
    assert 0 < difference.largest < 2e-2
    assert difference.other_class < 2e-3
    weights = sum(array.nbytes for array in weights_by_name(stored).values())
    assert stored.ByteSize() <= 1.05 * weights + 64 * 1024
    assert stored.ByteSize() < 0.53 * exported(name).ByteSize() + 64 * 1024


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_of_opset_17_with_one_symbolic_axis_and_named_ends(name: str) -> None:
    model = exported(name)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    shape = NETS[name]["small"].patch_shape
    found = {
        end.name: [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim]
        for end in (*model.graph.input, *model.graph.output)
    }
    assert found == {
        "patches": ["batch", *shape],
        "scores": ["batch", CLASSES.get(name, 2), *shape[1:]],
    }


@pytest.mark.parametrize("name", NAMES)
def test_graphs_use_only_operators_that_every_engine_has(name: str) -> None:
    model = exported(name)
    allowed = {"Conv", "ConvTranspose", "Relu", "PRelu", "Add", "Mul", "Concat", "Sigmoid"}
    allowed |= {"Softmax", "AveragePool", "GlobalAveragePool", "MaxPool", "Slice"}
    allowed |= {"BatchNormalization"} if name in UNFOLDED else set()
    allowed |= {"Gather", "Reshape", "Unsqueeze"} if name == "msvnet" else set()  # its mirrors
    used = [node.op_type for node in model.graph.node]
    assert set(used) <= allowed
    assert used.count("BatchNormalization") == UNFOLDED.get(name, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNFOLDED])
def test_every_normalisation_that_follows_a_convolution_is_its_bias(name: str) -> None:
    model = exported(name)
    convolutions = [node for node in model.graph.node if node.op_type.startswith("Conv")]
    assert all(len(node.input) == 3 for node in convolutions)


@pytest.mark.parametrize("name", NAMES)
def test_graphs_carry_nothing_of_the_machine_that_made_them(name: str) -> None:
    model = exported(name)
    assert not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert not model.graph.value_info
    assert (model.producer_name, model.producer_version) == ("kits-trt", "")
    assert all(re.fullmatch(r"[\w.]+", item.name) for item in model.graph.initializer)
    structure = onnx.ModelProto()
    structure.CopyFrom(model)
    del structure.graph.initializer[:]
    text = str(structure)
    for trace in ("/", ".py", "torch", "kits_trt"):
        assert trace not in text


@pytest.mark.parametrize("size", [1, 3])
def test_batches_of_other_sizes_give_each_patch_the_same_scores(size: int) -> None:
    ort = import_onnxruntime()
    session = ort.InferenceSession(
        exported("msvnet").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    patches = np.random.default_rng(2).random((size, 9, 64, 64), dtype=np.float32)
    together = session.run(None, {"patches": patches})[0]
    alone = [session.run(None, {"patches": patch[None]})[0][0] for patch in patches]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_the_same_weights_give_the_same_bytes_and_the_net_keeps_its_mode() -> None:
    torch.manual_seed(1)
    net = Scaled().train()
    first = onnx_from_net(net, input_shape=(1, 8, 8)).SerializeToString()
    assert net.training
    assert onnx_from_net(net, input_shape=(1, 8, 8)).SerializeToString() == first


def test_normalisations_are_folded_into_weight_and_bias_as_by_hand() -> None:
    net = Scaled()
    with torch.no_grad():
        net.convolution.weight.copy_(torch.tensor([2.0, -3.0]).reshape(2, 1, 1, 1))
        net.norm.weight.copy_(torch.tensor([1.0, 4.0]))
        net.norm.bias.copy_(torch.tensor([0.5, -1.0]))
        net.norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
        net.norm.running_var.copy_(torch.tensor([4.0, 16.0]) - net.norm.eps)
    arrays = weights_by_name(onnx_from_net(net, input_shape=(1, 8, 8)))
    # Scales 1/2 and 4/4: weights 1 and -3; biases 0.5 - 1/2 and -1 - 2.
    found = sorted((array.reshape(-1).tolist() for array in arrays.values()), key=str)
    expected = sorted([[1.0, -3.0], [0.0, -3.0]], key=str)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_operator_that_opset_18_redefined_is_refused_by_name() -> None:
    with pytest.raises(ParityError, match=r"found ReduceMax \(.*expected only operators that"):
        onnx_from_net(Spread(), input_shape=(2, 8, 8))


def test_a_changed_weight_breaks_parity_with_the_difference_named() -> None:
    net = Scaled()
    model = onnx_from_net(net, input_shape=(1, 8, 8))
    with torch.no_grad():
        net.convolution.weight[0] += 1.0
    with pytest.raises(ParityError, match=r"output scores: found a difference of 0\.\d+"):
        require_torch_parity(net, model, patch_shape=(1, 8, 8))


def test_the_class_of_a_lone_channel_is_whether_it_reaches_one_half() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid())
    nn.init.ones_(net[0].weight)
    nn.init.constant_(net[0].bias, -0.25)
    model = onnx_from_net(net, input_shape=(1, 32, 32))
    nn.init.constant_(net[0].bias, -0.5)
    # Patches are uniform in [0, 1]: one half is reached from 0.25 on, or from 0.5 on.
    difference = score_difference(net, model, patch_shape=(1, 32, 32))
    assert difference.other_class == pytest.approx(0.25, abs=0.05)


def test_scores_that_are_not_numbers_break_parity() -> None:
    net = Scaled()
    model = onnx_from_net(net, input_shape=(1, 8, 8))
    nn.init.constant_(net.convolution.weight, float("nan"))
    with pytest.raises(ParityError, match="found a difference of nan"):
        require_torch_parity(net, model, patch_shape=(1, 8, 8))


def test_widening_returns_the_graph_with_weights_rounded_to_half() -> None:
    model = exported("msvnet")
    stored = store_weights_as_half(model)
    widened = widen_weights(stored)
    assert [node.op_type for node in widened.graph.node] == [
        node.op_type for node in model.graph.node
    ]
    before, after = weights_by_name(model), weights_by_name(widened)
    assert list(before) == list(after)
    for name, array in before.items():
        is_half = f"{name}.half" in weights_by_name(stored)
        rounded = array.astype(np.float16).astype(array.dtype) if is_half else array
        np.testing.assert_array_equal(after[name], rounded)


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_weights_are_stored_exactly(name: str) -> None:
    stored = weights_by_name(store_weights_as_half(exported(name)))
    exact = [array.size for array in stored.values() if array.dtype == np.float32]
    halves = [array.size for array in stored.values() if array.dtype == np.float16]
    assert max(exact) <= min(halves)
    everything = sum(exact) + sum(halves)
    assert sum(exact) <= EXACT_SHARE * everything < sum(exact) + min(halves)


def test_storing_twice_changes_nothing_and_leaves_the_given_model_alone() -> None:
    model = conv_model(np.full((2, 128, 1, 1), 0.1, dtype=np.float32))
    given = model.SerializeToString()
    once = store_weights_as_half(model)
    assert store_weights_as_half(once) == once
    assert model.SerializeToString() == given
    assert weights_by_name(once)["kernel.half"].dtype == np.float16


def test_a_weight_beyond_half_is_refused_with_tensor_node_and_value() -> None:
    weights = np.zeros((2, 128, 1, 1), dtype=np.float32)
    weights[1, 3] = -65520.0
    with pytest.raises(ParityError, match=r"weight kernel of node only: found 65520, .*65504"):
        store_weights_as_half(conv_model(weights))
    weights[1, 3] = 65504.0
    stored = store_weights_as_half(conv_model(weights))
    assert weights_by_name(stored)["kernel.half"].max() == np.float16(65504.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("size", [4, 128])
def test_a_weight_that_is_not_finite_is_refused_at_any_size(value: float, size: int) -> None:
    weights = np.zeros((2, size, 1, 1), dtype=np.float32)
    weights[0, 1] = value
    with pytest.raises(BundleError, match=rf"weight kernel: found 1 of {2 * size} values"):
        store_weights_as_half(conv_model(weights))
