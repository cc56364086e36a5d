"""A checkpoint made of a bundle computes what the bundle does, and can be trained on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from kits_export.checkpoint_from_bundle import main, take_weights, undo_norms
from kits_export.onnx_from_torch import onnx_from_net
from kits_runtime.bundle import open_bundle
from kits_runtime.errors import BundleError
from kits_runtime.segmenter import default_bundle_path
from kits_trt.nets import SegmentationNet, build_net
from kits_trt.systems import SYSTEMS
from kits_trt.train.checkpoint import read_system_checkpoint
from kits_trt.train.norms import norms_of


def drawn_net(name: str) -> SegmentationNet:
    """A net whose norms and slopes are as uneven as a training leaves them."""
    torch.manual_seed(3)
    net = build_net(name, "small").eval()
    with torch.no_grad():
        for norm in norms_of(net):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
        for module in net.modules():
            if isinstance(module, torch.nn.PReLU):
                module.weight.uniform_(0.1, 0.4)
    return net


def patches_for(shape: tuple[int, ...], count: int) -> torch.Tensor:
    return torch.rand((count, *shape), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def exported() -> tuple[SegmentationNet, onnx.ModelProto, torch.Tensor]:
    net = drawn_net("msvnet")
    shape = SYSTEMS["resunet-msvnet"]("small").nets["msvnet"]
    patches = patches_for((shape.in_channels, *shape.size_vox), 3)
    return net, onnx_from_net(net, input_shape=(shape.in_channels, *shape.size_vox)), patches


def test_a_net_with_a_graphs_weights_computes_what_the_graph_does(
    exported: tuple[SegmentationNet, onnx.ModelProto, torch.Tensor],
) -> None:
    source, model, patches = exported
    net = build_net("msvnet", "small").eval()

    take_weights(net, model, patches[:1], where="here")
    with torch.inference_mode():
        expected, folded = source(patches), net(patches)
    undo_norms(net, patches)
    with torch.inference_mode():
        undone = net(patches)

    assert float((expected - folded).abs().max()) < 1e-5
    assert float((expected - undone).abs().max()) < 1e-5
    assert float(expected.std()) > 0.01


def test_norms_get_the_statistics_of_what_they_are_given(
    exported: tuple[SegmentationNet, onnx.ModelProto, torch.Tensor],
) -> None:
    _, model, patches = exported
    net = build_net("msvnet", "small").eval()
    take_weights(net, model, patches[:1], where="here")
    undo_norms(net, patches)

    with torch.no_grad():
        in_evaluation = net(patches)
        in_training = net.train()(patches)  # normalises by the statistics of these patches

    assert float((in_evaluation - in_training).abs().max()) < 1e-4


def test_a_graph_of_another_net_is_refused_by_the_tensor(
    exported: tuple[SegmentationNet, onnx.ModelProto, torch.Tensor],
) -> None:
    _, model, patches = exported
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for item in other.graph.initializer:
        if item.name == "encoders.0.convs.0.0.weight":
            item.CopyFrom(numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), item.name))

    with pytest.raises(
        BundleError, match=r"here: encoders.0.convs.0.0.weight: found shape \(8, 5, 3, 3\), exp"
    ):
        take_weights(build_net("msvnet", "small"), other, patches[:1], where="here")


def test_the_packaged_bundle_becomes_a_checkpoint_to_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "start.safetensors"

    assert main(["-o", str(out)]) == 0

    bundle = open_bundle(default_bundle_path())
    nets, facts = read_system_checkpoint(out)
    assert sorted(nets) == sorted(bundle.manifest.nets)
    assert facts["licence"] == bundle.manifest.card.licence == "Apache-2.0"
    assert facts["bundle_sha256"] == bundle.sha256
    metrics = facts["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["msvnet"]["steps"] == bundle.manifest.card.metrics["msvnet: steps"]
    assert facts["data"] == {
        "description": bundle.manifest.card.training_data,
        "real_anatomy": False,
    }


def test_a_damaged_bundle_is_one_line_and_exit_4(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bundle.kits").write_bytes(b"no zip")

    assert main(["--bundle", str(tmp_path / "bundle.kits"), "-o", str(tmp_path / "c")]) == 4

    assert "bundle.kits" in caplog.text
    assert not (tmp_path / "c").exists()
