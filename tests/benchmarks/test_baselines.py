"""Both baselines do the job that the shipped pipeline does, with the same weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundles import CARD, write_scan

from kits_bench.graph_in_torch import GraphInTorch, torch_answer
from kits_bench.guide import Fit, Guide, GuidedNet, GuideShape
from kits_bench.latency import disagreement, read_mask
from kits_bench.monai_way import MonaiNet, MonaiWay
from kits_bench.tuned_way import TunedWay
from kits_bench.ways import OurWay, torch_way
from kits_export.onnx_from_torch import onnx_from_net
from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.engines import EngineOptions
from kits_runtime.manifest.schema import Patches, Provenance, Resample
from kits_trt.nets.unet3d import UNet3dConfig
from kits_trt.systems.unet3d import unet3d

WINDOW = (8, 16, 16)


def guide() -> Guide:
    shape = GuideShape(window=WINDOW, pool=(1, 1, 1), channel=0, classes=3, whole_plane=False)
    return Guide(shape, seed=1)


def fitted_net() -> GuidedNet:
    """A small seeded net whose guide finds what is bright."""
    torch.manual_seed(0)
    config = UNet3dConfig(window=WINDOW, channels=(2, 3, 4))
    guided = GuidedNet(config.build(), guide()).eval()
    fit = Fit(guided.guide)
    patch = np.random.default_rng(0).random((1, 1, *WINDOW), np.float32)
    bright = (patch[0, 0] > 0.45).astype(np.float32)
    fit.add(patch, [1 - bright, bright, bright * 0])
    fit.settle()
    guided.share.fill_(2**-10)
    return guided


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx_from_net(fitted_net(), input_shape=(1, *WINDOW))


@pytest.fixture(scope="module")
def bundle(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> Path:
    system = unet3d("small")
    (stage,) = system.stages
    resample = Resample(
        spacing_mm=(6.0, 5.0, 5.0), size_vox=(None, None, None), interpolation="linear"
    )
    windows = Patches(shape=WINDOW, stride=(6, 12, 12), join="mean")
    stage = replace(stage, steps=(resample, *stage.steps[1:]), windows=windows)
    net = replace(system.nets["unet"], size_vox=WINDOW)
    system = replace(system, stages=(stage,), nets={"unet": net})
    content = NetContent(onnx=model.SerializeToString(), tensors="float32", weights="float32")
    path = tmp_path_factory.mktemp("bundle") / "tiny.kits"
    provenance = Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={})
    write_bundle(
        path, system, {"unet": {"fp32": content}}, parity=(), provenance=provenance, card=CARD
    )
    return path


def test_monais_own_net_gives_the_bundles_scores(model: onnx.ModelProto) -> None:
    patch = np.random.default_rng(2).random((2, 1, *WINDOW), np.float32)
    expected = torch_answer(GraphInTorch(model), patch)
    assert torch_answer(MonaiNet(model).eval(), patch) == pytest.approx(expected, abs=1e-5)


def test_a_fitted_guide_finds_what_it_was_fitted_to() -> None:
    patch = np.random.default_rng(5).random((1, 1, *WINDOW), np.float32)
    found = torch_answer(fitted_net(), patch)[0].argmax(axis=0) == 1
    bright = patch[0, 0] > 0.45
    # Foreground weighs more in the fit, so nearly all of it is found, and little else.
    assert bright[found].mean() > 0.7
    assert found[bright].mean() > 0.9


@pytest.mark.filterwarnings("ignore")
def test_all_ways_ask_about_the_same_windows_and_find_much_the_same(
    bundle: Path, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    options = EngineOptions(threads=1, precision="fp32")
    ways = {
        "ours": OurWay(bundle, backend="ort-cpu", options=options),
        "torch": torch_way(bundle, tuned=False, compiled=False),
        "b0": MonaiWay(bundle),
        "b1": TunedWay(bundle, compiled=False),
    }
    masks, asked = {}, {}
    for name, way in ways.items():
        (tmp_path / name).mkdir()
        answer = way.segment(scan, tmp_path / name)
        masks[name], asked[name] = read_mask(answer.mask), answer.windows["unet"]
        assert 0 < answer.way_back_ms < answer.wall_ms
    assert masks["ours"].any()
    assert disagreement(masks["torch"], masks["ours"])["differing_share_foreground"] == 0
    assert disagreement(masks["b1"], masks["ours"])["differing_share_foreground"] < 0.2
    assert disagreement(masks["b0"], masks["ours"])["differing_share_foreground"] < 0.5
    assert asked["ours"] == asked["torch"]
    # Both crop after resampling, where the border of the body may have faded: never more work.
    assert 0 < asked["b1"] <= asked["ours"]
    assert 0 < asked["b0"] <= asked["ours"]
