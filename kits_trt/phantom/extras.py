"""What only some scans have: arms in the field, metal and its rays, a breath between slices."""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.ndimage import gaussian_filter1d

from kits_trt.phantom.fields import Axes, Floats
from kits_trt.phantom.model import Breath, Metal, Organ, Torso
from kits_trt.phantom.shapes import Capsule, tube

_ARMS_DOWN = 0.07
_METAL = 0.05
_BREATH = 0.08
_RAYS = 256
METAL_HU = 3071.0


def draw_arms(rng: np.random.Generator, hu: Mapping[str, float], torso: Torso) -> tuple[Organ, ...]:
    """Two forearms beside the trunk, in few scans; most patients hold them over the head."""
    if rng.random() > _ARMS_DOWN:
        return ()
    layers = torso.layers()["skin"]
    side_mm = 1.08 * (torso.half_width_mm + layers[0]) + float(rng.uniform(42, 60))
    return tuple(_arms(hu, side_mm, float(rng.uniform(-20, 30))))


def _arms(hu: Mapping[str, float], side_mm: float, y: float) -> Iterator[Organ]:
    for side in (-1, 1):
        x = side * side_mm
        path = np.array([[-420.0, y + 10, x], [20.0, y, x], [330.0, y - 30, 0.95 * x]])
        radii = np.array([44.0, 40.0, 28.0])
        for thinner, tissue in ((0.0, "skin"), (2.0, "subcutaneous"), (7.0, "muscle")):
            for part in tube(path, radii - thinner):
                yield Organ(shape=part, hu=hu[tissue], texture_hu=4, name="arm")
        for offset in (-9.0, 9.0):
            for bone in tube(
                path + np.array([0.0, 0.5 * offset, offset]), np.array([9.0, 8.0, 6.5])
            ):
                yield Organ(
                    shape=bone,
                    hu=hu["cortical_bone"],
                    rind_mm=2.5,
                    core_hu=hu["marrow"],
                    name="arm bone",
                )


def draw_metal(rng: np.random.Generator) -> Metal | None:
    """A screw in the spine or a clip beside it, with rays around it; mostly none."""
    if rng.random() > _METAL:
        return None
    rays = gaussian_filter1d(rng.standard_normal(_RAYS // 2), 1.2, mode="wrap")
    place = (float(rng.uniform(-60, 120)), float(rng.uniform(-45, 30)), float(rng.uniform(-40, 40)))
    return Metal(
        place=place,
        radius_mm=float(rng.uniform(1.2, 4.0)),
        length_mm=float(rng.uniform(4, 30)),
        streak_hu=float(rng.uniform(60, 320)),
        # A ray goes both ways.
        rays=np.tile(rays / rays.std(), 2).astype(np.float32),
    )


def metal_organs(metal: Metal | None) -> tuple[Organ, ...]:
    """The metal itself."""
    if metal is None:
        return ()
    z, y, x = metal.place
    half = metal.length_mm / 2
    rod = Capsule(
        start=(z, y - half, x), end=(z, y + half, x), radius_mm=(metal.radius_mm, metal.radius_mm)
    )
    return (Organ(shape=rod, hu=METAL_HU, texture_hu=0.0, name="metal"),)


def metal_rays(metal: Metal, place: Floats, axes: Axes, z_mm: float) -> Floats:
    """HU that the metal adds to the plane (y, x) at a height; ``place`` is where it lies."""
    near = np.exp(-(((z_mm - float(place[0])) / (2.0 + metal.radius_mm)) ** 2))
    if near < 0.01:
        return np.zeros((len(axes[1]), len(axes[2])), np.float32)
    y = axes[1][:, None] - place[1]
    x = axes[2][None, :] - place[2]
    angle = (np.arctan2(y, x) + np.float32(np.pi)) * np.float32(_RAYS / (2 * np.pi))
    away = np.sqrt(y * y + x * x)
    fall = np.exp(-away / 70) * np.clip(away / (3 * metal.radius_mm), 0, 1)
    streaks: Floats = metal.rays[angle.astype(np.int64) % _RAYS] * fall
    streaks *= np.float32(metal.streak_hu * near)
    return streaks


def draw_breath(rng: np.random.Generator) -> Breath | None:
    """A step between two slices where the patient breathed; mostly none."""
    if rng.random() > _BREATH:
        return None
    return Breath(
        below_mm=float(rng.uniform(-90, 110)),
        shift_mm=(float(rng.normal(0, 5)), float(rng.normal(0, 2.5)), float(rng.normal(0, 1.0))),
    )
