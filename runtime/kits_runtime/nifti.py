"""Reading a CT scan from a NIfTI file, and writing labels with the same geometry.

The voxels go from the file into one array of their final size, without a whole copy in between.
Single files (.nii, .nii.gz) of NIfTI-1 and NIfTI-2 are read in both byte orders. The format is
recognised by its content, not by the file's name.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib

from kits_runtime.errors import OutOfMemoryError, ScanError
from kits_runtime.files import replacing
from kits_runtime.memory import Memory
from kits_runtime.nifti_header import (
    Header,
    Layout,
    affine_from_header,
    labels_header,
    layout_from_header,
    read_header,
)
from kits_runtime.volume import Volume, labels_in_source_order, volume_from_array

# Two bits of deflate stand for at most 258 bytes; no gzip file holds more than this per byte.
_DEFLATE_LIMIT = 1032
_CHUNK = 1 << 20  # bytes or voxels handled at once; stays in the second-level cache
_GZIP_LEVEL = 1
_INT16 = np.iinfo(np.int16)

Follow: TypeAlias = Callable[[npt.NDArray[np.uint8], int], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """A scan as read from a file.

    Attributes:
        volume: Its voxels and geometry on model axes.
        path: The file.
        header: The file's header, kept for writing labels with the same geometry.
        warnings: What a person should know about the file, one sentence each.
    """

    volume: Volume
    path: Path
    header: Header
    warnings: tuple[str, ...]


def read_scan(
    path: str | os.PathLike[str], *, memory: Memory | None = None, follow: Follow | None = None
) -> Scan:
    """Returns the CT scan in a .nii or .nii.gz file; with a ``memory`` its voxels lie there.

    ``follow`` is told of all voxels' bytes and how many of them are there, again and again while
    they come, but only where they are the volume's own and will not be changed any more.

    The affine is nibabel's choice: the sform if it has a code, else the qform, else the voxel
    size alone, which adds a warning. Trailing axes of one voxel are dropped.

    Raises:
        ScanError: If the file cannot be read whole, or does not hold one CT volume.
        OutOfMemoryError: If its voxels do not fit into memory.
    """
    source = Path(path)
    where = str(source)
    with _as_scan_errors(where), _opened(source) as (stream, size_limit):
        header = read_header(stream, where)
        layout = layout_from_header(header, where)
        affine, warnings = affine_from_header(header, where)
        _check_size(layout, size_limit, where)
        _skip(stream, layout.offset - header.template_dtype.itemsize)
        follow = follow if _is_kept_as_stored(layout) else None
        stored = _read_stored(stream, layout, where, (memory, follow))
        ignored = _skip(stream)
    if ignored:
        warnings = (*warnings, f"{ignored} bytes behind the voxels were ignored")
    volume = volume_from_array(_hounsfield_from_stored(stored, layout), affine, where=where)
    return Scan(volume=volume, path=source, header=header, warnings=warnings)


def write_labels(
    path: str | os.PathLike[str], labels: npt.NDArray[np.uint8], *, like: Scan
) -> None:
    """Writes labels as a uint8 NIfTI file with the shape and geometry of the scan's file.

    The file appears whole or not at all. It is quickest for labels made by `empty_labels`, whose
    memory is already in the file's order.

    Args:
        path: Where to, ending in .nii or .nii.gz.
        labels: On the model axes of the scan's volume.
        like: The scan whose arrangement, affine, codes and units the file repeats.

    Raises:
        ValueError: If the name has another ending, or the labels another grid or type.
        KitsError: If the file cannot be written.
    """
    target = Path(path)
    name = target.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{target}: found another ending; expected .nii or .nii.gz; rename it")
    slabs = _slabs(labels_header(like.header), labels_in_source_order(like.volume, labels))
    with replacing(target) as file:
        if name.endswith(".nii"):
            file.writelines(slabs)
            return
        with _gzipped(file) as stream:
            stream.writelines(slabs)


@contextmanager
def _as_scan_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, igzip.BadGzipFile, igzip_lib.IsalError) as error:  # type: ignore[misc]
        raise ScanError(
            f"{where}: found damaged gzip data ({_one_line(error)}); expected one whole .nii.gz; "
            "copy or download the file again"
        ) from error
    except OSError as error:
        raise ScanError(
            f"{where}: found '{error.strerror or _one_line(error)}'; expected a readable NIfTI "
            "file; check the path and its permissions"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int]]:
    """Yields the decompressed bytes of a file and how many there can be at most."""
    if path.exists() and not path.is_file():
        raise ScanError(
            f"{path}: found {'a folder' if path.is_dir() else 'no regular file'}; expected a NIfTI "
            "file; name the .nii or .nii.gz file itself"
        )
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if compressed:
            with igzip.open(file, "rb") as stream:  # type: ignore[no-untyped-call]
                yield stream, size * _DEFLATE_LIMIT
        else:
            yield file, size


def _check_size(layout: Layout, size_limit: int, where: str) -> None:
    """Refuses, before any memory is asked for, a file too small for what its header says."""
    if layout.end > size_limit:
        raise ScanError(
            f"{where}: found {size_limit} bytes at most; expected {layout.end} for "
            f"{' x '.join(map(str, layout.shape))} voxels of {layout.dtype.name}; the file is "
            "truncated or its header is wrong: copy or download it again"
        )


def _read_stored(
    stream: IO[bytes], layout: Layout, where: str, means: tuple[Memory | None, Follow | None]
) -> npt.NDArray[Any]:
    lender, follow = means
    empty = np.empty if lender is None else lender.empty
    try:
        stored = empty(layout.shape[::-1], layout.dtype).transpose()
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{where}: found voxels of {layout.end - layout.offset} bytes; expected a scan that "
            "fits into memory; crop it, or use a machine with more"
        ) from error
    voxels = stored.reshape(-1, order="F").view(np.uint8)
    target, filled = voxels.data, 0
    while filled < len(target):
        count = stream.readinto(target[filled : filled + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise ScanError(
                f"{where}: found {filled} bytes of voxels; expected {len(target)}; the file is "
                "truncated: copy or download it again"
            )
        filled += count
        if follow is not None:
            follow(voxels, filled)
    return stored


def _is_kept_as_stored(layout: Layout) -> bool:
    """Whether stored numbers are Hounsfield units of a type that a volume has."""
    own = layout.dtype.isnative and layout.dtype.type in (np.int16, np.float32)
    return own and (layout.slope, layout.inter) == (1.0, 0.0)


def _skip(stream: IO[bytes], count: int | None = None) -> int:
    """Reads past so many bytes, or to the end, where gzip keeps its checksum; returns how many."""
    skipped = 0
    while count is None or skipped < count:
        chunk = stream.read(_CHUNK if count is None else min(_CHUNK, count - skipped))
        if not chunk:
            break
        skipped += len(chunk)
    return skipped


def _hounsfield_from_stored(stored: npt.NDArray[Any], layout: Layout) -> npt.NDArray[Any]:
    """Returns stored numbers times slope plus inter, in the memory of `stored` where possible."""
    native = stored
    if not stored.dtype.isnative:
        native = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    slope, inter = layout.slope, layout.inter
    if (slope, inter) == (1.0, 0.0):
        return native
    if native.dtype.kind in "iu" and slope.is_integer() and inter.is_integer():
        ends = [int(end) * int(slope) + int(inter) for end in (native.min(), native.max())]
        if min(ends) >= _INT16.min and max(ends) <= _INT16.max:
            return _int16_from_stored(native, int(slope), int(inter))
    return _float32_from_stored(native, slope, inter)


def _int16_from_stored(native: npt.NDArray[Any], slope: int, inter: int) -> npt.NDArray[np.int16]:
    """Returns stored integers in Hounsfield units that are known to fit int16.

    int16 arithmetic is exact modulo 2**16 and the result fits, so overflows on the way cancel.
    """
    result = native.view(np.int16) if native.itemsize == 2 else native.astype(np.int16)
    result *= np.array(slope % 2**16, np.uint16).astype(np.int16)
    result += np.array(inter % 2**16, np.uint16).astype(np.int16)
    return result


def _float32_from_stored(
    native: npt.NDArray[Any], slope: float, inter: float
) -> npt.NDArray[np.float32]:
    """Returns the float64 computation rounded once, without a whole float64 array."""
    result = np.empty(native.shape, np.float32, order="F")
    source, target = native.reshape(-1, order="F"), result.reshape(-1, order="F")
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as infinite
        for start in range(0, len(source), _CHUNK):
            slab = slice(start, start + _CHUNK)
            target[slab] = source[slab].astype(np.float64) * slope + inter
    return result


def _gzipped(file: IO[bytes]) -> IO[bytes]:
    # No name and no time in the gzip header: equal labels give equal files.
    stream: IO[bytes] = igzip.IGzipFile(  # type: ignore[assignment, no-untyped-call]
        filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0
    )
    return stream


def _slabs(header: bytes, stored: npt.NDArray[np.uint8]) -> Iterator[memoryview]:
    """Yields the bytes of a file: the header, then voxels with the first axis running fastest."""
    yield memoryview(header)
    plane = stored.shape[0] * stored.shape[1]
    step = max(1, _CHUNK // plane)
    for start in range(0, stored.shape[2], step):
        slab = np.asfortranarray(stored[:, :, start : start + step])
        yield slab.reshape(-1, order="F").data


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
