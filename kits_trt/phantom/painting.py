"""Puts shapes onto a canvas of CT numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kits_trt.phantom.fields import Floats
from kits_trt.phantom.model import Kidney, Lesion, Organ, Patient
from kits_trt.phantom.shapes import Block, Bounds
from kits_trt.phantom.space import Boxes, Slices, Space

_LUNG_MM = 2.0
_WALL_GAP_MM = -1.0
_CAVITY = (0.0, 0.0, 0.0)
_ALL = (slice(None), slice(None), slice(None))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Canvas:
    """CT numbers under the brush, which is ``soft_mm`` wide at an edge."""

    hu: Floats
    block: Block
    patient: Patient
    space: Space
    soft_mm: float

    def alpha(self, distance: Floats) -> Floats:
        """Share of a voxel that lies inside a surface."""
        share = distance * np.float32(-1 / self.soft_mm)
        share += np.float32(0.5)
        return np.clip(share, 0, 1, out=share)

    def find(self, bounds: Bounds, grown_mm: float = 0.0) -> Slices | None:
        """The part of the canvas that a box, grown by so much, can touch."""
        return self.space.slices(bounds, self.block.axes, grown_mm + self.soft_mm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Surfaces:
    """Distances and random fields on the whole canvas that organs share."""

    limits: Mapping[str, Floats]
    rough: Floats
    grain: Floats


def paint_torso(canvas: Canvas) -> Surfaces:
    """Paints skin, fat, muscle wall, the cavity's fat and the lungs."""
    patient, block = canvas.patient, canvas.block
    hu = patient.hu
    rough = patient.rough.evaluate(block.axes)
    grain = patient.grain.evaluate(block.axes)
    layers = patient.torso.layers()
    tissues = {"skin": "skin", "fat": "subcutaneous", "wall": "muscle", "cavity": "fat"}
    textures = {"skin": 0.0, "fat": 5.0, "wall": 9.0, "cavity": 9.0}
    distance = block.points[0]
    for layer, tissue in tissues.items():
        distance = patient.torso.distance(block, layers[layer])
        if layer == "cavity":
            distance += np.float32(1.2) * rough
        value = np.float32(textures[layer]) * grain
        value += np.float32(hu[tissue])
        _blend(canvas, _ALL, canvas.alpha(distance), value)
    below = patient.torso.dome_distance(block)
    limits = {"cavity": distance, "dome": below, "chest": -below}
    _paint_lungs(canvas, limits, grain)
    return Surfaces(limits=limits, rough=rough, grain=grain)


def _paint_lungs(canvas: Canvas, limits: Mapping[str, Floats], grain: Floats) -> None:
    air = np.maximum(limits["cavity"], limits["chest"]) + np.float32(_LUNG_MM)
    if float(air.min()) > canvas.soft_mm:
        return
    vessels = np.float32(70) * np.maximum(grain - np.float32(0.8), 0)
    value = np.float32(canvas.patient.hu["lung"]) + vessels
    _blend(canvas, _ALL, canvas.alpha(air), value)


def paint_organs(canvas: Canvas, organs: Sequence[Organ], boxes: Boxes, surfaces: Surfaces) -> None:
    """Paints organs in order, each inside its box.

    Bowel wall, filling and gas have one shape; its distance is computed once.
    """
    kept: dict[int, Floats] = {}
    for organ, where in boxes.meeting(organs, canvas.block.axes):
        key = id(organ.shape)
        distance = kept.get(key)
        if distance is None:
            distance = _organ_distance(canvas, organ, surfaces, where)
        if key in boxes.shared:
            kept[key] = distance
        _paint_organ(canvas, organ, surfaces, where, distance)


def _organ_distance(canvas: Canvas, organ: Organ, surfaces: Surfaces, where: Slices) -> Floats:
    distance = organ.shape.signed_distance(canvas.block.crop(where))
    if organ.rough_mm:
        distance = distance + np.float32(organ.rough_mm) * surfaces.rough[where]
    for limit, inside_mm in organ.limits.items():
        distance = np.maximum(distance, surfaces.limits[limit][where] + np.float32(inside_mm))
    return distance


def _paint_organ(
    canvas: Canvas, organ: Organ, surfaces: Surfaces, where: Slices, distance: Floats
) -> None:
    if organ.inset_mm:
        distance = distance + np.float32(organ.inset_mm)
    if organ.level_y_mm < np.inf:
        behind = canvas.block.points[1][where] - np.float32(organ.level_y_mm)
        distance = np.maximum(distance, behind)
    value = np.float32(organ.texture_hu) * surfaces.grain[where]
    value += np.float32(organ.hu)
    if organ.rind_mm < np.inf:
        inside = canvas.alpha(distance + np.float32(organ.rind_mm))
        value += np.float32(organ.core_hu - organ.hu) * inside
    _blend(canvas, where, canvas.alpha(distance), value)


