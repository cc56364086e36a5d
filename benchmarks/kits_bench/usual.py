"""The usual ways to do what surrounds a net: nibabel, scipy, MONAI and torch, as tutorials do."""

import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Shape = tuple[int, int, int]


def read_with_nibabel(path: Path) -> NDArray[np.float64]:
    """The voxels as float64, on the file's axes."""
    image: Any = nib.load(path)
    return np.asarray(image.get_fdata())


def write_with_nibabel(path: Path, labels: Labels, affine: NDArray[np.float64]) -> Path:
    """Writes labels on the file's axes."""
    nib.save(nib.Nifti1Image(labels, affine), path)  # type: ignore[no-untyped-call]
    return path


def resample_with_scipy(
    hu: NDArray[np.int16], shape: Shape, window_hu: tuple[float, float]
) -> Array:
    """The scan on a grid of another shape, edges aligned, clipped and scaled to [0, 1]."""
    small = _zoomed(hu.astype(np.float32), shape)
    low, high = window_hu
    return (np.clip(small, low, high) - np.float32(low)) / np.float32(high - low)


def resample_with_monai(
    hu: NDArray[np.int16],
    affine: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
    window_hu: tuple[float, float],
) -> Array:
    """The scan by MONAI's Spacing (centres of the first voxels aligned) and ScaleIntensityRange."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.intensity.array import ScaleIntensityRange
    from monai.transforms.spatial.array import Spacing

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = MetaTensor(torch.from_numpy(hu.astype(np.float32)[None]), torch.from_numpy(affine))
        small = Spacing(spacing_mm, mode="bilinear")(image)
        scaled = ScaleIntensityRange(*window_hu, 0.0, 1.0, clip=True)(small)
    return np.asarray(scaled[0], np.float32)


def labels_with_scipy(scores: Array, shape: Shape) -> NDArray[np.intp]:
    """The labels of scores (class, z, y, x) at a scan's full resolution."""
    return np.asarray(np.stack([_zoomed(channel, shape) for channel in scores]).argmax(axis=0))


def labels_with_torch(scores: Array, shape: Shape) -> NDArray[np.int64]:
    """The same with torch."""
    import torch
    from torch.nn import functional

    full = functional.interpolate(torch.from_numpy(scores)[None], shape, mode="trilinear")
    return np.asarray(full[0].argmax(dim=0))


def largest_with_scipy(mask: Mask, count: int) -> Mask:
    """The largest components, labelled over the whole scan."""
    pieces, found = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=found + 1)
    sizes[0] = 0
    return np.isin(pieces, np.argsort(-sizes, kind="stable")[:count])


def filled_with_scipy(mask: Mask) -> Mask:
    """The mask with its holes filled, over the whole scan."""
    return np.asarray(ndimage.binary_fill_holes(mask))


def _zoomed(values: Array, shape: Shape) -> Array:
    zoom = [n / m for n, m in zip(shape, values.shape, strict=True)]
    return np.asarray(ndimage.zoom(values, zoom, order=1, mode="nearest", grid_mode=True))
