import numpy as np
import pytest
from stages import volume

from kits_runtime.grid import Box, bounding_box
from kits_runtime.lettering import text_mask
from kits_runtime.preview import COLOURS, preview
from kits_runtime.volume import Volume, empty_labels, volume_from_array

CLASSES = (("kidney", 12.34), ("tumour", 5.6))
SPACING_MM = (5.0, 1.0, 2.0)
SHAPE = (60, 200, 150)  # 300 mm along each axis but y, 200 mm there
KIDNEYS = (
    (slice(10, 40), slice(80, 120), slice(20, 45)),
    (slice(10, 40), slice(80, 120), slice(105, 130)),
)
TUMOUR = (slice(15, 25), slice(90, 110), slice(30, 40))  # in the patient's right kidney


def scan_and_labels(tumour: bool = True) -> tuple[Volume, np.ndarray]:
    labels = np.zeros(SHAPE, np.uint8)
    for where in KIDNEYS:
        labels[where] = 1
    if tumour:
        labels[TUMOUR] = 2
    return volume(np.full(SHAPE, 40, np.int16), SPACING_MM), labels


def is_colour(picture: np.ndarray, value: int) -> np.ndarray:
    return np.asarray((picture == COLOURS[value]).all(axis=2))


def panels_of(picture: np.ndarray) -> list[tuple[slice, slice]]:
    """Where the three planes stand: what is not black in the middle of the sheet."""
    columns = np.flatnonzero((picture[120:-120] > 60).any(axis=(0, 2)))
    ends = np.flatnonzero(np.diff(columns) > 8)
    starts = [int(columns[0]), *(int(columns[i + 1]) for i in ends)]
    stops = [*(int(columns[i]) + 1 for i in ends), int(columns[-1]) + 1]
    found = []
    for start, stop in zip(starts, stops, strict=True):
        flat = (picture[:, start + 30 : stop - 30] == 127).all(axis=2).mean(axis=1) > 0.5
        rows = np.flatnonzero(flat)
        found.append((slice(int(rows[0]), int(rows[-1]) + 1), slice(start, stop)))
    return found


def contour_box(picture: np.ndarray, panel: tuple[slice, slice], value: int) -> Box | None:
    rows, columns = panel
    return bounding_box(is_colour(picture[rows, columns], value)[None])


def test_there_are_three_planes_with_the_proportions_of_the_patient() -> None:
    picture = preview(*scan_and_labels(), CLASSES)
    panels = panels_of(picture)
    sizes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in panels]
    # 300 mm on 480 pixels, the narrowest fit: 1.6 pixels a mm. Axial is 200 x 300 mm, coronal
    # 300 x 300 mm and sagittal 300 x 200 mm.
    assert sizes == [(320, 480), (480, 480), (480, 320)]


def test_the_contours_lie_where_the_labels_are() -> None:
    picture = preview(*scan_and_labels(), CLASSES)
    expected = {  # in mm, of the tumour: (row from, row to), (column from, column to)
        0: ((90, 110), (60, 80)),
        1: ((75, 125), (60, 80)),
        2: ((75, 125), (90, 110)),
    }
    for index, panel in enumerate(panels_of(picture)):
        box = contour_box(picture, panel, 2)
        assert box is not None
        found_mm = [(box.start[axis] / 1.6, box.stop[axis] / 1.6) for axis in (1, 2)]
        np.testing.assert_allclose(found_mm, expected[index], atol=1.3)


