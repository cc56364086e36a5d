"""Training batches, each a function of (seed, step): patches and labels as torch tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kits_trt.train.grids import AIR_HU, Sample, cut, kidney_patch, tumour_patch
from kits_trt.train.jitter import (
    HuJitter,
    PlacementJitter,
    disturb_hu,
    disturb_mask,
    draw_placement,
    view,
)
from kits_trt.train.phantom_cache import Case

WINDOW_SLICES = 64
STACK_SLICES = 5
CROP = (96, 96)
# No mirroring of whole scans: liver and spleen are not each other's mirror image.
KIDNEY_VIEW = PlacementJitter(degrees=8.0, scale=0.12, shift=8.0, mirror_x=False)
TUMOUR_VIEW = PlacementJitter(degrees=25.0, scale=0.2, shift=9.0, mirror_x=True)
KIDNEY_HU = HuJitter(gain=0.06, shift_hu=15.0, noise_hu=25.0, blur_vox=0.8)
TUMOUR_HU = HuJitter(gain=0.1, shift_hu=10.0, noise_hu=20.0, blur_vox=1.0)

Batch = tuple[Tensor, Tensor]


def kidney_batch(
    cases: Sequence[Case], *, key: tuple[int, int], size: int, plane: tuple[int, int]
) -> Batch:
    """Return ``size`` windows (1, 64, y, x) and their labels: 0 background, 1 kidney or tumour.

    Two of three windows meet a kidney, the rest lie anywhere. ``plane`` may be smaller than the
    grid's 128 x 128: the view is then moved at random inside the plane.
    """
    pairs = [
        _kidney_window(cases, np.random.default_rng((*key, member)), plane)
        for member in range(size)
    ]
    return _stacked([patch[None] for patch, _ in pairs], [labels for _, labels in pairs])


def _kidney_window(
    cases: Sequence[Case], rng: np.random.Generator, plane: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    sample = cases[int(rng.integers(len(cases)))].whole
    first = _window_start(sample.labels, rng)
    size = (WINDOW_SLICES, *sample.hu.shape[1:])
    hu = cut(sample.hu, (first, 0, 0), size, fill=AIR_HU)
    labels = cut(sample.labels, (first, 0, 0), size, fill=0)
    spare = [(size[axis + 1] - plane[axis]) / 2 for axis in range(2)]
    centre = tuple(
        (size[axis + 1] - 1) / 2 + rng.uniform(-spare[axis], spare[axis]) for axis in range(2)
    )
    placement = draw_placement(rng, KIDNEY_VIEW, shape=plane, centre=(centre[0], centre[1]))
    seen = disturb_hu(view(hu, placement, fill=AIR_HU, mode="bilinear"), rng, KIDNEY_HU)
    inside = view(labels > 0, placement, fill=0, mode="nearest") > 0.5
    return kidney_patch(seen), inside.astype(np.int64)


def _window_start(labels: NDArray[np.uint8], rng: np.random.Generator) -> int:
    """Return the first slice of a window; short scans lie anywhere inside theirs."""
    spare = labels.shape[0] - WINDOW_SLICES
    if spare <= 0:
        return int(rng.integers(spare, 1))
    filled = np.flatnonzero(labels.any(axis=(1, 2)))
    if filled.size and rng.random() < 2 / 3:
        middle = int(rng.choice(filled)) - WINDOW_SLICES // 2 + int(rng.integers(-24, 25))
        return int(np.clip(middle, 0, spare))
    return int(rng.integers(0, spare + 1))


def tumour_batch(cases: Sequence[Case], *, key: tuple[int, int], size: int) -> Batch:
    """Return ``size`` stacks (5, 96, 96) and their centre slices' labels: 0 background, 1 tumour.

    Every second stack shows a tumour; of the others most show a kidney without one.
    """
    kidneys = [block for case in cases for block in case.kidneys]
    with_tumour = [block for block in kidneys if (block.labels == 2).any()]
    pairs = []
    for member in range(size):
        rng = np.random.default_rng((*key, member))
        pool = with_tumour if member % 2 == 0 and with_tumour else kidneys
        block = pool[int(rng.integers(len(pool)))]
        wanted = block.labels == 2 if pool is with_tumour else block.labels > 0
        pairs.append(_tumour_stack(block, int(_draw_slice(wanted, rng)), rng))
    return _stacked([patch for patch, _ in pairs], [labels for _, labels in pairs])


def _draw_slice(wanted: NDArray[np.bool_], rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(wanted.any(axis=(1, 2)))))


def _tumour_stack(
    block: Sample, centre_slice: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    hu, labels = slice_stack(block, centre_slice)
    if rng.random() < 0.5:
        hu, labels = hu[::-1], labels[::-1]
    middle = ((hu.shape[1] - 1) / 2, (hu.shape[2] - 1) / 2)
    placement = draw_placement(rng, TUMOUR_VIEW, shape=CROP, centre=middle)
    seen = disturb_hu(view(hu, placement, fill=AIR_HU, mode="bilinear"), rng, TUMOUR_HU)
    mask = disturb_mask(view(labels > 0, placement, fill=0, mode="bilinear"), rng)
    tumour = view(labels[STACK_SLICES // 2, None] == 2, placement, fill=0, mode="nearest")[0]
    return tumour_patch(seen, mask), (tumour > 0.5).astype(np.int64)


def slice_stack(block: Sample, centre_slice: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return the five slices around one; air and background where the block ends."""
    first = (centre_slice - STACK_SLICES // 2, 0, 0)
    size = (STACK_SLICES, *block.hu.shape[1:])
    return cut(block.hu, first, size, fill=AIR_HU), cut(block.labels, first, size, fill=0)


def _stacked(patches: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.int64]]) -> Batch:
    return torch.from_numpy(np.stack(patches)), torch.from_numpy(np.stack(labels))
