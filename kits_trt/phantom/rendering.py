"""Renders a patient on a grid: CT numbers with soft edges, and the exact label map.

Organs are painted in order, each only inside its bounding box, slab by slab. A voxel's CT number
averages over the voxel: across the plane by the width of the soft edge, along z also by several
planes within a thick slice. A voxel's label is what lies at its centre.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom.extras import metal_rays
from kits_trt.phantom.fields import Axes, Floats
from kits_trt.phantom.labels import mark_labels
from kits_trt.phantom.model import Patient, stream
from kits_trt.phantom.painting import Canvas, paint_kidney, paint_organs, paint_torso
from kits_trt.phantom.scanner import AIR_HU, OUTSIDE_HU, NoiseSource, outside_circle, paint_couch
from kits_trt.phantom.space import Boxes, Space

_SLAB_VOXELS = 800_000
_MOST_PLANES = 3

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A grid of voxels in patient coordinates; ``centre_mm`` is the middle of its box."""

    shape: tuple[int, int, int]
    spacing_mm: Triple
    centre_mm: Triple

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be three positive counts (z, y, x), found {self.shape}")
        if len(self.spacing_mm) != 3 or not min(self.spacing_mm) > 0:
            raise ValueError(f"spacing_mm must be three positive mm, found {self.spacing_mm}")

    def axes(self) -> Axes:
        """Coordinates of the voxel centres along z, y and x."""
        z, y, x = (
            (np.arange(n) - (n - 1) / 2) * step + middle
            for n, step, middle in zip(self.shape, self.spacing_mm, self.centre_mm, strict=True)
        )
        return z.astype(np.float32), y.astype(np.float32), x.astype(np.float32)

    def planes_per_slice(self) -> int:
        """How many planes are averaged for one slice: more, the thicker it is for its pixels."""
        pixel = max(max(self.spacing_mm[1:]), 0.8)
        return int(np.clip(round(self.spacing_mm[0] / (2 * pixel)), 1, _MOST_PLANES))


def render(
    patient: Patient,
    *,
    shape: tuple[int, int, int],
    spacing_mm: Triple,
    centre_mm: Triple | None = None,
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """CT numbers and labels (0 background, 1 kidney, 2 tumour), both (z, y, x).

    Args:
        patient: The anatomy.
        shape: Voxels along z (towards the feet), y (towards the back), x (towards the left).
        spacing_mm: Voxel size along the same axes.
        centre_mm: Patient coordinates of the middle of the field; the patient's own by default.

    Raises:
        ValueError: Shape or spacing is not positive.
    """
    grid = Grid(shape=shape, spacing_mm=spacing_mm, centre_mm=centre_mm or patient.centre_mm)
    axes = grid.axes()
    hu = np.empty(shape, np.int16)
    labels = np.zeros(shape, np.uint8)
    noise = NoiseSource(
        patient.scanner, axes, spacing_mm, stream(patient.seed, patient.case, "noise")
    )
    outside = outside_circle(axes, patient.scanner)
    scene = Scene.of(patient, grid)
    step = max(1, _SLAB_VOXELS // (grid.planes_per_slice() * shape[1] * shape[2]))
    for first in range(0, shape[0], step):
        part = slice(first, min(first + step, shape[0]))
        slab_axes = (axes[0][part], axes[1], axes[2])
        slab = scene.scanned(slab_axes)
        for place, z_mm in enumerate(slab_axes[0]):
            slab[place] += noise.plane(float(z_mm))
            scene.add_rays(slab[place], float(z_mm))
            slab[place][outside] = OUTSIDE_HU
        np.rint(slab, out=slab)
        hu[part] = np.clip(slab, OUTSIDE_HU, 3071)
        mark_labels(patient, scene.space, slab_axes, labels[part])
    return hu, labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A patient prepared for one grid."""

    patient: Patient
    grid: Grid
    space: Space
    boxes: Boxes
    soft_mm: float
    metal_mm: Floats | None

    @classmethod
    def of(cls, patient: Patient, grid: Grid) -> "Scene":
        """Finds out how soft edges are and where the organs can lie."""
        pixel = (grid.spacing_mm[1] + grid.spacing_mm[2]) / 2
        plane = grid.spacing_mm[0] / grid.planes_per_slice()
        soft_mm = float(np.hypot(max(pixel, 0.6 * plane), patient.scanner.blur_mm))
        space = Space.of(patient)
        boxes = Boxes.of(patient.organs, space, soft_mm)
        metal = patient.metal
        return cls(
            patient=patient,
            grid=grid,
            space=space,
            boxes=boxes,
            soft_mm=soft_mm,
            metal_mm=space.locate(metal.place) if metal is not None else None,
        )

    def scanned(self, axes: Axes) -> Floats:
        """CT numbers of a slab, averaged over the planes of each slice, without noise."""
        planes = self.grid.planes_per_slice()
        step = self.grid.spacing_mm[0] / planes
        offsets = (np.arange(planes) - (planes - 1) / 2) * step
        heights = (axes[0][:, None] + offsets[None, :]).ravel().astype(np.float32)
        fine = (heights, axes[1], axes[2])
        hu = self._painted(fine)
        hu += self.patient.scanner.bias.evaluate(fine)
        if planes == 1:
            return hu
        mean: Floats = hu.reshape(-1, planes, *hu.shape[1:]).mean(axis=1)
        return mean

    def add_rays(self, plane: Floats, z_mm: float) -> None:
        """Adds to a plane what metal throws over it."""
        metal = self.patient.metal
        if metal is not None and self.metal_mm is not None:
            plane += metal_rays(metal, self.metal_mm, self.grid.axes(), z_mm)

    def _painted(self, axes: Axes) -> Floats:
        patient = self.patient
        hu = np.full([len(axis) for axis in axes], AIR_HU, np.float32)
        paint_couch(hu, axes, patient.scanner, patient.torso)
        block = self.space.block(axes)
        canvas = Canvas(hu=hu, block=block, patient=patient, space=self.space, soft_mm=self.soft_mm)
        surfaces = paint_torso(canvas)
        paint_organs(canvas, patient.organs, self.boxes, surfaces)
        for kidney in patient.kidneys:
            paint_kidney(canvas, kidney, surfaces)
        hu -= AIR_HU
        hu *= np.float32(patient.scanner.gain)
        hu += AIR_HU
        return hu
