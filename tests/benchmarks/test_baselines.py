"""Both baselines do the job that the shipped pipeline does, with the same weights."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import onnx
import pytest
import torch
from bundles import CARD, write_scan
from numpy.typing import NDArray

from kits_bench.graph_in_torch import GraphInTorch, torch_answer
from kits_bench.guide import Fit, Guide, GuidedNet, GuideShape
from kits_bench.latency import disagreement, read_mask
from kits_bench.monai_way import MonaiNet, MonaiWay
from kits_bench.patch_stage import PatchStage
from kits_bench.stages import labels_on_scan
from kits_bench.tuned_way import Frame, TunedWay
from kits_bench.ways import OurWay, torch_way
from kits_export.onnx_from_torch import onnx_from_net
from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.engines import EngineOptions
from kits_runtime.grid import box_of, grid_over
from kits_runtime.manifest.schema import Clip, Patches, Provenance, Resample, Scale
from kits_runtime.nifti import read_scan
from kits_runtime.steps import prepared_region
from kits_trt.nets.unet3d import UNet3dConfig
from kits_trt.systems.unet3d import unet3d

WINDOW = (8, 16, 16)


def guide() -> Guide:
    shape = GuideShape(window=WINDOW, pool=(1, 1, 1), channel=0, classes=3, whole_plane=False)
    return Guide(shape, seed=1)


def bright_ball(x: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A patch with a bright ball in dark noise, and where the ball is."""
    places = np.indices(WINDOW) - np.array([4, 8, x]).reshape(3, 1, 1, 1)
    ball = (places**2).sum(axis=0) < 10
    noise = np.random.default_rng(x).random(WINDOW, np.float32)
    return (0.2 * noise + 0.7 * ball).astype(np.float32)[None, None], ball


def fitted_net() -> GuidedNet:
    """A small seeded net whose guide finds what is bright."""
    torch.manual_seed(0)
    config = UNet3dConfig(window=WINDOW, channels=(2, 3, 4))
    guided = GuidedNet(config.build(), guide()).eval()
    fit = Fit(guided.guide)
    for x in (3, 8, 13):
        patch, ball = bright_ball(x)
        share = ball.astype(np.float32)
        fit.add(patch, [1 - share, share, share * 0])
    fit.settle()
    guided.share.fill_(2**-10)
    return guided


def pointwise_net() -> GuidedNet:
    """One whose guide calls bright voxels kidney without a look at their neighbours."""
    guided = fitted_net()
    with torch.no_grad():
        for layer in (guided.guide.first, guided.guide.second, guided.guide.third):
            middle = layer.weight[:, :, 1, 1, 1].clone()
            layer.weight.zero_()
            layer.weight[:, :, 1, 1, 1] = middle
    fit = Fit(guided.guide)
    patch = np.random.default_rng(0).random((1, 1, *WINDOW), np.float32)
    bright = (patch[0, 0] > 0.35).astype(np.float32)
    fit.add(patch, [1 - bright, bright, bright * 0])
    fit.settle()
    return guided


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx_from_net(pointwise_net(), input_shape=(1, *WINDOW))


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
    patch, ball = bright_ball(6)  # at a place that it was not fitted to
    found = torch_answer(fitted_net(), patch)[0].argmax(axis=0) == 1
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.7


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
    # B1 may take bfloat16, and a fitted guide is not sure of itself.
    assert disagreement(masks["b1"], masks["ours"])["differing_share_foreground"] < 0.35
    assert disagreement(masks["b0"], masks["ours"])["differing_share_foreground"] < 0.5
    assert asked["ours"] == asked["torch"]
    # Both crop after resampling, where the border of the body may have faded: never more work.
    assert 0 < asked["b1"] <= asked["ours"]
    assert 0 < asked["b0"] <= asked["ours"]


def test_b1_resamples_and_returns_as_the_runtime_does(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", axcodes="RAS")
    image = nib.load(scan)
    stage = PatchStage(
        net="net", spacing_mm=(6.0, 5.0, 5.0), window_hu=(-79, 304), shape=WINDOW, stride=WINDOW
    )
    frame = Frame(np.asanyarray(image.dataobj), image.affine, stage)
    volume = read_scan(scan).volume
    resample = Resample(
        spacing_mm=stage.spacing_mm, size_vox=(None, None, None), interpolation="linear"
    )
    grid = grid_over(volume.shape, volume.spacing_mm, resample)
    steps = (resample, Clip(lower_hu=-79, upper_hu=304), Scale(source=(-79, 304), target=(0, 1)))
    region = prepared_region(volume, grid, box_of(grid.shape), steps=steps, outcomes={})
    found = frame.on_model_grid().numpy()
    assert found == pytest.approx(region.values, abs=1e-4)
    scores = np.stack([1 - found, found, found**4]).astype(np.float32)
    labels = frame.on_scan_grid(torch.from_numpy(scores), (0, 0, 0))
    expected, _ = labels_on_scan(volume, grid, scores)
    own = volume.orientation.to_model(labels)
    assert expected.any()
    assert np.count_nonzero(own != expected) <= 2  # ties and rounding
