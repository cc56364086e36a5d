"""Augmentation of one patch: where it is taken, what its CT numbers are, how good its mask is."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An in-plane view: ``shape`` pixels around a centre, turned, scaled, perhaps mirrored.

    ``centre`` is (y, x) in pixels of the source; ``scale`` above 1 enlarges what is seen.
    """

    shape: tuple[int, int]
    centre: tuple[float, float]
    degrees: float = 0.0
    scale: float = 1.0
    mirror_x: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementJitter:
    """Ranges from which a placement is drawn, symmetric around the straight view."""

    degrees: float
    scale: float
    shift: float
    mirror_x: bool


def draw_placement(
    rng: np.random.Generator,
    jitter: PlacementJitter,
    *,
    shape: tuple[int, int],
    centre: tuple[float, float],
) -> Placement:
    """Return a random view around a centre."""
    return Placement(
        shape=shape,
        centre=(
            centre[0] + rng.uniform(-jitter.shift, jitter.shift),
            centre[1] + rng.uniform(-jitter.shift, jitter.shift),
        ),
        degrees=rng.uniform(-jitter.degrees, jitter.degrees),
        scale=float(np.exp(rng.uniform(-1, 1) * np.log1p(jitter.scale))),
        mirror_x=jitter.mirror_x and bool(rng.random() < 0.5),
    )


def view(slices: NDArray[np.generic], placement: Placement, *, fill: float, mode: str) -> Floats:
    """Return slices (slice, y, x) through a placement, ``fill`` outside; the same for each.

    Args:
        slices: The source.
        placement: The view.
        fill: Value of what lies outside the source.
        mode: ``bilinear`` or ``nearest``.
    """
    from_fill = np.ascontiguousarray(slices, dtype=np.float32) - np.float32(fill)
    shifted = torch.from_numpy(from_fill)[None]
    grid = torch.from_numpy(_sampling_grid(placement, slices.shape[1:]))[None]
    seen = functional.grid_sample(
        shifted, grid, mode=mode, padding_mode="zeros", align_corners=False
    )
    moved: Floats = seen[0].numpy() + np.float32(fill)
    return moved


def _sampling_grid(placement: Placement, source: tuple[int, ...]) -> Floats:
    """Return for every pixel of the view its place (x, y) in the source, in [-1, 1]."""
    height, width = placement.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y -= (height - 1) / 2
    x -= (width - 1) / 2
    if placement.mirror_x:
        x = -x
    angle = np.deg2rad(placement.degrees)
    cosine, sine = np.cos(angle) / placement.scale, np.sin(angle) / placement.scale
    from_y = placement.centre[0] + cosine * y - sine * x
    from_x = placement.centre[1] + sine * y + cosine * x
    grid = np.stack(((2 * from_x + 1) / source[1] - 1, (2 * from_y + 1) / source[0] - 1), axis=-1)
    return grid.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class HuJitter:
    """Ranges of what may happen to CT numbers."""

    gain: float
    shift_hu: float
    noise_hu: float
    blur_vox: float


def disturb_hu(hu: Floats, rng: np.random.Generator, jitter: HuJitter) -> Floats:
    """Return CT numbers as another scanner might give them: gain, shift, blur, noise."""
    gain = 1 + rng.uniform(-jitter.gain, jitter.gain)
    result = hu * np.float32(gain) + np.float32(rng.uniform(-jitter.shift_hu, jitter.shift_hu))
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, jitter.blur_vox)
        result = ndimage.gaussian_filter(result, (0, sigma, sigma))
    if rng.random() < 0.6:
        strength = np.float32(rng.uniform(0, jitter.noise_hu))
        result = result + strength * rng.standard_normal(result.shape, dtype=np.float32)
    return result


def disturb_mask(mask: Floats, rng: np.random.Generator) -> Floats:
    """Return a kidney mask (slice, y, x) as an earlier stage might have found it, in [0, 1].

    A blurred mask is cut at a level that wanders over the patch: the border moves in and out by a
    pixel or two, corners are lost, gaps close. The cut is softened, as interpolation softens the
    border of a mask that is brought to another grid.
    """
    if rng.random() < 0.25:
        return mask
    sigma = rng.uniform(0.8, 2.2)
    blurred = ndimage.gaussian_filter(mask, (0.5, sigma, sigma))
    coarse = torch.from_numpy(rng.standard_normal((1, 1, 2, 6, 6)).astype(np.float32))
    wander = functional.interpolate(coarse, size=mask.shape, mode="trilinear", align_corners=True)
    level = 0.5 + rng.uniform(-0.18, 0.18) + 0.12 * wander[0, 0].numpy()
    kept = (blurred > np.clip(level, 0.1, 0.9)).astype(np.float32)
    softened: Floats = ndimage.gaussian_filter(kept, (0, 0.5, 0.5))
    return softened
