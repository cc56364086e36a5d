"""The exact label map: what lies at the centre of each voxel."""

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom.fields import Axes
from kits_trt.phantom.model import KIDNEY, GivenLabels, Kidney, Patient
from kits_trt.phantom.painting import (
    lesion_distance,
    outline_distance,
    sinus_distance,
)
from kits_trt.phantom.shapes import Block, Bounds
from kits_trt.phantom.space import Slices, Space

Labels = NDArray[np.uint8]


def mark_labels(patient: Patient, space: Space, axes: Axes, labels: Labels) -> None:
    """Writes the labels of a slab into ``labels``, which is zero before.

    A real label map is carried over by the nearest voxel, so its own grid returns it unchanged.
    All kidneys come before all lesions, so that a tumour that reaches the other kidney stays one.
    """
    if patient.given is not None:
        _carry_over(patient.given, axes, labels)
        return
    for kidney in patient.kidneys:
        _mark_kidney(kidney, space, axes, labels)
    for kidney in patient.kidneys:
        for lesion in sorted(kidney.lesions, key=lambda part: part.label):
            found = _crop(space, lesion.shape.bounds(), axes, 2.0 * lesion.rough_mm)
            if found is not None:
                where, block = found
                labels[where][lesion_distance(lesion, patient, block) < 0] = lesion.label


def _mark_kidney(kidney: Kidney, space: Space, axes: Axes, labels: Labels) -> None:
    found = _crop(space, kidney.outline.bounds(), axes, kidney.lobes.bound())
    if found is None:
        return
    where, block = found
    inside = outline_distance(kidney, space.patient, block) < 0
    if kidney.sinus:
        fat = sinus_distance(kidney, block) < 0
        for calyx in kidney.calyces:
            fat &= calyx.signed_distance(block) >= 0
        inside &= ~fat
    labels[where][inside] = KIDNEY


def _crop(space: Space, bounds: Bounds, axes: Axes, grown_mm: float) -> tuple[Slices, Block] | None:
    where = space.slices(bounds, axes, grown_mm)
    if where is None:
        return None
    z, y, x = (axis[part] for axis, part in zip(axes, where, strict=True))
    return where, space.block((z, y, x))


def _carry_over(given: GivenLabels, axes: Axes, labels: Labels) -> None:
    places, valid = [], []
    for axis, first, step, count in zip(
        axes, given.first_mm, given.spacing_mm, given.labels.shape, strict=True
    ):
        place = np.rint((axis.astype(np.float64) - first) / step).astype(np.int64)
        valid.append((place >= 0) & (place < count))
        places.append(np.clip(place, 0, count - 1))
    inside = valid[0][:, None, None] & valid[1][None, :, None] & valid[2][None, None, :]
    labels[...] = np.where(inside, given.labels[np.ix_(*places)], 0)
