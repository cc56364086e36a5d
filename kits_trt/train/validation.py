"""Dice of the two networks on held-out cases, each case scored as a whole."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kits_trt.nets import SegmentationNet
from kits_trt.train.grids import AIR_HU, Sample, cut, kidney_patch, tumour_patch
from kits_trt.train.patches import CROP, STACK_SLICES, WINDOW_SLICES
from kits_trt.train.phantom_cache import Case

_STACKS_AT_ONCE = 32


def dice(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Return 2 overlap / (found + true); 1 where both are empty."""
    total = int(found.sum()) + int(true.sum())
    return 2 * int((found & true).sum()) / total if total else 1.0


def kidney_dices(net: SegmentationNet, cases: Sequence[Case]) -> list[float]:
    """Return one Dice a case, from windows laid end to end, the last moved back."""
    return [_kidney_dice(net, case.whole) for case in cases]


def _kidney_dice(net: SegmentationNet, whole: Sample) -> float:
    slices = whole.hu.shape[0]
    found = np.zeros(whole.hu.shape, dtype=np.bool_)
    for first in range(0, slices, WINDOW_SLICES):
        start = max(0, min(first, slices - WINDOW_SLICES))
        hu = cut(whole.hu, (start, 0, 0), (WINDOW_SLICES, *whole.hu.shape[1:]), fill=AIR_HU)
        inside = _foreground(net, torch.from_numpy(kidney_patch(hu)[None, None]))[0]
        found[start : start + WINDOW_SLICES] = inside[: slices - start]
    return dice(found, whole.labels > 0)


def tumour_dices(net: SegmentationNet, cases: Sequence[Case]) -> list[float]:
    """Return one Dice a case, over all slices of its kidneys, inside the true kidney masks."""
    dices = []
    for case in cases:
        pairs = [_tumour_maps(net, block) for block in case.kidneys]
        found = np.concatenate([found.ravel() for found, _ in pairs])
        true = np.concatenate([true.ravel() for _, true in pairs])
        dices.append(dice(found, true))
    return dices


def _tumour_maps(
    net: SegmentationNet, block: Sample
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return found and true tumour in the middle crop of a kidney's block."""
    half = STACK_SLICES // 2
    corner = [(size - length) // 2 for size, length in zip(block.hu.shape[1:], CROP, strict=True)]
    size = (block.hu.shape[0] + 2 * half, *CROP)
    hu = cut(block.hu, (-half, *corner), size, fill=AIR_HU)
    labels = cut(block.labels, (-half, *corner), size, fill=0)
    scaled = tumour_patch(hu, (labels > 0).astype(np.float32))
    stacks = np.stack([scaled[first : first + STACK_SLICES] for first in range(len(block.hu))])
    found = [
        _foreground(net, torch.from_numpy(stacks[first : first + _STACKS_AT_ONCE]))
        for first in range(0, len(stacks), _STACKS_AT_ONCE)
    ]
    return np.concatenate(found), labels[half : len(labels) - half] == 2


def _foreground(net: SegmentationNet, patches: Tensor) -> NDArray[np.bool_]:
    """Return where the second class has the higher score; the net must be in evaluation mode."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        logits = net.final_logits(patches)
    higher: NDArray[np.bool_] = (logits[:, 1] > logits[:, 0]).numpy()
    return higher
