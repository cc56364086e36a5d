import string

import numpy as np
import pytest

from kits_runtime.lettering import draw_text_into, text_height, text_mask, text_width

INK = (250, 240, 230)


def drawn(text: str) -> str:
    return "\n".join("".join(".#"[int(dot)] for dot in row) for row in text_mask(text, size=1))


def test_l_has_a_stem_and_a_foot() -> None:
    assert drawn("L") == "#....\n" * 6 + "#####"


def test_letters_and_digits_all_differ() -> None:
    signs = string.ascii_uppercase + string.digits + " .,:-_/+=%()"
    assert len({drawn(sign) for sign in signs}) == len(signs)


def test_small_letters_are_capitals_and_unknown_signs_a_frame() -> None:
    assert drawn("kidney") == drawn("KIDNEY")
    assert drawn("\u00e9") == drawn("\u4e2d") != drawn(" ")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("text", ["", "R", "CASE_00000"])
def test_a_text_takes_the_room_that_is_announced(text: str, size: int) -> None:
    mask = text_mask(text, size=size)
    assert mask.shape == (text_height(size=size), text_width(text, size=size))
    assert mask.sum() == size**2 * text_mask(text, size=1).sum()


def test_ink_stands_where_it_is_told_with_a_black_outline() -> None:
    picture = np.full((20, 30, 3), 99, np.uint8)
    draw_text_into(picture, "I", at=(5, 10), colour=INK, size=1)
    ink = np.zeros((20, 30), np.bool_)
    ink[5:12, 10:15] = text_mask("I", size=1)
    np.testing.assert_array_equal((picture == INK).all(axis=2), ink)
    near = np.zeros_like(ink)
    for row, column in np.argwhere(ink):
        near[row - 1 : row + 2, column - 1 : column + 2] = True
    np.testing.assert_array_equal((picture == 0).all(axis=2), near & ~ink)
    assert (picture[~near] == 99).all()


@pytest.mark.parametrize("at", [(-4, -3), (17, 28), (-50, 0), (0, 90)])
def test_what_leaves_the_picture_is_cut_off_not_wrapped(at: tuple[int, int]) -> None:
    picture = np.full((20, 30, 3), 99, np.uint8)
    larger = np.full((220, 230, 3), 99, np.uint8)
    draw_text_into(picture, "R", at=at, colour=INK)
    draw_text_into(larger, "R", at=(at[0] + 100, at[1] + 100), colour=INK)
    np.testing.assert_array_equal(picture, larger[100:120, 100:130])
