import io
import struct
import zlib

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import unhurried

from kits_runtime.png import write_png


def png_of(picture: np.ndarray) -> bytes:
    stream = io.BytesIO()
    write_png(stream, picture)
    return stream.getvalue()


@unhurried
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_an_independent_reader_gets_the_same_pixels(seed: int, height: int, width: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    read = matplotlib.image.imread(io.BytesIO(png_of(picture)), format="png")
    np.testing.assert_array_equal(np.round(read * 255).astype(np.uint8), picture)


def test_a_red_pixel_is_spelled_as_the_standard_says() -> None:
    data = png_of(np.array([[[255, 0, 0]]], np.uint8))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[8:29] == struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 2, 0, 0, 0)
    length, kind = struct.unpack(">I4s", data[33:41])
    assert kind == b"IDAT"
    assert zlib.decompress(data[41 : 41 + length]) == bytes([0, 255, 0, 0])
    assert data[-12:] == struct.pack(">I4sI", 0, b"IEND", 0xAE426082)


@pytest.mark.parametrize("picture", [np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3))])
def test_other_pictures_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"found (uint8 with 4|float64 with 3) channels"):
        write_png(io.BytesIO(), picture)
