"""Sizes, spacings and fields of view as KiTS has them."""

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import bounding_box
from kits_trt.phantom.labels import mark_labels
from kits_trt.phantom.model import Patient, stream
from kits_trt.phantom.rendering import Grid
from kits_trt.phantom.space import Space

Size = tuple[int, int, int]
Triple = tuple[float, float, float]

_THICKNESS_MM = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.75, 4.0, 5.0)
_THICKNESS_WEIGHTS = (0.05, 0.03, 0.14, 0.06, 0.03, 0.07, 0.11, 0.2, 0.02, 0.04, 0.25)
_SLICES = (29, 300)
_PIXEL_MM = (0.44, 1.04)
_PIXELS = 512

_TRAINING_THICKNESS_MM = (1.5, 2.0, 2.5, 3.0, 3.0, 4.0, 5.0, 5.0)
_TRAINING_LENGTH_MM = (200.0, 430.0)
_FAR_MM = (200.0, 560.0)
_TRAINING_FIELD_MM = (307.0, 512.0)
_TRAINING_SHIFT_MM = (45.0, 30.0, 45.0)

_NEAR_PIXEL_MM = (0.6, 2.0)
_NEAR_MM = (12.0, 30.0)
_NEAR_VOXELS = 3_000_000
_LOOK_MM = 4.0


def draw_grid(
    patient: Patient, *, size: Size | None = None, spacing_mm: Triple | None = None
) -> Grid:
    """The grid of one scan; what is given stays, the rest is drawn from the patient's own stream.

    With a size alone, the spacing spreads it over a drawn field of view; with a spacing alone,
    the size is 512 x 512 and as many slices as the drawn length needs.
    """
    rng = stream(patient.seed, patient.case, "grid")
    thickness = float(rng.choice(_THICKNESS_MM, p=_THICKNESS_WEIGHTS))
    length = float(rng.uniform(170, 480))
    field = _field_mm(rng, patient)
    if spacing_mm is None and size is None:
        pixel = round(float(np.clip(field / _PIXELS, *_PIXEL_MM)), 4)
        spacing_mm = (thickness, pixel, pixel)
    elif spacing_mm is None and size is not None:
        spacing_mm = (length / size[0], field / size[1], field / size[2])
    assert spacing_mm is not None
    if size is None:
        slices = int(np.clip(round(length / spacing_mm[0]), *_SLICES))
        size = (slices, _PIXELS, _PIXELS)
    # Short scans are centred on the kidneys; long ones may start higher or end lower.
    spare = max(size[0] * spacing_mm[0] / 2 - 100, 0.0)
    height = patient.centre_mm[0] + float(rng.uniform(-min(spare, 60), min(spare, 90)))
    centre = (height, patient.centre_mm[1], patient.centre_mm[2])
    return Grid(shape=size, spacing_mm=spacing_mm, centre_mm=centre)


def draw_training_grid(patient: Patient, plane: int, *, far: bool = False) -> Grid:
    """The grid of a scan to learn from: ``plane`` x ``plane`` pixels instead of 512 x 512.

    Rendering costs by the voxel, and nets that see a coarse grid need no finer scan. Fields of
    view vary more than in KiTS and are centred less well, so that a place tells less. Those that
    reach ``far`` show hips and shoulders too.
    """
    rng = stream(patient.seed, patient.case, "training grid")
    thickness = float(rng.choice(_TRAINING_THICKNESS_MM))
    lengths_mm = _FAR_MM if far else _TRAINING_LENGTH_MM
    slices = max(_SLICES[0], round(float(rng.uniform(*lengths_mm)) / thickness))
    pixel = round(float(rng.uniform(*_TRAINING_FIELD_MM)) / plane, 4)
    moved = rng.uniform(-1, 1, 3) * _TRAINING_SHIFT_MM
    z, y, x = (float(place) for place in patient.centre_mm + moved)
    return Grid(
        shape=(slices, plane, plane), spacing_mm=(thickness, pixel, pixel), centre_mm=(z, y, x)
    )


def draw_kidney_grid(patient: Patient) -> Grid:
    """The grid of a scan that shows kidneys, lesions and little else, as sharply as scanners do.

    For nets that look at boxes around kidneys. It has fewer voxels than ``draw_training_grid``
    gives, though finer ones, which are coarser than drawn only where kidneys fill a large field.
    """
    rng = stream(patient.seed, patient.case, "kidney grid")
    thickness = float(rng.choice(_TRAINING_THICKNESS_MM))
    pixel = float(np.exp(rng.uniform(*np.log(_NEAR_PIXEL_MM))))
    lower, upper = _labelled_mm(patient)
    lower -= rng.uniform(*_NEAR_MM, 3)
    upper += rng.uniform(*_NEAR_MM, 3)
    depth, height, width = (upper - lower).tolist()
    pixel = round(max(pixel, (depth * height * width / thickness / _NEAR_VOXELS) ** 0.5), 4)
    spacing = (thickness, pixel, pixel)
    slices, rows, columns = (
        round(length / step) for length, step in zip((depth, height, width), spacing, strict=True)
    )
    z, y, x = ((lower + upper) / 2).tolist()
    return Grid(shape=(slices, rows, columns), spacing_mm=spacing, centre_mm=(z, y, x))


def _labelled_mm(patient: Patient) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first and last patient coordinates, within a few mm, of what is labelled."""
    shapes = [
        shape
        for kidney in patient.kidneys
        for shape in (kidney.outline, *(lesion.shape for lesion in kidney.lesions))
    ]
    bounds = np.array([shape.bounds() for shape in shapes])
    space = Space.of(patient)
    lowers, uppers = space.boxes(bounds[:, 0], bounds[:, 1])
    lower, upper = lowers.min(axis=0), uppers.max(axis=0)
    z, y, x = (
        np.arange(first, last + _LOOK_MM, _LOOK_MM, dtype=np.float32)
        for first, last in zip(lower, upper, strict=True)
    )
    labels = np.zeros((len(z), len(y), len(x)), np.uint8)
    mark_labels(patient, space, (z, y, x), labels)
    found = bounding_box(labels > 0)
    if found is None:
        return lower, upper
    return lower + np.array(found.start) * _LOOK_MM, lower + (np.array(found.stop) - 1) * _LOOK_MM


def _field_mm(rng: np.random.Generator, patient: Patient) -> float:
    """Width of the field: the body and some air; one in ten cuts the body's sides."""
    torso = patient.torso
    width = 2 * (torso.half_width_mm + torso.wall_mm + torso.fat_side_mm + torso.skin_mm)
    share = rng.uniform(0.82, 0.98) if rng.random() < 0.1 else rng.uniform(1.04, 1.3)
    return float(width * share)
