"""What a recipe's changes do to a frame; all but ``Place`` and ``Mirror``, which say where it lies.

Each takes its numbers from the generator it is given, whether or not they matter in the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits_runtime.steps import AIR_HU
from kits_trt.data.frames import Floats, Frame
from kits_trt.data.rough_masks import bitten_mask, rough_mask
from kits_trt.data.stage_pieces import TUMOUR, Piece
from kits_trt.systems.augmentation import (
    Blur,
    Change,
    Contrast,
    CutOut,
    EqualiseHistogram,
    Noise,
    RoughMask,
)

_BINS = 512


def changed(frame: Frame, change: Change, piece: Piece, rng: np.random.Generator) -> Frame:
    """The frame after one change that is not a matter of place; ``piece`` is where it is from."""
    return CHANGES[type(change)](frame, change, piece, rng)


def _add_noise(frame: Frame, change: Noise, _: Piece, rng: np.random.Generator) -> Frame:
    sigma_hu = np.float32(rng.uniform(0, change.up_to_hu))
    noise = rng.standard_normal(frame.hu.shape, dtype=np.float32)
    noise *= sigma_hu
    noise += frame.hu
    return replace(frame, hu=noise)


def _change_contrast(frame: Frame, change: Contrast, _: Piece, rng: np.random.Generator) -> Frame:
    gain = np.float32(1 + rng.uniform(-change.gain, change.gain))
    shift_hu = np.float32(rng.uniform(-change.shift_hu, change.shift_hu))
    return replace(frame, hu=frame.hu * gain + shift_hu)


def _blur(frame: Frame, change: Blur, _: Piece, rng: np.random.Generator) -> Frame:
    sigma_vox = rng.uniform(0, change.up_to_vox)
    hu: Floats = frame.hu
    for axis in (1, 2):
        hu = ndimage.gaussian_filter1d(hu, sigma_vox, axis=axis, mode="nearest", truncate=3.0)
    return replace(frame, hu=hu)


def _equalise(
    frame: Frame, change: EqualiseHistogram, piece: Piece, rng: np.random.Generator
) -> Frame:
    """Counts what the net will see: with a mask, what that lets through."""
    part = np.float32(rng.uniform(0, 1))
    lower, upper = change.lower_hu, change.upper_hu
    width_hu = (upper - lower) / _BINS
    bins = ((frame.hu - np.float32(lower)) / np.float32(width_hu)).astype(np.int32)
    within = (frame.hu >= lower) & (frame.hu < upper)
    counted = within
    if piece.masked is not None:
        counted = within & (frame.shares[piece.masked] >= 0.5)
    counts = np.bincount(bins[counted], minlength=_BINS)[:_BINS]
    if not counts.any():
        return frame
    ranks = (np.cumsum(counts) - counts / 2) / counts.sum()
    moves = (lower + ranks * (upper - lower)) - (lower + (np.arange(_BINS) + 0.5) * width_hu)
    hu = frame.hu.copy()
    hu[within] += part * moves.astype(np.float32)[np.clip(bins[within], 0, _BINS - 1)]
    return replace(frame, hu=hu)


def _cut_out(frame: Frame, change: CutOut, _: Piece, rng: np.random.Generator) -> Frame:
    hole = [slice(None)]
    for length in frame.hu.shape[1:]:
        size = round(rng.uniform(0, change.up_to) * length)
        start = int(rng.integers(0, length - size + 1))
        hole.append(slice(start, start + size))

    def without(array: NDArray[Any], fill: float) -> NDArray[Any]:
        filled = array.copy()
        filled[tuple(hole)] = fill
        return filled

    return Frame(
        hu=without(frame.hu, AIR_HU),
        labels=without(frame.labels, 0),
        shares={name: without(share, 0) for name, share in frame.shares.items()},
        insides={name: without(inside, 0) for name, inside in frame.insides.items()},
    )


def _roughen(frame: Frame, change: RoughMask, piece: Piece, rng: np.random.Generator) -> Frame:
    tumour = frame.labels == TUMOUR
    shares = {}
    for name, share in frame.shares.items():
        rough = rough_mask(share, piece.spacing_mm, rng, lumps=change.lumps)
        if change.bites:
            rough = bitten_mask(rough, tumour, piece.spacing_mm, rng, chance=change.bites)
        shares[name] = rough
    insides = {name: np.asarray(share >= 0.5) for name, share in shares.items()}
    return replace(frame, shares=shares, insides=insides)


CHANGES: Mapping[type[Change], Callable[..., Frame]] = {
    Noise: _add_noise,
    Contrast: _change_contrast,
    Blur: _blur,
    EqualiseHistogram: _equalise,
    CutOut: _cut_out,
    RoughMask: _roughen,
}
