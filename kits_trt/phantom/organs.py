"""Liver, spleen, pancreas, gall bladder, heart, bladder: the solid organs."""

from collections.abc import Iterator, Mapping

import numpy as np

from kits_trt.phantom.model import Organ, Torso
from kits_trt.phantom.shapes import Ellipsoid, Point, rotation, tube

INSIDE: Mapping[str, float] = {"cavity": 2.5, "dome": 3.0}
IN_CAVITY: Mapping[str, float] = {"cavity": 3.0}


def draw_organs(
    rng: np.random.Generator, hu: Mapping[str, float], torso: Torso
) -> tuple[Organ, ...]:
    """The solid organs in painting order."""
    wide = torso.half_width_mm / 135.0
    deep = torso.front_mm / -100.0
    return (
        *_heart(hu),
        *_liver(rng, hu, wide, deep),
        _spleen(rng, hu, wide),
        *_pancreas(rng, hu),
        *_bladder(rng, hu),
    )


def draw_adrenals(hu: Mapping[str, float], centres: Mapping[str, Point]) -> Iterator[Organ]:
    """A thin inverted Y above and medial of each kidney place."""
    for side, sign in (("right", -1), ("left", 1)):
        z, y, x = centres[side]
        top = (z - 44, y - 18, x - sign * 34)
        ends = ((14, 14, 6), (16, 11, -4), (-8, -6, 0))
        for dz, dy, dx in ends:
            limb = np.array([top, (top[0] + dz, top[1] + dy, top[2] + sign * dx)])
            for piece in tube(limb, np.array([3.0, 1.9])):
                yield Organ(shape=piece, hu=hu["adrenal"], rough_mm=0.4, name="adrenal")


def _heart(hu: Mapping[str, float]) -> Iterator[Organ]:
    sac = Ellipsoid(centre=(-185.0, -48.0, 22.0), semi_mm=(58.0, 46.0, 66.0))
    limits = {"cavity": 4.0, "chest": -3.0}
    yield Organ(shape=sac, hu=hu["fat"], rough_mm=3, limits=limits, name="pericardium")
    muscle = Ellipsoid(centre=(-190.0, -48.0, 24.0), semi_mm=(51.0, 39.0, 58.0))
    yield Organ(shape=muscle, hu=hu["muscle"] + 25, rough_mm=2, limits=limits, name="heart")
    for x in (4.0, 50.0):
        chamber = Ellipsoid(centre=(-195.0, -48.0, x), semi_mm=(36.0, 27.0, 20.0))
        yield Organ(shape=chamber, hu=hu["heart"], limits=limits, name="chamber")
    middle = Ellipsoid(centre=(-230.0, -20.0, 5.0), semi_mm=(120.0, 26.0, 30.0))
    yield Organ(shape=middle, hu=hu["fat"] + 40, rough_mm=4, limits=limits, name="mediastinum")


def _liver(
    rng: np.random.Generator, hu: Mapping[str, float], wide: float, deep: float
) -> Iterator[Organ]:
    size = float(np.clip(rng.normal(1.0, 0.08), 0.82, 1.2))
    low = float(rng.normal(0, 9))
    value = hu["liver"]
    look = {"rough_mm": 2.0, "texture_hu": 4.0, "limits": INSIDE, "name": "liver"}
    right = Ellipsoid(
        centre=(-58.0 + low, -18.0 * deep, -82.0 * wide),
        semi_mm=(92.0 * size, 80.0 * deep, 66.0 * size * wide),
        turn=rotation(0.0, -14.0, 0.0),
        boxy=True,
    )
    middle = Ellipsoid(
        centre=(-92.0 + low, -52.0 * deep, -28.0),
        semi_mm=(46.0 * size, 44.0 * deep, 62.0 * wide),
        turn=rotation(0.0, -8.0, 0.0),
    )
    left = Ellipsoid(
        centre=(-102.0 + low, -66.0 * deep, 32.0),
        semi_mm=(26.0 * size, 27.0, 58.0 * wide * float(rng.uniform(0.75, 1.2))),
        turn=rotation(0.0, -6.0, 0.0),
    )
    for lobe in (right, middle, left):
        yield Organ(shape=lobe, hu=value, **look)  # type: ignore[arg-type]
    yield from _liver_vessels(rng, hu, wide, low)
    sac = Ellipsoid(
        centre=(-8.0 + low, -62.0 * deep, -52.0 * wide),
        semi_mm=(float(rng.uniform(22, 36)), 14.0, 13.0),
        turn=rotation(0.0, 20.0, -25.0),
    )
    yield Organ(shape=sac, hu=hu["muscle"] - 20, texture_hu=2, limits=IN_CAVITY, name="gall wall")
    z, y, x = sac.semi_mm
    bile = Ellipsoid(centre=sac.centre, semi_mm=(z - 1.8, y - 1.8, x - 1.8), turn=sac.turn)
    yield Organ(shape=bile, hu=hu["bile"], texture_hu=1, limits=IN_CAVITY, name="gall bladder")


