"""Operations and bytes against counts by hand and by torch."""

import numpy as np
import onnx
import pytest
import torch
from nets import conv_softmax_net
from torch.nn import functional

from kits_bench.graph_in_torch import GraphInTorch, torch_answer
from kits_bench.mlperf_shaped import InstanceNorm, InstanceUNet3dConfig
from kits_bench.roofline import NetWork, Roof, peak_net, roofline_facts, work_of
from kits_bench.sixth_net import samples_per_second, windows_of
from kits_export.onnx_from_torch import onnx_from_net
from kits_trt.nets import net_config
from kits_trt.nets.cost import net_cost


def test_the_work_of_a_convolution_is_counted_as_by_hand() -> None:
    weights, bias = np.zeros((3, 2, 3, 3), np.float32), np.zeros(3, np.float32)
    model = onnx.load_from_string(conv_softmax_net(weights, bias, size=(4, 5)))
    found = work_of(model)
    assert found.flop == 2 * (3 * 4 * 5) * (2 * 3 * 3)
    assert found.least_numbers == 2 * 20 + 3 * 20 + 54 + 3
    # The convolution reads 40 + 54 + 3 and writes 60, the softmax reads and writes 60.
    assert found.unfused_numbers == 157 + 120


@pytest.mark.parametrize("name", ["unet"])
def test_the_graph_has_as_many_operations_as_the_net(name: str) -> None:
    config = net_config(name, "small")
    net = config.build()
    model = onnx_from_net(net, input_shape=config.patch_shape)
    assert work_of(model).flop == net_cost(net, config.patch_shape).flop


def test_four_convolutions_make_a_peak() -> None:
    assert work_of(peak_net(8, (16, 4), 3)).flop == 4 * 2 * 8 * 64 * 8 * 9


def test_the_roof_is_memory_below_the_ridge_and_arithmetic_above() -> None:
    roof = Roof(gflop_per_s=100, gb_per_s=20)
    assert (roof.at(1.0), roof.at(5.0), roof.at(50.0)) == (20, 100, 100)


def test_a_roofline_row_is_plain_arithmetic() -> None:
    work = NetWork(flop=4_000_000_000, least_numbers=1_000_000, unfused_numbers=500_000_000)
    roof = Roof(gflop_per_s=100, gb_per_s=20)
    found = roofline_facts(work, took_s=0.1, precision="bf16", roof=roof)
    assert found["gflop_per_s"] == 40
    assert found["unfused_mb"] == 1000
    assert found["flop_per_byte_unfused"] == 4
    assert found["attainable_gflop_per_s"] == 80
    assert found["share_of_roof"] == 0.4


@pytest.mark.parametrize("name", ["msvnet", "unet", "res-net"])
def test_a_bundles_graph_runs_in_torch_as_its_net_does(name: str) -> None:
    torch.manual_seed(3)
    config = net_config(name, "small")
    net = config.build().eval()
    model = onnx_from_net(net, input_shape=config.patch_shape)
    patch = np.random.default_rng(0).random((1, *config.patch_shape), np.float32)
    assert torch_answer(GraphInTorch(model), patch) == pytest.approx(
        torch_answer(net, patch), abs=1e-5
    )


def test_the_sixth_net_has_the_public_nets_arithmetic() -> None:
    config = InstanceUNet3dConfig()
    with torch.device("meta"):
        net = config.build()
    assert net_cost(net, config.patch_shape).gflop == pytest.approx(955, rel=0.02)


def test_its_normalisation_is_torchs() -> None:
    torch.manual_seed(0)
    norm, features = InstanceNorm(3), torch.randn(2, 3, 4, 5, 6) * 3 + 1
    norm.scale.data.uniform_(0.5, 2)
    norm.shift.data.normal_()
    expected = functional.instance_norm(
        features, weight=norm.scale.flatten(), bias=norm.shift.flatten()
    )
    assert torch.allclose(norm(features), expected, atol=1e-5)


def test_a_small_sixth_net_is_exported_in_plain_operators() -> None:
    config = InstanceUNet3dConfig(window=(8, 8, 8), channels=(2, 4, 4))
    torch.manual_seed(0)
    net = config.build().eval()
    model = onnx_from_net(net, input_shape=config.patch_shape)
    assert "InstanceNormalization" not in {node.op_type for node in model.graph.node}
    patch = np.random.default_rng(0).random((1, *config.patch_shape), np.float32)
    assert torch_answer(GraphInTorch(model), patch) == pytest.approx(
        torch_answer(net, patch), abs=1e-5
    )


def test_windows_overlap_by_half() -> None:
    # 200 slices of 1.6 mm need 1 + ceil(72 / 64) = 3 windows, 128 need one, 129 need two.
    assert windows_of((200, 128, 129), (1.6, 1.2, 1.2)) == 3 * 1 * 2
    assert windows_of((10, 10, 10), (1.6, 1.2, 1.2)) == 1


def test_samples_are_windows_of_the_published_shapes() -> None:
    found = samples_per_second(10.0)
    per_sample = found["windows_per_sample"]
    assert isinstance(per_sample, float)
    assert found["samples_per_s"] == pytest.approx(10 / per_sample, rel=1e-2)
    assert "not an MLPerf result" in str(found["remark"])