def paint_kidney(canvas: Canvas, kidney: Kidney, surfaces: Surfaces) -> None:
    """Paints cortex, medulla, sinus, what lies in it, and the lesions over them."""
    where = canvas.find(kidney.outline.bounds(), kidney.lobes.bound())
    if where is not None:
        _paint_parenchyma(canvas, kidney, surfaces, where)
    for organ in kidney.inner:
        where = canvas.find(organ.shape.bounds(), 2.0 * organ.rough_mm)
        if where is not None:
            distance = _organ_distance(canvas, organ, surfaces, where)
            _paint_organ(canvas, organ, surfaces, where, distance)
    for lesion in kidney.lesions:
        _paint_lesion(canvas, lesion, surfaces)


def _paint_parenchyma(canvas: Canvas, kidney: Kidney, surfaces: Surfaces, where: Slices) -> None:
    hu = canvas.patient.hu
    block = canvas.block.crop(where)
    distance = outline_distance(kidney, canvas.patient, block)
    sinus = sinus_distance(kidney, block) if kidney.sinus else None
    surface = distance if sinus is None or not kidney.lined else np.maximum(distance, -sinus)
    grain = np.float32(4) * surfaces.grain[where]
    columns = np.clip(np.float32(1.1) - kidney.pyramids.evaluate(block.axes), 0, 1)
    inner = canvas.alpha(surface + np.float32(kidney.cortex_mm)) * columns
    value = grain + np.float32(hu["cortex"]) + inner * np.float32(hu["medulla"] - hu["cortex"])
    alpha = canvas.alpha(distance)
    if sinus is None:
        _blend(canvas, where, alpha, value)
        return
    fat = canvas.alpha(sinus)
    _blend(canvas, where, alpha * (1 - fat), value)
    _blend(canvas, where, fat, grain + np.float32(hu["fat"]))


def _paint_lesion(canvas: Canvas, lesion: Lesion, surfaces: Surfaces) -> None:
    where = canvas.find(lesion.shape.bounds(), 2.0 * lesion.rough_mm + lesion.blur_mm / 2)
    if where is None:
        return
    block = canvas.block.crop(where)
    distance = lesion_distance(lesion, canvas.patient, block)
    grain = surfaces.grain[where]
    value = np.float32(lesion.texture_hu) * grain + np.float32(lesion.hu)
    if lesion.core is not None:
        core = lesion.core.signed_distance(block) + np.float32(1.5) * grain
        # Necrosis has no sharp border: three millimetres of transition.
        share = np.clip(np.float32(0.5) - core / np.float32(3), 0, 1)
        value += share * (np.float32(lesion.core_hu) - value)
    if lesion.wall_mm > 0:
        rim = canvas.alpha(-distance - np.float32(lesion.wall_mm))
        value += rim * (np.float32(lesion.wall_hu) - value)
    # The label's border is where half the tumour shows, however soft it is.
    alpha = np.clip(0.5 - distance / np.float32(canvas.soft_mm + lesion.blur_mm), 0, 1)
    _blend(canvas, where, alpha, value)


def outline_distance(kidney: Kidney, patient: Patient, block: Block) -> Floats:
    """Distance to a kidney's outline, with its lobes, within the abdomen."""
    distance = kidney.outline.signed_distance(block) + kidney.lobes.evaluate(block.axes)
    return _within_abdomen(distance, patient, block)


def sinus_distance(kidney: Kidney, block: Block) -> Floats:
    """Distance to the nearest sinus fat; the kidney has some."""
    distance = kidney.sinus[0].signed_distance(block)
    for shape in kidney.sinus[1:]:
        distance = np.minimum(distance, shape.signed_distance(block))
    return distance


def lesion_distance(lesion: Lesion, patient: Patient, block: Block) -> Floats:
    """Distance to a lesion's surface, roughness included, within the abdomen."""
    distance = lesion.shape.signed_distance(block)
    if lesion.rough_mm:
        distance = distance + np.float32(lesion.rough_mm) * patient.rough.evaluate(block.axes)
    return _within_abdomen(distance, patient, block)


def _within_abdomen(distance: Floats, patient: Patient, block: Block) -> Floats:
    """Cuts a kidney or lesion at muscle wall and diaphragm; real ones lie where they lie."""
    if patient.given is not None:
        return distance
    wall = patient.torso.distance(block, _CAVITY) + np.float32(_WALL_GAP_MM)
    inside: Floats = np.maximum(np.maximum(distance, wall), patient.torso.dome_distance(block))
    return inside


def _blend(canvas: Canvas, where: Slices, alpha: Floats, value: Floats) -> None:
    under = canvas.hu[where]
    value -= under
    value *= alpha
    under += value
