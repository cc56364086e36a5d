"""A checkpoint that was trained with cysts as a class: its bundle, its masks, and their scores."""

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundles import phantom, write_scan
from torch import nn

from kits_export.cli import main
from kits_runtime import Segmenter, read_scan, write_labels
from kits_trt.evaluation.cli import main as evaluate
from kits_trt.nets import SegmentationNet, build_net, net_config
from kits_trt.train.checkpoint import write_system_checkpoint

LABELS = ["background", "kidney", "tumour", "cyst"]


def net_of_four_classes() -> SegmentationNet:
    """A net whose classes are about as frequent, each decided on by a clear margin."""
    torch.manual_seed(5)
    net = build_net("unet", "small", classes=4).eval()
    last = [layer for layer in net.modules() if isinstance(layer, nn.Conv3d)][-1]
    scan = torch.as_tensor(phantom().data[None, None].astype(np.float32)) / 400
    shape = net_config("unet", "small").patch_shape[1:]
    room = [(0, n - s) if n > s else (0, 0) for n, s in zip(shape, scan.shape[2:], strict=True)]
    patch = nn.functional.pad(scan, [edge for pair in reversed(room) for edge in pair])
    patch = patch[:, :, : shape[0], : shape[1], : shape[2]]
    with torch.no_grad():
        last.weight *= 1000
        assert last.bias is not None
        logits = net.final_logits(patch)
        last.bias -= logits.mean(dim=(0, 2, 3, 4))
    return net


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cysts")
    facts = {"system": "unet3d", "preset": "small", "labels": LABELS}
    write_system_checkpoint(folder / "best.safetensors", {"unet": net_of_four_classes()}, facts)
    scan = write_scan(folder / "scan.nii.gz")
    given = ["--ckpt", folder / "best.safetensors", "--verify", scan, "--precision", "fp32"]
    out = folder / "made.kits"
    assert main([*map(str, given), "--allow-unverified", "-o", str(out), "-q"]) == 0
    return out


def test_the_bundle_has_the_fourth_class_and_its_masks_are_scored(
    bundle: Path, tmp_path: Path
) -> None:
    scan = read_scan(write_scan(tmp_path / "scan.nii.gz"))
    with Segmenter.from_bundle(bundle, backend="ort-cpu") as segmenter:
        assert list(segmenter.bundle.manifest.labels) == LABELS
        found = segmenter.segment(scan.volume)
    assert set(np.unique(found.labels)) == {0, 1, 2, 3}
    assert list(found.record.volumes_ml) == LABELS[1:]

    for name in ("pred", "truth"):
        (tmp_path / name).mkdir()
    mask = tmp_path / "pred" / "case_00000.nii.gz"
    write_labels(mask, found.model_labels, like=scan)
    predicted = nib.load(mask)
    voxels = np.asarray(predicted.dataobj)
    truth = np.where(voxels == 3, 2, voxels).astype(np.uint8)  # every cyst is tumour in truth
    nib.save(nib.Nifti1Image(truth, predicted.affine), tmp_path / "truth" / "case_00000.nii.gz")
    given = ["--pred", tmp_path / "pred", "--gt", tmp_path / "truth", "--protocol", "kits23", "-q"]
    assert evaluate([str(part) for part in given]) == 0
    with (tmp_path / "pred" / "evaluation.csv").open(newline="") as stream:
        (row,) = [row for row in csv.DictReader(stream) if row["caseID"] == "case_00000"]
    tumour, cyst = (int((voxels == value).sum()) for value in (2, 3))
    assert float(row["Dice_kidney"]) == float(row["Dice_masses"]) == 1
    assert float(row["Dice_tumor"]) == pytest.approx(2 * tumour / (2 * tumour + cyst), abs=1e-6)
