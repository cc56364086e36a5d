"""The bundle in the package: made from two checkpoints, whole, small, and of use on a phantom."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kits_export.default_bundle import HALF_WEIGHTS_TOLERANCE, make_default_bundle
from kits_export.torch_parity import MAX_SCORE_DIFFERENCE
from kits_runtime.bundle import open_bundle
from kits_runtime.errors import BundleError
from kits_runtime.segmenter import Segmenter, default_bundle_path
from kits_runtime.volume import volume_from_array
from kits_trt.nets import build_net
from kits_trt.phantom import draw_patient, render
from kits_trt.train.checkpoint import write_checkpoint

NETS = ("resunet3d", "msvnet")
SPACING_MM = (4.0, 2.5, 2.5)


def checkpoints(folder: Path) -> dict[str, Path]:
    torch.manual_seed(0)
    paths = {name: folder / f"{name}.safetensors" for name in NETS}
    for name, path in paths.items():
        facts = {"net": name, "preset": "small", "dice_mean": 0.5, "step": 7}
        write_checkpoint(path, build_net(name, "small"), facts)
    return paths


def test_a_bundle_is_made_of_two_checkpoints_with_its_parity(tmp_path: Path) -> None:
    make_default_bundle(checkpoints(tmp_path), tmp_path / "made.kits", commit="abc")
    manifest = open_bundle(tmp_path / "made.kits").manifest
    assert (manifest.system, manifest.preset) == ("resunet-msvnet", "small")
    assert [link.tolerance for link in manifest.parity] == 2 * [
        MAX_SCORE_DIFFERENCE,
        HALF_WEIGHTS_TOLERANCE,
    ]
    assert all(0 <= link.value <= link.tolerance for link in manifest.parity)
    assert manifest.card.metrics["msvnet: steps of its last training"] == 7
    assert {file.weights for net in manifest.nets.values() for file in net.files.values()} == {
        "float16"
    }


def test_the_same_checkpoints_make_the_same_bytes(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path)
    for name in ("one.kits", "two.kits"):
        make_default_bundle(paths, tmp_path / name, commit=None)
    assert (tmp_path / "one.kits").read_bytes() == (tmp_path / "two.kits").read_bytes()


def test_a_checkpoint_of_another_net_leaves_no_bundle(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path)
    paths["msvnet"].write_bytes(paths["msvnet"].read_bytes()[:1000])
    with pytest.raises(BundleError, match="msvnet"):
        make_default_bundle(paths, tmp_path / "made.kits", commit=None)
    assert not (tmp_path / "made.kits").exists()


def test_the_packaged_bundle_is_whole_and_small() -> None:
    path = default_bundle_path()
    open_bundle(path).verify()
    assert path.stat().st_size <= 10_000_000


def test_the_packaged_bundle_finds_the_kidneys_of_a_phantom_it_never_saw() -> None:
    patient = draw_patient(99, 3, phase="nephrographic")
    hu, labels = render(patient, shape=(80, 160, 160), spacing_mm=SPACING_MM)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (-SPACING_MM[0], -SPACING_MM[1], -SPACING_MM[2], 1)
    with Segmenter.from_bundle() as segmenter:
        found = segmenter.segment(volume_from_array(hu, affine)).labels > 0
    true = labels > 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) >= 0.8
