"""From a scan to the two stages' grids (small preset), as plain arrays on (z, y, x).

Linear interpolation between voxel centres with the outer edges of the first and last voxel kept in
place; no smoothing before down-sampling. Labels are nearest neighbours on the same grid.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

Hu = NDArray[np.int16]
Labels = NDArray[np.uint8]
Scaled = NDArray[np.float32]
Scalar = TypeVar("Scalar", bound=np.generic)

KIDNEY_PLANE = (128, 128)
KIDNEY_STEP_MM = 3.0
KIDNEY_WINDOW_HU = (-200.0, 300.0)
TUMOUR_SPACING_MM = (3.0, 1.5, 1.5)
TUMOUR_WINDOW_HU = (-100.0, 250.0)
TUMOUR_UNIT_HU = 100.0  # outside the kidney is 0, as the padding of convolutions is
KIDNEY_MEAN_HU = 45.0
AIR_HU = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A scan or a part of one on some grid: CT numbers and labels of one shape."""

    hu: Hu
    labels: Labels


def scale_window(hu: NDArray[np.floating | np.int16], window_hu: tuple[float, float]) -> Scaled:
    """Return CT numbers clipped to the window and scaled to [0, 1]."""
    lower, upper = window_hu
    scaled: Scaled = np.clip((hu - lower) / (upper - lower), 0.0, 1.0).astype(np.float32)
    return scaled


def resample(sample: Sample, shape: tuple[int, int, int]) -> Sample:
    """Return the sample on a grid of another shape over the same box."""
    hu = torch.from_numpy(sample.hu.astype(np.float32))[None, None]
    labels = torch.from_numpy(sample.labels.astype(np.float32))[None, None]
    risen = functional.interpolate(hu, size=shape, mode="trilinear", align_corners=False)
    nearest = functional.interpolate(labels, size=shape, mode="nearest-exact")
    return Sample(
        hu=np.rint(risen[0, 0].numpy()).astype(np.int16),
        labels=nearest[0, 0].numpy().astype(np.uint8),
    )


def kidney_grid(scan: Sample, spacing_mm: tuple[float, float, float]) -> Sample:
    """Return the whole scan on 3 mm slices of 128 x 128 pixels."""
    slices = max(1, round(scan.hu.shape[0] * spacing_mm[0] / KIDNEY_STEP_MM))
    return resample(scan, (slices, *KIDNEY_PLANE))


def tumour_grid(scan: Sample, spacing_mm: tuple[float, float, float]) -> Sample:
    """Return the whole scan on voxels of 3 x 1.5 x 1.5 mm."""
    z, y, x = (
        max(1, round(size * step / target))
        for size, step, target in zip(scan.hu.shape, spacing_mm, TUMOUR_SPACING_MM, strict=True)
    )
    return resample(scan, (z, y, x))


def kidney_blocks(
    sample: Sample, *, plane: tuple[int, int], margin: int, least_voxels: int
) -> list[Sample]:
    """Return one block around every connected kidney, largest first.

    A block spans the kidney's slices and ``margin`` more at either end, and ``plane`` pixels around
    the middle of its bounding box. What lies outside the scan is air and background.
    """
    parts, _ = ndimage.label(sample.labels > 0, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    order = [index for index in np.argsort(-sizes, kind="stable") if sizes[index] >= least_voxels]
    boxes = ndimage.find_objects(parts)
    return [_block(sample, boxes[index], plane=plane, margin=margin) for index in order]


def _block(
    sample: Sample, box: tuple[slice, slice, slice], *, plane: tuple[int, int], margin: int
) -> Sample:
    depth, *flat = box
    first = [depth.start - margin]
    size = [depth.stop - depth.start + 2 * margin]
    for side, length in zip(flat, plane, strict=True):
        first.append((side.start + side.stop - length) // 2)
        size.append(length)
    return Sample(
        hu=cut(sample.hu, tuple(first), tuple(size), fill=AIR_HU),
        labels=cut(sample.labels, tuple(first), tuple(size), fill=0),
    )


def cut(
    array: NDArray[Scalar], first: tuple[int, ...], size: tuple[int, ...], *, fill: int
) -> NDArray[Scalar]:
    """Return the box that starts at ``first``, filled where it leaves the array."""
    result = np.full(size, fill, dtype=array.dtype)
    source, target = [], []
    for start, length, limit in zip(first, size, array.shape, strict=True):
        low, high = max(start, 0), min(start + length, limit)
        source.append(slice(low, max(low, high)))
        target.append(slice(low - start, max(low, high) - start))
    result[tuple(target)] = array[tuple(source)]
    return result


def kidney_patch(hu: NDArray[np.floating | np.int16]) -> Scaled:
    """Return what the kidney net reads: CT numbers of a window, scaled."""
    return scale_window(hu, KIDNEY_WINDOW_HU)


def tumour_patch(hu: NDArray[np.floating | np.int16], mask: NDArray[np.floating]) -> Scaled:
    """Return what the tumour net reads, from slices (slice, y, x) and the kidney's share in each.

    CT numbers are multiplied by the share (outside becomes 0 HU), each slice is shifted where the
    share is at least one half so that its mean there becomes 45 HU, and the result is clipped and
    told in units of 100 HU.
    """
    inside = mask >= 0.5
    masked = (hu * mask).astype(np.float32)
    counts = inside.sum(axis=(1, 2))
    sums = (masked * inside).sum(axis=(1, 2))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), KIDNEY_MEAN_HU)
    shifts = (KIDNEY_MEAN_HU - means).astype(np.float32)
    lower, upper = TUMOUR_WINDOW_HU
    told: Scaled = np.clip(masked + shifts[:, None, None] * inside, lower, upper)
    return np.asarray(told / TUMOUR_UNIT_HU, np.float32)
