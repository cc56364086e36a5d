"""The bundle in the package: made from two checkpoints, whole, small, and of use on a phantom."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trained_nets import Bright, case, trained

from kits_export.card import card_of, provenance_of
from kits_export.default_bundle import make_default_bundle, trained_by_net
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


def test_two_checkpoints_make_a_system_with_its_card(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path)
    made = trained_by_net(paths, commit="abc")
    assert (made.system.name, made.system.preset) == ("resunet-msvnet", "small")
    for name, path in paths.items():
        saved = load_file(path)
        state = made.nets[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in saved.items())
    card = card_of(made)
    assert card.licence == "Apache-2.0"
    assert card.metrics["msvnet: steps of its last training"] == 7
    assert card.metrics["resunet3d: mean Dice on held-out phantoms"] == 0.5
    assert provenance_of(made).commit == "abc"


def test_the_bundle_replaces_its_forerunner_and_stores_halves(tmp_path: Path) -> None:
    out = tmp_path / "made.kits"
    for kidney_hu in (40.0, 50.0):
        made = make_default_bundle(trained(Bright(kidney_hu=kidney_hu)), out, cases=[case()])
        assert open_bundle(out).manifest == made.manifest
    (file,) = made.manifest.nets["bright"].files.values()
    assert (file.tensors, file.weights) == ("float32", "float16")


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    paths = checkpoints(tmp_path)
    paths["msvnet"].write_bytes(paths["msvnet"].read_bytes()[:1000])
    with pytest.raises(BundleError, match="msvnet"):
        trained_by_net(paths, commit=None)


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
