"""What the header of a NIfTI file says about its voxels, and the header that labels get.

nibabel interprets the fields. What it repairs while loading (directions in pixdim, unknown codes)
is repaired here too, so the geometry is the one nibabel reads; what would only be a guess is an
error instead.
"""

import logging
import math
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from kits_runtime.errors import ScanError
from kits_runtime.volume import Affine, spacing_mm_from_affine

Header: TypeAlias = Any  # a Nifti1Header or its subclass Nifti2Header; their methods are untyped

_HEADERS: dict[int, Header] = {348: Nifti1Header, 540: Nifti2Header}  # by the size they start with
_REPAIR_BELOW = 40  # nibabel's level of a problem that it does not repair
_MM_OF_UNIT = {1: 1000.0, 3: 0.001}  # xyzt_units of metres and micrometres
_SPACING_TOLERANCE = 0.01
_GEOMETRY_FIELDS = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the voxels of a file are stored.

    Attributes:
        shape: Voxels along the three source axes, the first of which runs fastest.
        dtype: Of the stored numbers, in the file's byte order.
        offset: Bytes before the first voxel.
        slope: Hounsfield units are stored numbers times this.
        inter: Added after the multiplication.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float

    @property
    def end(self) -> int:
        """Bytes of the whole file as far as the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes], where: str) -> Header:
    """Returns the nibabel header at the start of a stream, which is left just behind it.

    Raises:
        ScanError: If the stream does not start with the header of a NIfTI single file.
    """
    start = stream.read(4)
    size = next((size for size in _HEADERS if size in _as_both_orders(start)), 0)
    block = start + stream.read(max(size - 4, 0))
    if not size or len(block) != size:
        raise ScanError(
            f"{where}: found {_beginning(block)}; expected the header of a NIfTI file; convert the "
            "scan to .nii or .nii.gz, or copy the file again"
        )
    little = int.from_bytes(start, "little") == size
    header = _HEADERS[size](block, endianness="<" if little else ">", check=False)
    magic = header["magic"].item()
    if magic != header.single_magic:
        pair = " (a .hdr with an .img beside it)" if magic == header.pair_magic else ""
        raise ScanError(
            f"{where}: found the NIfTI magic {magic!r}{pair}; expected {header.single_magic!r}; "
            "convert the scan to one .nii or .nii.gz file"
        )
    return header


def layout_from_header(header: Header, where: str) -> Layout:
    """Returns how the voxels are stored, after nibabel's repairs to the header, in place.

    Raises:
        ScanError: If the header does not describe one CT volume.
    """
    shape = _checked_shape(header, where)
    try:
        # A logger of its own that lets nothing pass: nibabel reports each repair to the console.
        silent = logging.Logger("nibabel repairs", logging.CRITICAL + 1)
        header.check_fix(logger=silent, error_level=_REPAIR_BELOW)
        offset, dtype = header.get_data_offset(), header.get_data_dtype()
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise _impossible_field(where, error) from error
    if dtype.kind not in "iuf":
        raise ScanError(
            f"{where}: found voxels of type {header.get_value_label('datatype')}; expected "
            "integers or real numbers; convert the scan to one value a voxel"
        )
    return Layout(
        shape=shape,
        dtype=dtype,
        offset=max(offset, header.single_vox_offset),  # some programs leave it 0
        slope=1.0 if slope is None else slope,
        inter=0.0 if inter is None else inter,
    )


def affine_from_header(header: Header, where: str) -> tuple[Affine, tuple[str, ...]]:
    """Returns the affine in RAS millimetres that nibabel chooses, and what is odd about it.

    Raises:
        ScanError: If the chosen form cannot be computed.
    """
    try:
        with np.errstate(all="ignore"):  # what is not finite is refused with the voxels
            affine: Affine = np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise _impossible_field(where, error) from error
    warnings = []
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        warnings.append(
            "neither sform nor qform has a code: directions and position are a guess (x towards "
            "left, y towards anterior, z towards superior)"
        )
    found_mm = spacing_mm_from_affine(affine)
    pixdim = tuple(header["pixdim"][1:4].tolist())
    if not np.allclose(found_mm, pixdim, rtol=_SPACING_TOLERANCE, atol=0):
        warnings.append(f"the sform's voxel size {found_mm} was used; pixdim says {pixdim}")
    unit_mm = _MM_OF_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    if unit_mm != 1.0:
        warnings.append(f"the header's unit of length is {unit_mm} mm: converted")
        affine[:3] *= unit_mm
    return affine, tuple(warnings)


def labels_header(header: Header) -> bytes:
    """Returns the header of uint8 labels with the shape and geometry of a scan's header.

    It ends where the voxels start, has the scan's NIfTI version, no extensions, and is
    little-endian whatever the scan is.
    """
    result = type(header)(endianness="<")
    for field in _GEOMETRY_FIELDS:
        result[field] = header[field]
    result.set_data_dtype(np.uint8)
    result.set_slope_inter(1.0, 0.0)
    result["magic"] = result.single_magic
    result["vox_offset"] = result.single_vox_offset
    return bytes(result.binaryblock).ljust(result.single_vox_offset, b"\0")


def _as_both_orders(number: bytes) -> tuple[int, int]:
    return int.from_bytes(number, "little"), int.from_bytes(number, "big")


def _beginning(block: bytes) -> str:
    if not block:
        return "an empty file"
    return f"{len(block)} bytes of a header" if len(block) > 4 else f"a file starting {block!r}"


def _impossible_field(where: str, error: Exception) -> ScanError:
    reason = " ".join(str(error).split())
    return ScanError(
        f"{where}: found an impossible header ({reason}); expected valid NIfTI fields; write the "
        "scan again with the program that made it"
    )


def _checked_shape(header: Header, where: str) -> tuple[int, int, int]:
    axes, *sizes = header["dim"].tolist()
    sizes = sizes[: max(axes, 0)]
    shown = " x ".join(map(str, sizes))
    if not 3 <= axes <= 7 or min(sizes) < 1 or math.prod(sizes[3:]) != 1:
        raise ScanError(
            f"{where}: found {axes} axes of {shown} voxels; expected three, or more of which all "
            "but three have one voxel; save one 3D volume"
        )
    pixdim = header["pixdim"][1:4]
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        raise ScanError(
            f"{where}: found a voxel size of {pixdim.tolist()} in pixdim; expected three positive "
            "numbers of millimetres; correct the header"
        )
    first, second, third = sizes[:3]
    return first, second, third
