"""A picture of a result: axial, coronal and sagittal planes through what matters most.

The planes pass through the largest tumour, else through the largest kidney, else through the
middle of the scan. They are shown as radiologists expect: seen from the feet and from the front,
the patient's right at the picture's left, at one scale for all three and with true proportions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import linear_taps
from kits_runtime.lettering import Colour, draw_text_into, text_height, text_width
from kits_runtime.resample import interpolate
from kits_runtime.volume import Volume

Picture = NDArray[np.uint8]
Labels = NDArray[np.uint8]

COLOURS: Mapping[int, Colour] = {1: (64, 200, 120), 2: (255, 80, 64), 3: (80, 160, 255)}
_OTHER_COLOUR: Colour = (255, 220, 80)
_WHITE: Colour = (235, 235, 235)
_GREY: Colour = (170, 170, 170)
_LOWER_HU, _UPPER_HU = -160.0, 240.0
_PANEL_WIDTH, _PANEL_HEIGHT = 480, 560
_GAP = 12
_SCALE_BAR_MM = 50.0
# A plane is one of the scan's axes and, for each side of the picture, the patient's side.
_PLANES = (
    ("AXIAL", 0, ("R", "L", "A", "P")),
    ("CORONAL", 1, ("R", "L", "S", "I")),
    ("SAGITTAL", 2, ("A", "P", "S", "I")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """One plane of the scan, as HU and labels, with its pixel spacing (row, column)."""

    hu: NDArray[np.float32]
    labels: Labels
    spacing_mm: tuple[float, float]


def preview(volume: Volume, labels: Labels, names: Sequence[str], *, title: str = "") -> Picture:
    """The picture (row, column, RGB) of labels on the volume's (z, y, x) axes.

    ``names`` are the labels' names by value; the legend says how much of each there is.
    """
    focus = _focus(labels)
    views = [_view(volume, labels, axis, focus[axis]) for _, axis, _ in _PLANES]
    mm_a_pixel = max(_needed_mm_a_pixel(view) for view in views)
    panels = []
    for (name, axis, sides), view in zip(_PLANES, views, strict=True):
        panel = _panel(view, mm_a_pixel)
        _annotate_into(panel, f"{name} {focus[axis] + 1}/{volume.shape[axis]}", sides)
        panels.append(panel)
    _scale_bar_into(panels[0], mm_a_pixel)
    return _sheet(panels, _legend(volume, labels, names), title)


def _focus(labels: Labels) -> tuple[int, int, int]:
    """The voxel through which the planes pass: the middle of the largest object that matters."""
    from scipy import ndimage  # a fifth of a second to import: only where it is needed

    for value in (2, 1):
        mask = labels == value
        found = ndimage.find_objects(mask.astype(np.uint8))
        if not found:
            continue
        box = found[0]
        pieces, count = ndimage.label(mask[box])
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        inside = np.argwhere(pieces == sizes.argmax())
        middle = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        z, y, x = (int(m) + edge.start for m, edge in zip(middle, box, strict=True))
        return z, y, x
    z, y, x = (size // 2 for size in labels.shape)
    return z, y, x


def _view(volume: Volume, labels: Labels, axis: int, index: int) -> _View:
    row_mm, column_mm = (mm for a, mm in enumerate(volume.spacing_mm) if a != axis)
    return _View(
        hu=np.take(volume.data, index, axis=axis).astype(np.float32),
        labels=np.take(labels, index, axis=axis),
        spacing_mm=(row_mm, column_mm),
    )


def _needed_mm_a_pixel(view: _View) -> float:
    rows, columns = view.hu.shape
    row_mm, column_mm = view.spacing_mm
    return float(max(rows * row_mm / _PANEL_HEIGHT, columns * column_mm / _PANEL_WIDTH))


def _panel(view: _View, mm_a_pixel: float) -> Picture:
    grey = _enlarged(view.hu, view.spacing_mm, mm_a_pixel)
    shade = np.clip((grey - _LOWER_HU) / (_UPPER_HU - _LOWER_HU), 0, 1) * 255
    panel = np.repeat(shade.astype(np.uint8)[..., None], 3, axis=2)
    for value in np.unique(view.labels[view.labels > 0]).tolist():
        mask = (view.labels == value).astype(np.float32)
        shown = _enlarged(mask, view.spacing_mm, mm_a_pixel) >= 0.5
        panel[_rim(shown)] = COLOURS.get(value, _OTHER_COLOUR)
    return panel


def _rim(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask that touch another one outside it, by a side."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def _enlarged(
    plane: NDArray[np.float32], spacing_mm: tuple[float, float], mm_a_pixel: float
) -> NDArray[np.float32]:
    for axis in range(2):
        source = plane.shape[axis]
        target = max(1, round(source * spacing_mm[axis] / mm_a_pixel))
        taps = linear_taps(target, source, start=0, stop=target, first=0, last=source - 1)
        plane = interpolate(plane, axis, taps)
    return plane


def _annotate_into(panel: Picture, name: str, sides: Sequence[str]) -> None:
    height, width, _ = panel.shape
    letter_w, letter_h = text_width("R"), text_height()
    left, right, top, bottom = sides
    middle_row, middle_column = (height - letter_h) // 2, (width - letter_w) // 2
    draw_text_into(panel, left, at=(middle_row, 6), colour=_WHITE)
    draw_text_into(panel, right, at=(middle_row, width - letter_w - 6), colour=_WHITE)
    draw_text_into(panel, top, at=(6, middle_column), colour=_WHITE)
    draw_text_into(panel, bottom, at=(height - letter_h - 6, middle_column), colour=_WHITE)
    draw_text_into(panel, name, at=(6, 6), colour=_GREY, size=1)


def _scale_bar_into(panel: Picture, mm_a_pixel: float) -> None:
    height, _, _ = panel.shape
    length = round(_SCALE_BAR_MM / mm_a_pixel)
    panel[height - 10 : height - 7, 8 : 8 + length] = _WHITE
    label = f"{_SCALE_BAR_MM:.0f} MM"
    draw_text_into(panel, label, at=(height - 22, 8), colour=_WHITE, size=1)


def _legend(volume: Volume, labels: Labels, names: Sequence[str]) -> list[tuple[str, Colour]]:
    counts = np.bincount(labels.ravel(order="K"), minlength=len(names))
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    lines = [
        (f"{name} {counts[value] * voxel_ml:.1f} ML", COLOURS.get(value, _OTHER_COLOUR))
        for value, name in enumerate(names)
        if value
    ]
    window = f"WINDOW {_LOWER_HU:.0f} TO {_UPPER_HU:.0f} HU"
    return [*lines, (window, _GREY), ("RESEARCH USE ONLY", _GREY)]


def _sheet(panels: Sequence[Picture], legend: Sequence[tuple[str, Colour]], title: str) -> Picture:
    band = text_height() + 2 * _GAP
    height = max(len(panel) for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + _GAP * (len(panels) + 1)
    sheet = np.zeros((height + 2 * band, width, 3), np.uint8)
    draw_text_into(sheet, title, at=(_GAP, _GAP), colour=_WHITE)
    column = _GAP
    for panel in panels:
        top = band + (height - len(panel)) // 2
        sheet[top : top + len(panel), column : column + panel.shape[1]] = panel
        column += panel.shape[1] + _GAP
    column = _GAP
    for text, colour in legend:
        draw_text_into(sheet, text, at=(band + height + _GAP, column), colour=colour)
        column += text_width(text) + 3 * _GAP
    return sheet
