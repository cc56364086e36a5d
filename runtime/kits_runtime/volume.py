"""A CT volume on one agreed arrangement of axes, and the way back to how the scan was stored.

Model axes are (z, y, x) running towards inferior, posterior and left: the arrangement of the KiTS
challenges, nibabel's axis codes I, P, L. A scan may be stored in any of the 48 orders and
directions of three axes; each of them is one strided view of the model's array, so changing the
arrangement copies nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kits_runtime.errors import ScanError
from kits_runtime.memory import Memory

Scalar = TypeVar("Scalar", bound=np.generic)
Affine = npt.NDArray[np.float64]
Voxels = npt.NDArray[np.int16 | np.float32]

# World axes (right, anterior, superior) along which model z, y and x lie; all three run against
# them, because z grows towards inferior, y towards posterior and x towards left.
_WORLD_AXES = (2, 1, 0)
# Direction cosines closer than this count as equal. It is above the rounding of float32 headers
# and quaternions, so that the choice at 45 degrees does not hang on it.
_TIE_DECIMALS = 4
_MAX_SHEAR_DEGREES = 0.5
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How a source array is arranged, seen from the model axes.

    Attributes:
        axes: The source axis that becomes model axis z, y and x.
        flips: Whether that source axis runs against model axis z, y and x.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def to_model(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Returns a view on model axes of a 3D array on source axes."""
        return array.transpose(self.axes)[_directions(self.flips)]

    def to_source(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Returns a view on source axes of a 3D array on model axes."""
        return array[_directions(self.flips)].transpose(_inverse(self.axes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A CT volume on model axes; `volume_from_array` makes checked ones.

    Attributes:
        data: Hounsfield units on (z, y, x), int16 or float32, in any memory order.
        affine: 4x4, from the (z, y, x) index to RAS millimetres.
        orientation: How the source array was arranged.
    """

    data: Voxels
    affine: Affine
    orientation: Orientation

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along z, y and x."""
        z, y, x = self.data.shape
        return z, y, x

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along z, y and x."""
        return spacing_mm_from_affine(self.affine)


def volume_from_array(
    data: npt.NDArray[Any], affine: npt.ArrayLike, *, where: str = "array"
) -> Volume:
    """Returns the volume of a 3D array of Hounsfield units, without copying it where possible.

    Integers that fit become int16 (native int16 is used as it is, never changed), all other
    numbers float32. An oblique scan gets the arrangement whose axes are closest to the model's.

    Args:
        data: Voxels on source axes, in any order and direction.
        affine: 4x4, from the index on source axes to RAS millimetres.
        where: What errors call the scan, usually its path.

    Raises:
        ScanError: If the shape, the geometry or the voxels cannot be a CT volume's.
    """
    if data.ndim != 3 or min(data.shape) < 2:
        raise ScanError(
            f"{where}: found an array of {_shown(data.shape)} voxels; expected three axes of at "
            "least 2 voxels; pass one volume with all its slices"
        )
    source = _checked_affine(affine, where)
    orientation = orientation_from_affine(source)
    arranged = source[:, [*orientation.axes, 3]]
    return Volume(
        data=orientation.to_model(_int16_or_float32(data, where)),
        affine=_flipped(arranged, [data.shape[axis] for axis in orientation.axes], orientation),
        orientation=orientation,
    )


def orientation_from_affine(affine: Affine) -> Orientation:
    """Returns the arrangement, of the 48 possible, that is closest to a non-singular affine.

    As nibabel's `io_orientation`: the source axis that points most clearly along one world axis
    chooses first. Ties are settled by the directions in the patient alone, never by the order in
    which the axes are stored, so all 48 arrangements of one scan meet on the same model axes.
    """
    columns = affine[:3, :3]
    left, _, right = np.linalg.svd(columns / np.linalg.norm(columns, axis=0))
    cosines = np.round(left @ right, _TIE_DECIMALS)
    source_of_world: dict[int, int] = {}
    for source in sorted(range(3), key=lambda axis: _clarity(cosines[:, axis])):
        free = [world for world in range(3) if world not in source_of_world]
        source_of_world[max(free, key=lambda world: abs(cosines[world, source]))] = source
    z, y, x = (source_of_world[world] for world in _WORLD_AXES)
    flip_z, flip_y, flip_x = (
        bool(cosines[world, source_of_world[world]] > 0) for world in _WORLD_AXES
    )
    return Orientation(axes=(z, y, x), flips=(flip_z, flip_y, flip_x))


def spacing_mm_from_affine(affine: Affine) -> tuple[float, float, float]:
    """Returns the voxel size along the affine's three index axes; infinite if it overflows."""
    with np.errstate(over="ignore"):
        first_mm, second_mm, third_mm = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return first_mm, second_mm, third_mm


def empty_labels(volume: Volume, *, memory: Memory | None = None) -> npt.NDArray[np.uint8]:
    """Returns zeros on the volume's model axes, laid out in memory as the source array is.

    Labels written into it can be stored without a transposition. With a ``memory`` they lie there.
    """
    source = volume.orientation.to_source(volume.data)
    slowest_first = sorted(range(3), key=lambda axis: -abs(source.strides[axis]))
    # np.zeros leaves the pages untouched until they are written; np.zeros_like does not.
    zeros = np.zeros if memory is None else memory.zeros
    stored = zeros([source.shape[axis] for axis in slowest_first], np.uint8)
    return volume.orientation.to_model(stored.transpose(_inverse(slowest_first)))


def source_affine(volume: Volume) -> Affine:
    """Returns the affine from the index on source axes to RAS millimetres."""
    unflipped = _flipped(volume.affine, volume.data.shape, volume.orientation)
    return unflipped[:, [*_inverse(volume.orientation.axes), 3]]


def labels_in_source_order(volume: Volume, labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Returns a view of labels on the volume's model axes as the source array was arranged.

    Raises:
        ValueError: If the labels are not uint8 or not on the volume's grid.
    """
    if labels.shape != volume.data.shape or labels.dtype != np.uint8:
        raise ValueError(
            f"labels: found {labels.dtype} on {_shown(labels.shape)} voxels; expected uint8 on "
            f"{_shown(volume.data.shape)}; bring them to the scan's grid first"
        )
    return volume.orientation.to_source(labels)


def _directions(flips: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else 1) for flip in flips)


def _inverse(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=lambda axis: axes[axis]))


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _clarity(cosines: Affine) -> tuple[float, ...]:
    """Returns a key that sorts the clearest direction first, the same for a flipped axis."""
    leading = next(value for value in cosines if value != 0)
    return (-float(np.abs(cosines).max()), *(np.sign(leading) * cosines).tolist())


def _flipped(affine: Affine, shape: Sequence[int], orientation: Orientation) -> Affine:
    """Returns a model-axes affine after turning the flipped axes; doing it twice undoes it."""
    result = affine.copy()
    for axis, flip in enumerate(orientation.flips):
        if flip:
            result[:3, 3] += (shape[axis] - 1) * result[:3, axis]
            result[:3, axis] *= -1
    return result + 0.0  # -0.0 becomes 0.0


def _checked_affine(affine: npt.ArrayLike, where: str) -> Affine:
    matrix = np.asarray(affine, np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"affine: found shape {matrix.shape}; expected (4, 4); pass a 4x4 matrix")
    if not np.isfinite(matrix).all() or matrix[3].tolist() != [0, 0, 0, 1]:
        raise ScanError(
            f"{where}: found the affine {matrix.tolist()}; expected finite numbers above a last "
            "row of 0, 0, 0, 1; correct the scan's header"
        )
    spacing_mm = spacing_mm_from_affine(matrix)
    if not (np.isfinite(spacing_mm).all() and all(spacing_mm)):
        raise ScanError(
            f"{where}: found a voxel spacing of {spacing_mm} mm; expected positive numbers (the "
            "affine is singular); correct the scan's header"
        )
    _check_shear(matrix[:3, :3] / spacing_mm, where)
    return matrix


def _check_shear(directions: Affine, where: str) -> None:
    cosine = float(np.abs(directions.T @ directions - np.eye(3)).max())
    shear_degrees = float(np.degrees(np.arcsin(min(cosine, 1.0))))
    if shear_degrees > _MAX_SHEAR_DEGREES:
        raise ScanError(
            f"{where}: found axes {shear_degrees:.2f} degrees off a right angle; expected at most "
            f"{_MAX_SHEAR_DEGREES}; resample the scan on a rectangular grid (a tilted gantry?)"
        )


def _int16_or_float32(data: npt.NDArray[Any], where: str) -> Voxels:
    if data.dtype.kind not in "biuf":
        raise ScanError(
            f"{where}: found voxels of type {data.dtype}; expected integers or real numbers; "
            "convert the scan to one value a voxel (colour and complex images are no CT)"
        )
    if data.dtype.kind != "f":
        fits = np.can_cast(data.dtype, np.int16) or (
            data.min() >= _INT16.min and data.max() <= _INT16.max
        )
        return data.astype(np.int16, copy=False) if fits else data.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        real = data.astype(np.float32, copy=False)
        finite = bool(np.isfinite(real.min()) and np.isfinite(real.max()))
    if not finite:
        raise ScanError(
            f"{where}: found {np.count_nonzero(~np.isfinite(real))} voxels that are NaN, infinite "
            "or beyond float32; expected Hounsfield units; replace them, by -1024 outside the body"
        )
    return real
