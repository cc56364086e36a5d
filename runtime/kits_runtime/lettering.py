"""Letters for pictures: capital letters, digits and a few signs of 5 x 7 dots."""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# Seven rows a letter, five dots a row.
_ROWS: Mapping[str, str] = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01110 10001 10000 10000 10000 10001 01110",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "G": "01110 10001 10000 10111 10001 10001 01110",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "I": "01110 00100 00100 00100 00100 00100 01110",
    "J": "00111 00010 00010 00010 00010 10010 01100",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "M": "10001 11011 10101 10101 10001 10001 10001",
    "N": "10001 11001 10101 10011 10001 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "Q": "01110 10001 10001 10001 10101 10010 01101",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "V": "10001 10001 10001 10001 10001 01010 00100",
    "W": "10001 10001 10001 10101 10101 11011 10001",
    "X": "10001 01010 00100 00100 00100 01010 10001",
    "Y": "10001 10001 01010 00100 00100 00100 00100",
    "Z": "11111 00001 00010 00100 01000 10000 11111",
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "01110 10001 00001 00110 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    " ": "00000 00000 00000 00000 00000 00000 00000",
    ".": "00000 00000 00000 00000 00000 01100 01100",
    ",": "00000 00000 00000 00000 01100 00100 01000",
    ":": "00000 01100 01100 00000 01100 01100 00000",
    "-": "00000 00000 00000 11111 00000 00000 00000",
    "_": "00000 00000 00000 00000 00000 00000 11111",
    "/": "00001 00001 00010 00100 01000 10000 10000",
    "+": "00000 00100 00100 11111 00100 00100 00000",
    "=": "00000 00000 11111 00000 11111 00000 00000",
    "%": "11001 11001 00010 00100 01000 10011 10011",
    "(": "00010 00100 01000 01000 01000 00100 00010",
    ")": "01000 00100 00010 00010 00010 00100 01000",
}
_UNKNOWN = "11111 10001 10001 10001 10001 10001 11111"
_BLACK: Colour = (0, 0, 0)
_HEIGHT = 7
_ADVANCE = 6


def text_width(text: str, *, size: int = 2) -> int:
    """The pixels that a line takes from its first dot to its last."""
    return max(0, len(text) * _ADVANCE - 1) * size


def text_height(*, size: int = 2) -> int:
    """The pixels that a line is high."""
    return _HEIGHT * size


def text_mask(text: str, *, size: int = 2) -> NDArray[np.bool_]:
    """Which pixels of a line are ink; small letters become capitals, unknown signs a frame."""
    dots = np.zeros((_HEIGHT, max(0, len(text) * _ADVANCE - 1)), np.bool_)
    for index, letter in enumerate(text.upper()):
        rows = _ROWS.get(letter, _UNKNOWN).split()
        for row, bits in enumerate(rows):
            for column, bit in enumerate(bits):
                dots[row, index * _ADVANCE + column] = bit == "1"
    return dots.repeat(size, axis=0).repeat(size, axis=1)


def draw_text_into(
    picture: NDArray[np.uint8], text: str, *, at: tuple[int, int], colour: Colour, size: int = 2
) -> None:
    """Writes a line into a picture (row, column, RGB), its top left corner at (row, column).

    A black outline keeps it legible on any ground. What leaves the picture is cut off.
    """
    ink = text_mask(text, size=size)
    around = [offset for offset in itertools.product((-size, 0, size), repeat=2) if any(offset)]
    for offset in around:
        _stamp_into(picture, ink, (at[0] + offset[0], at[1] + offset[1]), _BLACK)
    _stamp_into(picture, ink, at, colour)


def _stamp_into(
    picture: NDArray[np.uint8], ink: NDArray[np.bool_], at: tuple[int, int], colour: Colour
) -> None:
    rows, columns = np.nonzero(ink)
    rows, columns = rows + at[0], columns + at[1]
    height, width, _ = picture.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    picture[rows[inside], columns[inside]] = colour
