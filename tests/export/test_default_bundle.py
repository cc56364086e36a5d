"""The bundle in the package: made from a checkpoint, whole, small, and of use on a phantom."""

from pathlib import Path

import numpy as np
import pytest
import torch
from trained_nets import Bright, case, trained

from kits_export.card import card_of, provenance_of
from kits_export.default_bundle import main, make_default_bundle, require_free, with_remarks
from kits_export.trained import trained_from_checkpoint
from kits_runtime.bundle import open_bundle
from kits_runtime.segmenter import Segmenter, default_bundle_path
from kits_runtime.volume import volume_from_array
from kits_trt.nets import build_net
from kits_trt.phantom import draw_patient, render
from kits_trt.train.checkpoint import write_system_checkpoint

NETS = ("resunet3d", "msvnet")
SPACING_MM = (4.0, 2.5, 2.5)


def test_the_card_tells_what_the_training_says_and_what_is_remarked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    nets = {name: build_net(name, "small") for name in NETS}
    facts = {
        "system": "resunet-msvnet",
        "preset": "small",
        "licence": "Apache-2.0",
        "metrics": {"msvnet": {"steps": 7.0}},
    }
    path = tmp_path / "best.safetensors"
    write_system_checkpoint(path, nets, facts)
    made = with_remarks(trained_from_checkpoint(path), commit="abc")
    for name, net in nets.items():
        state = made.nets[name].state_dict()
        assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    card = card_of(made)
    assert card.licence == "Apache-2.0"
    assert card.metrics["msvnet: steps"] == 7
    assert "Kidneys include cysts." in card.remarks[1]
    assert provenance_of(made).commit == "abc"


FREE = {"licence": "Apache-2.0", "data": {"kind": "phantom", "real_anatomy": False}}
KITS = {
    "licence": "CC BY-NC-SA 4.0",
    "data": {"kind": "phantom", "real_anatomy": True, "description": "phantoms and more."},
}


@pytest.mark.parametrize(
    ("facts", "complaint"),
    [
        (KITS, "found data of patients under licence 'CC BY-NC-SA 4.0'"),
        ({**FREE, "data": {"kind": "nnunet"}}, "found data of patients under licence 'Apache-2.0'"),
        ({}, "found training data under licence 'unknown'"),
    ],
    ids=["kits", "nnunet", "unsaid"],
)
def test_the_package_takes_no_weights_from_patients_data(
    facts: dict[str, object],
    complaint: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    nets = {name: build_net(name, "small") for name in NETS}
    path = tmp_path / "best.safetensors"
    write_system_checkpoint(path, nets, {"system": "resunet-msvnet", "preset": "small", **facts})
    with caplog.at_level("INFO"):
        assert main(["--ckpt", str(path), "-o", str(tmp_path / "made.kits")]) == 4
    (told,) = caplog.messages
    assert told.startswith(f"{path}: {complaint}, expected procedural phantoms alone, 'Apache-2.0'")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_card_of_patients_data_names_them_and_what_is_no_test() -> None:
    card = card_of(trained(Bright(), **KITS))
    assert card.licence == "CC BY-NC-SA 4.0"
    assert card.training_data == (
        "phantoms and more. Segmentations of KiTS patients had a part in it."
    )
    assert [each for each in card.remarks if each.startswith("The frozen test is no test")]
    free = trained(Bright(), **FREE)
    require_free(free, where="here")
    assert card_of(free).remarks == ()


def test_the_bundle_replaces_its_forerunner_and_stores_halves(tmp_path: Path) -> None:
    out = tmp_path / "made.kits"
    for kidney_hu in (40.0, 50.0):
        made = make_default_bundle(trained(Bright(kidney_hu=kidney_hu)), out, cases=[case()])
        assert open_bundle(out).manifest == made.manifest
    (file,) = made.manifest.nets["bright"].files.values()
    assert (file.tensors, file.weights) == ("float32", "float16")


def test_the_packaged_bundle_is_whole_and_small() -> None:
    path = default_bundle_path()
    open_bundle(path).verify()
    assert path.stat().st_size <= 10_000_000


def test_the_packaged_bundle_finds_the_kidneys_of_phantoms_it_never_saw() -> None:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (-SPACING_MM[0], -SPACING_MM[1], -SPACING_MM[2], 1)
    dices = []
    with Segmenter.from_bundle() as segmenter:
        for number in range(3, 8):
            patient = draw_patient(99, number, phase="nephrographic")
            hu, labels = render(patient, shape=(80, 160, 160), spacing_mm=SPACING_MM)
            found = segmenter.segment(volume_from_array(hu, affine)).labels > 0
            true = labels > 0
            dices.append(2 * (found & true).sum() / (found.sum() + true.sum()))
    assert np.median(dices) >= 0.9
    assert min(dices) >= 0.5