def _liver_vessels(
    rng: np.random.Generator, hu: Mapping[str, float], wide: float, low: float
) -> Iterator[Organ]:
    """Hepatic veins that meet the vena cava under the dome, and portal branches from the hilum."""
    hilum = np.array([-48.0 + low, -38.0, -38.0])
    crown = np.array([-118.0 + low, -22.0, -26.0])
    for root, tissue, radius in ((hilum, "portal", 5.5), (crown, "portal", 4.5)):
        for _ in range(6):
            tip = np.array(
                [
                    -60 + low + rng.normal(0, 34),
                    -25 + rng.normal(0, 26),
                    (-88 + rng.normal(0, 26)) * wide,
                ]
            )
            middle = root + 0.5 * (tip - root) + rng.normal(0, 7, 3)
            path = np.array([root, middle, tip])
            for piece in tube(path, np.array([radius, 0.6 * radius, 0.25 * radius])):
                yield Organ(shape=piece, hu=hu[tissue], limits=INSIDE, name="liver vessel")


def _spleen(rng: np.random.Generator, hu: Mapping[str, float], wide: float) -> Organ:
    size = float(np.clip(rng.normal(1.0, 0.13), 0.7, 1.5))
    shape = Ellipsoid(
        centre=(-72.0, 8.0, 108.0 * wide),
        semi_mm=(50.0 * size, 42.0 * size, 24.0 * size),
        turn=rotation(-26.0, 12.0, -18.0),
    )
    return Organ(
        shape=shape, hu=hu["spleen"], rough_mm=2.5, texture_hu=4, limits=INSIDE, name="spleen"
    )


def _pancreas(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    path = np.array(
        [
            [22, -40, -38],
            [4, -46, -34],
            [-12, -58, -8],
            [-22, -52, 24],
            [-34, -28, 62],
            [-42, -12, 84],
        ],
        float,
    )
    path += rng.normal(0, 3.0, path.shape)
    radii = np.array([10.0, 14.0, 10.0, 9.5, 9.5, 7.0]) * float(rng.uniform(0.7, 1.15))
    for piece in tube(path, radii):
        yield Organ(
            shape=piece,
            hu=hu["pancreas"],
            rough_mm=3.0,
            texture_hu=9,
            limits=INSIDE,
            name="pancreas",
        )


def _bladder(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    full = float(rng.uniform(18, 46))
    wall = Ellipsoid(centre=(262.0, -45.0, 0.0), semi_mm=(full, full * 0.9, full * 1.2))
    yield Organ(shape=wall, hu=hu["muscle"], limits=IN_CAVITY, name="bladder wall")
    inside = Ellipsoid(centre=wall.centre, semi_mm=(full - 3, full * 0.9 - 3, full * 1.2 - 3))
    yield Organ(shape=inside, hu=hu["urine"], texture_hu=1, limits=IN_CAVITY, name="bladder")
