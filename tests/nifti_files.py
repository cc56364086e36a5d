"""Small NIfTI files for tests, sound ones and such that no program should write."""

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from kits_runtime.nifti import Scan
from kits_runtime.volume import volume_from_array

SHAPE = (5, 4, 3)
AFFINE = np.array([[-0.8, 0, 0, 11], [0, 0.7, 0, -22], [0, 0, 2.5, 33], [0, 0, 0, 1.0]])
ARRANGEMENTS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]


def header_like(
    shape: tuple[int, ...] = SHAPE,
    dtype: str = "<i2",
    *,
    version: int = 1,
    affine: npt.NDArray[np.float64] = AFFINE,
    **fields: Any,
) -> Any:
    """Returns a header in the byte order of the type, with single fields set at the end."""
    kind: Any = nib.Nifti1Header if version == 1 else nib.Nifti2Header
    header = kind(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_shape(shape)
    header.set_data_dtype(np.dtype(dtype))
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    return header


def write_nifti(path: Path, header: Any, data: npt.NDArray[Any] | bytes) -> Path:
    """Writes a header as it is, mistakes included, and stored numbers behind it."""
    if not isinstance(data, bytes):
        data = data.astype(header.get_data_dtype()).tobytes(order="F")
    block = header.binaryblock.ljust(header.single_vox_offset, b"\0") + data
    path.write_bytes(gzip.compress(block, 1) if path.suffix == ".gz" else block)
    return path


def voxels(dtype: npt.DTypeLike = np.int16, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[Any]:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def on_source_axes(scan: Scan) -> npt.NDArray[Any]:
    return scan.volume.orientation.to_source(scan.volume.data)


def expected_affine(affine: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the model affine that the voxels' own tests have settled."""
    return volume_from_array(voxels(), affine).affine
