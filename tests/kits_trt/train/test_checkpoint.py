"""A system's checkpoint: every net comes back exactly, and what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kits_runtime.errors import BundleError
from kits_trt.nets import SYSTEM_NETS, SegmentationNet, build_net
from kits_trt.train.checkpoint import (
    read_system_checkpoint,
    read_trained_nets,
    write_system_checkpoint,
    write_trained_nets,
)

FACTS = {"system": "unet2d-pair", "preset": "small", "licence": "CC0-1.0"}
TENSORS = dict[str, torch.Tensor]
ANY = "kidney-unet/"


@pytest.fixture(scope="module")
def nets() -> dict[str, SegmentationNet]:
    torch.manual_seed(3)
    return {name: kinds["small"].build() for name, kinds in SYSTEM_NETS["unet2d-pair"].items()}


@pytest.fixture
def path(tmp_path: Path, nets: dict[str, SegmentationNet]) -> Path:
    written = tmp_path / "best.safetensors"
    write_system_checkpoint(written, nets, FACTS)
    return written


def rewritten(path: Path, change: Callable[[TENSORS], object], **facts: object) -> Path:
    with safe_open(path, framework="pt") as opened:
        header = json.loads(opened.metadata()["kits"])
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"kits": json.dumps({**header, **facts})})
    return path


def test_all_nets_come_back_with_their_weights_and_facts(
    path: Path, nets: dict[str, SegmentationNet]
) -> None:
    found, facts = read_system_checkpoint(path)
    assert list(found) == ["kidney-unet", "tumour-unet"]
    for name, net in nets.items():
        assert not found[name].training
        for key, value in net.state_dict().items():
            assert torch.equal(found[name].state_dict()[key], value)
    assert facts == {
        **FACTS,
        "format": 1,
        "labels": ["background", "kidney", "tumour"],
        "nets": ["kidney-unet", "tumour-unet"],
    }


def test_reading_leaves_the_random_state_alone(path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read_system_checkpoint(path)
    assert torch.equal(torch.rand(3), expected)


def test_facts_without_system_or_with_a_net_too_few_are_refused(
    tmp_path: Path, nets: dict[str, SegmentationNet]
) -> None:
    with pytest.raises(ValueError, match="system None"):
        write_system_checkpoint(tmp_path / "x", nets, {"preset": "small"})
    with pytest.raises(ValueError, match=r"nets are \['kidney-unet'\]"):
        write_system_checkpoint(tmp_path / "x", {"kidney-unet": nets["kidney-unet"]}, FACTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 7, 1000, -1])
def test_a_truncated_file_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="expected a whole safetensors checkpoint"):
        read_system_checkpoint(path)


def test_a_missing_a_renamed_and_an_extra_tensor_are_named(path: Path) -> None:
    key = next(name for name in load_file(path) if name.startswith(ANY))
    original = path.read_bytes()
    rewritten(path, lambda tensors: tensors.pop(key))
    with pytest.raises(BundleError, match=f"{key}: missing tensor, expected one of shape"):
        read_system_checkpoint(path)
    path.write_bytes(original)
    rewritten(path, lambda tensors: tensors.update({ANY + "odd": tensors.pop(key)}))
    with pytest.raises(BundleError, match=rf"{key}: missing tensor \(found 'odd' instead\)"):
        read_system_checkpoint(path)
    path.write_bytes(original)
    rewritten(path, lambda tensors: tensors.update({ANY + "odd": torch.zeros(1)}))
    with pytest.raises(BundleError, match=f"{ANY}odd: found a tensor too many"):
        read_system_checkpoint(path)
    path.write_bytes(original)
    rewritten(path, lambda tensors: tensors.update({"liver/odd": torch.zeros(1)}))
    with pytest.raises(BundleError, match="found tensor 'liver/odd', expected those of the nets"):
        read_system_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(path: Path, value: float) -> None:
    key = next(name for name in load_file(path) if name.endswith(".weight"))
    rewritten(path, lambda tensors: tensors[key].view(-1)[:2].fill_(value))
    with pytest.raises(BundleError, match=rf"{key}: found 2 of \d+ values that are NaN or inf"):
        read_system_checkpoint(path)


def test_a_tensor_of_another_shape_or_type_is_named(path: Path) -> None:
    key = next(name for name in load_file(path) if name.endswith(".weight"))
    original = path.read_bytes()
    rewritten(path, lambda tensors: tensors.update({key: torch.zeros(3, 2)}))
    with pytest.raises(BundleError, match=rf"{key}: found shape \(3, 2\), expected"):
        read_system_checkpoint(path)
    path.write_bytes(original)
    rewritten(path, lambda tensors: tensors.update({key: tensors[key].to(torch.int32)}))
    with pytest.raises(BundleError, match=rf"{key}: found torch.int32, expected torch.float32"):
        read_system_checkpoint(path)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"format": 2}, "found format 2"),
        ({"system": "liver"}, "system 'liver'"),
        ({"preset": "huge"}, "preset 'huge'"),
        ({"system": "unet3d"}, r"found nets \['kidney-unet', 'tumour-unet'\], expected \['unet'\]"),
        ({"nets": ["kidney-unet"]}, r"found nets \['kidney-unet'\]"),
    ],
)
def test_a_header_of_something_else_is_refused(path: Path, facts: object, found: str) -> None:
    assert isinstance(facts, dict)
    with pytest.raises(BundleError, match=found):
        read_system_checkpoint(rewritten(path, lambda _tensors: None, **facts))


def test_a_file_without_our_header_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BundleError, match="expected a whole safetensors checkpoint of one of our"):
        read_system_checkpoint(tmp_path / "other.safetensors")


def test_a_checkpoint_of_a_training_under_way_holds_the_nets_so_far(
    tmp_path: Path, nets: dict[str, SegmentationNet]
) -> None:
    path, facts = tmp_path / "last.safetensors", {"system": "unet2d-pair", "preset": "small"}
    state = nets["kidney-unet"].state_dict()
    write_trained_nets(path, {"kidney-unet": state}, facts)
    found, header = read_trained_nets(path)
    assert header["nets"] == ["kidney-unet"]
    assert all(torch.equal(found["kidney-unet"].state_dict()[key], state[key]) for key in state)
    with pytest.raises(BundleError, match="kits-train --resume trains those that are missing"):
        read_system_checkpoint(path)
    with pytest.raises(ValueError, match="expected some of"):
        write_trained_nets(path, {"unet": state}, facts)


def test_cysts_as_a_class_are_told_by_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    labels = ["background", "kidney", "tumour", "cyst"]
    facts = {"system": "unet3d", "preset": "small", "labels": labels}
    states = {"unet": build_net("unet", "small", classes=4).state_dict()}
    write_trained_nets(path, states, facts)
    found, _ = read_trained_nets(path)
    with torch.inference_mode():
        assert found["unet"](torch.zeros(1, 1, 32, 64, 64)).shape[1] == 4
    write_trained_nets(path, states, {**facts, "labels": ["a"]})
    with pytest.raises(BundleError, match=r"found labels \['a'\]"):
        read_trained_nets(path)
