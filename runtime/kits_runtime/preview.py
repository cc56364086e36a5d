"""A picture of a result: axial, coronal and sagittal planes through what matters most.

The planes pass through the largest tumour, else through the largest kidney, else through the
middle of the scan. They are shown as radiologists expect: seen from the feet and from the front,
the patient's right at the picture's left, at one scale for all three and with true proportions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.components import NEIGHBOURS_6, components_of
from kits_runtime.grid import Box, bounding_box, box_of, linear_taps
from kits_runtime.lettering import Colour, draw_text_into, text_height, text_width
from kits_runtime.resample import interpolate
from kits_runtime.volume import Volume

Picture = NDArray[np.uint8]
Labels = NDArray[np.uint8]

# Kidney, tumour, cyst: told apart by eyes that confuse red and green, too.
COLOURS: Mapping[int, Colour] = {1: (0, 215, 255), 2: (255, 70, 60), 3: (255, 220, 60)}
_OTHER_COLOUR: Colour = (230, 120, 255)
_WHITE: Colour = (235, 235, 235)
_GREY: Colour = (170, 170, 170)
_LOWER_HU, _UPPER_HU = -160.0, 240.0
_PANEL_WIDTH, _PANEL_HEIGHT = 480, 560
_GAP, _APART, _EDGE = 12, 36, 8
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


def preview(
    volume: Volume,
    labels: Labels,
    classes: Sequence[tuple[str, float]],
    *,
    reach: Box | None = None,
    title: str = "",
) -> Picture:
    """The picture (row, column, RGB) of labels on the volume's (z, y, x) axes.

    Args:
        volume: The scan.
        labels: Its labels.
        classes: Name and millilitres of labels 1, 2 and so on, for the legend.
        reach: A box outside which every voxel is background; the whole scan when not given.
        title: Stands above the picture.
    """
    focus = _focus(labels, reach or box_of(volume.shape))
    views = [_view(volume, labels, axis, focus[axis]) for _, axis, _ in _PLANES]
    mm_a_pixel = max(_needed_mm_a_pixel(view) for view in views)
    panels = []
    for (name, axis, sides), view in zip(_PLANES, views, strict=True):
        panel = _panel(view, mm_a_pixel)
        _annotate_into(panel, sides)
        panels.append((f"{name} {focus[axis] + 1}/{volume.shape[axis]}", panel))
    _scale_bar_into(panels[0][1], mm_a_pixel)
    return _sheet(panels, _legend(classes), title)


def _focus(labels: Labels, reach: Box) -> tuple[int, int, int]:
    """The voxel through which the planes pass: the middle of the largest object that matters."""
    for value in (2, 1):
        mask = labels[reach.slices] == value
        box = bounding_box(mask)
        if box is None:
            continue
        found = mask[box.slices]
        components = components_of(found, NEIGHBOURS_6)
        largest = np.argmax(components.sizes)
        inside = np.argwhere(found)[components.owner_of_voxels == largest]
        middle = inside[np.abs(inside - inside.mean(axis=0)).sum(axis=1).argmin()]
        z, y, x = (middle + np.add(box.start, reach.start)).tolist()
        return z, y, x
    z, y, x = (size // 2 for size in labels.shape)
    return z, y, x


def _view(volume: Volume, labels: Labels, axis: int, index: int) -> _View:
    row_mm, column_mm = (mm for a, mm in enumerate(volume.spacing_mm) if a != axis)
    # Not np.take, which would first copy a whole array that is not in C order.
    plane = tuple(index if a == axis else slice(None) for a in range(3))
    return _View(
        hu=volume.data[plane].astype(np.float32),
        labels=labels[plane],
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
        panel[shown & ~_shrunk(_shrunk(shown))] = COLOURS.get(value, _OTHER_COLOUR)
    return panel


def _shrunk(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without the pixels that touch another one outside it, by a side."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return inner


def _enlarged(
    plane: NDArray[np.float32], spacing_mm: tuple[float, float], mm_a_pixel: float
) -> NDArray[np.float32]:
    for axis in range(2):
        source = plane.shape[axis]
        target = max(1, round(source * spacing_mm[axis] / mm_a_pixel))
        taps = linear_taps(target, source, start=0, stop=target, first=0, last=source - 1)
        plane = interpolate(plane, axis, taps)
    return plane


def _annotate_into(panel: Picture, sides: Sequence[str]) -> None:
    """Writes the patient's sides at the panel's left, right, top and bottom."""
    height, width, _ = panel.shape
    letter_w, letter_h = text_width("R"), text_height()
    left, right, top, bottom = sides
    middle_row, middle_column = (height - letter_h) // 2, (width - letter_w) // 2
    draw_text_into(panel, left, at=(middle_row, _EDGE), colour=_WHITE)
    draw_text_into(panel, right, at=(middle_row, width - letter_w - _EDGE), colour=_WHITE)
    draw_text_into(panel, top, at=(_EDGE, middle_column), colour=_WHITE)
    draw_text_into(panel, bottom, at=(height - letter_h - _EDGE, middle_column), colour=_WHITE)


def _scale_bar_into(panel: Picture, mm_a_pixel: float) -> None:
    height, _, _ = panel.shape
    length = round(_SCALE_BAR_MM / mm_a_pixel)
    bar = slice(max(0, height - _EDGE - 3), max(0, height - _EDGE))
    panel[bar, _EDGE : _EDGE + length] = _WHITE
    label = f"{_SCALE_BAR_MM:.0f} MM"
    draw_text_into(panel, label, at=(height - 2 * _EDGE - text_height(), _EDGE), colour=_WHITE)


def _legend(classes: Sequence[tuple[str, float]]) -> list[tuple[str, Colour]]:
    lines = [
        (f"{name} {size_ml:.1f} ML", COLOURS.get(value, _OTHER_COLOUR))
        for value, (name, size_ml) in enumerate(classes, start=1)
    ]
    window = f"WINDOW {_LOWER_HU:.0f} TO {_UPPER_HU:.0f} HU"
    return [*lines, (window, _GREY), ("RESEARCH USE ONLY", _GREY)]


def _sheet(
    panels: Sequence[tuple[str, Picture]], legend: Sequence[tuple[str, Colour]], title: str
) -> Picture:
    """Title, captions over panels, and legend; as wide as the widest of these rows."""
    line = text_height() + _GAP
    height = max(len(panel) for _, panel in panels)
    cells = [max(panel.shape[1], text_width(caption)) for caption, panel in panels]
    legend_width = sum(text_width(text) + _APART for text, _ in legend) - _APART
    rows = (sum(cells) + _GAP * (len(cells) - 1), legend_width, text_width(title))
    sheet = np.zeros((height + 3 * line + 2 * _GAP, max(rows) + 2 * _GAP, 3), np.uint8)
    draw_text_into(sheet, title, at=(_GAP, _GAP), colour=_WHITE)
    top, column = _GAP + 2 * line, _GAP
    for (caption, panel), cell in zip(panels, cells, strict=True):
        draw_text_into(sheet, caption, at=(_GAP + line, column), colour=_GREY)
        middle = top + (height - len(panel)) // 2
        sheet[middle : middle + len(panel), column : column + panel.shape[1]] = panel
        column += cell + _GAP
    column = _GAP
    for text, colour in legend:
        draw_text_into(sheet, text, at=(top + height + _GAP, column), colour=colour)
        column += text_width(text) + _APART
    return sheet
