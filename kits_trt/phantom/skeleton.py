"""Bones and the muscles along the spine."""

from collections.abc import Iterator, Mapping

import numpy as np

from kits_trt.phantom.model import Organ, Torso
from kits_trt.phantom.shapes import Capsule, Drum, Ellipsoid, Point, rotation, tube

PITCH_MM = 34.5
"""Distance of two lumbar vertebrae; thoracic ones are a little closer."""
_RIBS = (0.36, 0.5, 0.66, 0.74, 0.78, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8)


def draw_skeleton(
    rng: np.random.Generator, hu: Mapping[str, float], torso: Torso
) -> tuple[Organ, ...]:
    """Muscles of the back first, then the bones, in painting order."""
    return (
        *_back_muscles(rng, hu),
        *_ribs(rng, hu, torso),
        *_pelvis(hu, torso),
        *_spine(rng, hu),
    )


def _back_muscles(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    bulk = float(rng.uniform(0.8, 1.2))
    muscle = hu["muscle"]
    for side in (-1, 1):
        erector = Ellipsoid(
            centre=(20.0, 50.0, side * 33.0), semi_mm=(420.0, 17 * bulk, 27 * bulk), boxy=True
        )
        yield Organ(shape=erector, hu=muscle, rough_mm=1.5, texture_hu=9, name="erector")
        lumborum = Ellipsoid(
            centre=(75.0, 38.0, side * 72.0),
            semi_mm=(85.0, 8 * bulk, 24 * bulk),
            turn=rotation(side * 18.0, 0.0, 0.0),
        )
        yield Organ(shape=lumborum, hu=muscle, texture_hu=7, name="lumborum")
        path = np.array([[-25, 12, 27], [30, 10, 35], [80, 6, 43], [130, 0, 52], [220, -18, 75]])
        path = path * np.array([1.0, 1.0, side])
        radii = np.array([6.0, 14.0, 19.0, 21.0, 19.0]) * bulk
        for piece in tube(path, radii):
            yield Organ(shape=piece, hu=muscle, rough_mm=1.0, texture_hu=5, name="psoas")
        gluteal = Ellipsoid(centre=(215.0, 40.0, side * 80.0), semi_mm=(80.0, 26.0, 55.0))
        yield Organ(shape=gluteal, hu=muscle, rough_mm=3.0, texture_hu=9, name="gluteal")


def _spine(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    bend = rng.normal(0, [2.5, 3.5])
    for level in range(-9, 5):
        middle = level * PITCH_MM * (1.0 if level >= 0 else 0.94) + 14
        lordosis = -7 * np.exp(-(((middle - 70) / 70) ** 2)) + 9 * np.exp(
            -(((middle + 190) / 90) ** 2)
        )
        centre = (middle, lordosis + bend[0] * middle / 150, bend[1] * middle / 150)
        size = 1.0 + 0.025 * level
        yield from _vertebra(hu, centre, size)
    sacrum = Ellipsoid(
        centre=(198.0, 26.0, 0.0), semi_mm=(48.0, 15.0, 46.0), turn=rotation(0.0, 0.0, 22.0)
    )
    yield from _bone(hu, sacrum, 2.0)


def _vertebra(hu: Mapping[str, float], centre: Point, size: float) -> Iterator[Organ]:
    z, y, x = centre
    body = Drum(centre=centre, semi_mm=(13.0 * size, 16.0 * size, 23.0 * size))
    disc = Drum(centre=(z + PITCH_MM / 2, y, x), semi_mm=(6.0, 15.5 * size, 22.5 * size))
    arch = y + 26 * size
    for side in (-1, 1):
        pedicle = tube(
            np.array([[z - 3, y + 10, x + side * 14], [z, arch + 4, x + side * 15]]),
            np.array([5.0, 5.5]),
        )
        transverse = tube(
            np.array([[z, arch + 2, x + side * 15], [z, arch + 6, x + side * 38 * size]]),
            np.array([5.0, 3.5]),
        )
        lamina = tube(
            np.array([[z, arch + 4, x + side * 15], [z + 6, arch + 13, x]]), np.array([5.0, 5.0])
        )
        for part in (*pedicle, *transverse, *lamina):
            yield from _bone(hu, part, 1.6)
    spinous = Capsule(start=(z + 8, arch + 12, x), end=(z + 14, arch + 32, x), radius_mm=(4.5, 5.0))
    yield from _bone(hu, spinous, 1.6)
    yield Organ(shape=disc, hu=hu["disc"], texture_hu=4, name="disc")
    yield from _bone(hu, body, 1.5)
    canal = Capsule(
        start=(z - 18, y + 25 * size, x), end=(z + 18, y + 25 * size, x), radius_mm=(8.5, 8.5)
    )
    yield Organ(shape=canal, hu=hu["canal"], name="canal")


def _ribs(rng: np.random.Generator, hu: Mapping[str, float], torso: Torso) -> Iterator[Organ]:
    steep = float(rng.uniform(45, 75))
    for pair, reach in enumerate(_RIBS):
        top = -45.0 - 29.0 * pair
        angles = np.linspace(0.22, np.pi * reach, 10)
        for side in (-1, 1):
            path = [[top - 4, 30.0, side * 24.0]]
            for angle in angles[1:]:
                y, x = torso.wall_radius_mm(float(angle))
                drop = steep * (1 - np.cos(min(angle, 2.1))) - 35 * max(angle - 2.1, 0.0)
                path.append([top + drop, y, side * x])
            radii = np.full(len(path), 5.0)
            for piece in tube(np.array(path), radii):
                yield from _bone(hu, piece, 1.8, marrow="rib_marrow")


def _pelvis(hu: Mapping[str, float], torso: Torso) -> Iterator[Organ]:
    reach = torso.half_width_mm - 32
    for side in (-1, 1):
        wing = Ellipsoid(
            centre=(175.0, 12.0, side * reach * 0.94),
            semi_mm=(62.0, 62.0, 7.0),
            turn=rotation(side * -28.0, side * 22.0, 0.0),
        )
        yield from _bone(hu, wing, 2.2)
        joint = Ellipsoid(centre=(190.0, 42.0, side * 58.0), semi_mm=(36.0, 15.0, 18.0))
        yield from _bone(hu, joint, 2.2)
        socket = Ellipsoid(centre=(255.0, -10.0, side * 88.0), semi_mm=(38.0, 30.0, 28.0))
        yield from _bone(hu, socket, 2.5)
        thigh = tube(
            np.array([[258, -8, side * 95], [300, -5, side * 130], [520, -5, side * 110]]),
            np.array([23.0, 17.0, 14.0]),
        )
        for piece in thigh:
            yield from _bone(hu, piece, 4.0)


def _bone(
    hu: Mapping[str, float],
    shape: Capsule | Ellipsoid | Drum,
    cortex_mm: float,
    marrow: str = "marrow",
) -> Iterator[Organ]:
    """Compact bone around spongy bone."""
    yield Organ(
        shape=shape,
        hu=hu["cortical_bone"],
        texture_hu=25,
        rind_mm=cortex_mm,
        core_hu=hu[marrow],
        name="bone",
    )