def test_the_patients_right_is_at_the_pictures_left() -> None:
    picture = preview(*scan_and_labels(), CLASSES)
    for rows, columns in panels_of(picture)[:2]:
        tumour = is_colour(picture[rows, columns], 2)
        width = tumour.shape[1]
        assert tumour[:, : width // 2].any()
        assert not tumour[:, width // 2 :].any()
        right = text_mask("R")
        marks = (picture[rows, columns] == (235, 235, 235)).all(axis=2)
        middle = (marks.shape[0] - right.shape[0]) // 2
        seen = marks[middle : middle + right.shape[0], 8 : 8 + right.shape[1]]
        np.testing.assert_array_equal(seen, right)


@pytest.mark.parametrize("axcodes_sign", [1, -1])
def test_a_scan_stored_the_other_way_round_gives_the_same_picture(axcodes_sign: int) -> None:
    scan, labels = scan_and_labels()
    affine = scan.affine.copy()
    data = np.asarray(scan.data)
    if axcodes_sign < 0:
        data = data[:, :, ::-1]
        affine[:3, 3] += (SHAPE[2] - 1) * affine[:3, 2]
        affine[:3, 2] *= -1
    turned = volume_from_array(data, affine)
    own = empty_labels(turned)
    own[:] = labels
    np.testing.assert_array_equal(preview(turned, own, CLASSES), preview(scan, labels, CLASSES))


def test_a_contour_lets_the_inside_be_seen() -> None:
    picture = preview(*scan_and_labels(tumour=False), CLASSES)
    for panel in panels_of(picture):
        box = contour_box(picture, panel, 1)
        assert box is not None
        rows, columns = panel
        shown = picture[rows, columns][box.slices[1:]]
        kidney = is_colour(shown, 1)
        assert kidney[0].any()
        assert kidney[:, 0].any()
        middle = shown[len(shown) // 2 - 3 : len(shown) // 2 + 3, 10:14]
        assert (middle == 127).all()  # 40 HU lie in the middle of -160 to 240


@pytest.mark.parametrize(
    ("tumour", "expected"),
    [
        (True, "AXIAL 20/60"),
        (False, "AXIAL 25/60"),
    ],
)
def test_the_planes_pass_through_the_largest_tumour_or_kidney(tumour: bool, expected: str) -> None:
    picture = preview(*scan_and_labels(tumour), CLASSES)
    grey = (picture == (170, 170, 170)).all(axis=2)
    ink = text_mask(expected)
    height, width = ink.shape
    line = grey[:100, : width + 12]
    found = [
        row
        for row in range(len(line) - height)
        if (line[row : row + height, 12 : 12 + width] == ink).all()
    ]
    assert len(found) == 1


def test_the_scale_bar_is_fifty_millimetres_long() -> None:
    picture = preview(*scan_and_labels(), CLASSES)
    rows, columns = panels_of(picture)[0]
    white = (picture[rows, columns] == (235, 235, 235)).all(axis=2)
    assert white[-11:-8, :200].sum(axis=1).tolist() == [80, 80, 80]  # 1.6 pixels a mm


def test_the_legend_names_each_class_in_its_colour() -> None:
    picture = preview(*scan_and_labels(), CLASSES)
    for value, text in ((1, "KIDNEY 12.3 ML"), (2, "TUMOUR 5.6 ML")):
        ink = text_mask(text)
        legend = is_colour(picture[-(ink.shape[0] + 12) : -12], value)
        first = int(np.flatnonzero(legend.any(axis=0))[0])
        seen = legend[:, first : first + ink.shape[1]]
        blank = int(np.flatnonzero(ink.any(axis=0))[0])
        np.testing.assert_array_equal(seen[:, : ink.shape[1] - blank], ink[:, blank:])


def test_with_a_reach_the_picture_is_the_same() -> None:
    scan, labels = scan_and_labels()
    np.testing.assert_array_equal(
        preview(scan, labels, CLASSES, reach=Box((8, 75, 11), (41, 133, 140))),
        preview(scan, labels, CLASSES),
    )


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 300, 300), (300, 2, 4), (3, 512, 8)])
def test_scans_of_any_shape_and_without_any_label_can_be_shown(shape: tuple[int, int, int]) -> None:
    scan = volume(np.full(shape, 40, np.int16), SPACING_MM)
    picture = preview(scan, np.zeros(shape, np.uint8), CLASSES, title="A LONG TITLE " * 9)
    assert picture.dtype == np.uint8
    assert not (is_colour(picture[:-40], 1) | is_colour(picture[:-40], 2)).any()
    ink = text_mask("A LONG TITLE " * 9)
    white = (picture[12 : 12 + len(ink)] == (235, 235, 235)).all(axis=2)
    np.testing.assert_array_equal(white[:, 12 : 12 + ink.shape[1]], ink)
