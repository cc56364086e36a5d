"""Stomach, duodenum, small bowel and colon: a wall, a filling, and gas that floats on it."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom.model import Organ, Torso
from kits_trt.phantom.shapes import Ellipsoid, Shape, rotation, tube

_LIMITS: Mapping[str, float] = {"cavity": 2.0, "dome": 3.0}
_Path = NDArray[np.float64]


def draw_bowel(
    rng: np.random.Generator, hu: Mapping[str, float], torso: Torso
) -> tuple[Organ, ...]:
    """The digestive tract in painting order, the mesentery's vessels first."""
    wide = torso.half_width_mm / 135.0
    deep = torso.front_mm / -100.0
    scale = np.array([1.0, deep, wide])
    return (
        *_mesentery(rng, hu, scale),
        *_small_bowel(rng, hu, scale),
        *_colon(rng, hu, scale),
        *_stomach(rng, hu, scale),
        *_duodenum(rng, hu),
    )


def _filling(rng: np.random.Generator, hu: Mapping[str, float], contrast: float) -> float:
    """CT number of what is in a piece of gut; positive oral contrast with the given probability."""
    if rng.random() < contrast:
        return float(rng.uniform(120, 420))
    return hu["fluid"] + float(rng.normal(5, 12))


def _mesentery(rng: np.random.Generator, hu: Mapping[str, float], scale: _Path) -> Iterator[Organ]:
    root = np.array([20.0, -48.0, 4.0])
    for _ in range(34):
        tip = np.array([rng.uniform(5, 190), rng.uniform(-92, -35), rng.uniform(-88, 88)])
        tip *= scale
        middle = 0.55 * root + 0.45 * tip + rng.normal(0, 9, 3)
        radii = np.array([2.4, 1.9, 1.1]) * float(rng.uniform(0.8, 1.3))
        for piece in tube(np.array([root, middle, tip]), radii):
            value = 0.6 * hu["portal"] + 0.4 * hu["muscle"]
            yield Organ(shape=piece, hu=value, limits=_LIMITS, name="mesentery")


def _small_bowel(
    rng: np.random.Generator, hu: Mapping[str, float], scale: _Path
) -> Iterator[Organ]:
    oral = float(rng.choice([0.0, 0.1, 0.85], p=[0.5, 0.25, 0.25]))
    jejunum = (np.array([-35.0, -80.0, 15.0]), np.array([90.0, -15.0, 92.0]))
    ileum = (np.array([15.0, -92.0, -86.0]), np.array([215.0, -32.0, 86.0]))
    for loop in range(int(rng.integers(12, 19))):
        path = _wander(rng, *(jejunum if loop < 4 else ileum))
        radius = float(rng.uniform(9, 14))
        filling = _filling(rng, hu, oral)
        yield from _gut(rng, hu, path * scale, (radius, filling, 0.12))


def _wander(rng: np.random.Generator, lower: _Path, upper: _Path) -> _Path:
    """A winding path that turns round at the walls of a box."""
    place = rng.uniform(lower, upper)
    heading = rng.normal(0, 1, 3) * np.array([0.8, 0.5, 1.0])
    path = [place]
    for _ in range(int(rng.integers(5, 10))):
        heading = 0.55 * heading / np.linalg.norm(heading) + rng.normal(0, 0.55, 3)
        place = place + 17 * heading / np.linalg.norm(heading)
        turned = (place < lower) | (place > upper)
        heading[turned] *= -1
        place = np.clip(place, lower, upper)
        path.append(place)
    return np.array(path)


def _colon(rng: np.random.Generator, hu: Mapping[str, float], scale: _Path) -> Iterator[Organ]:
    paths: tuple[list[list[float]], ...] = (
        [[165, -20, -88], [130, -12, -98], [95, -12, -104], [62, -22, -104], [38, -42, -98]],
        [
            [38, -42, -98], [36, -70, -78], [44, -84, -45], [52, -88, -10], [44, -86, 28],
            [20, -76, 62], [-8, -50, 92], [-30, -22, 106],
        ],
        [[-30, -22, 106], [5, 4, 112], [45, 10, 112], [90, 4, 108], [140, -6, 98], [175, -20, 84]],
        [[175, -20, 84], [205, -40, 55], [200, -30, 20], [225, 0, 5], [275, 20, 0], [330, 28, 0]],
    )  # fmt: skip
    oral = 0.3 * float(rng.random() < 0.4)
    for points, radius in zip(paths, (25.0, 21.0, 16.0, 16.0), strict=True):
        path = np.array(points, float) + rng.normal(0, 5, (len(points), 3))
        size = radius * float(np.clip(rng.normal(1.0, 0.17), 0.6, 1.4))
        filling = hu["stool"] if oral == 0 else _filling(rng, hu, oral)
        yield from _gut(rng, hu, path * scale, (size, filling, 0.6))


def _gut(
    rng: np.random.Generator, hu: Mapping[str, float], path: _Path, fill: tuple[float, float, float]
) -> Iterator[Organ]:
    """A tube of (radius, HU of the filling, probability of gas in each piece)."""
    radius, filling, gassy = fill
    wall = float(rng.uniform(1.6, 2.8))
    radii = radius * np.clip(rng.normal(1.0, 0.13, len(path)), 0.7, 1.35)
    pieces = tube(path, radii)
    rough = 0.14 * radius
    for piece in pieces:
        yield Organ(
            shape=piece, hu=hu["bowel_wall"], rough_mm=rough, limits=_LIMITS, name="bowel wall"
        )
    for piece in pieces:
        yield Organ(
            shape=piece,
            hu=filling,
            rough_mm=rough,
            texture_hu=12,
            limits=_LIMITS,
            inset_mm=wall,
            name="lumen",
        )
        if rng.random() < gassy:
            lower, upper = piece.bounds()
            yield Organ(
                shape=piece,
                hu=hu["gas"],
                rough_mm=rough,
                texture_hu=5,
                limits=_LIMITS,
                inset_mm=wall,
                level_y_mm=lower[1] + float(rng.uniform(0.25, 1.0)) * (upper[1] - lower[1]),
                name="gas",
            )


def _stomach(rng: np.random.Generator, hu: Mapping[str, float], scale: _Path) -> Iterator[Organ]:
    size = float(np.clip(rng.normal(1.0, 0.18), 0.6, 1.4))
    filling = _filling(rng, hu, 0.3)
    limits = {"cavity": 2.0, "dome": 4.0}
    centre = np.array([-80.0, -40.0, 62.0]) * scale
    body = np.array([46.0, 34.0, 36.0]) * size
    turn = rotation(20.0, -18.0, 15.0)
    middle = (float(centre[0]), float(centre[1]), float(centre[2]))
    semi = (float(body[0]), float(body[1]), float(body[2]))
    path = np.array([[-50, -66, 45], [-24, -76, 18], [-18, -72, -14], [-14, -54, -34]]) * scale
    antrum = tube(path, np.array([24.0, 19.0, 16.0, 12.0]) * size)
    shapes: tuple[Shape, ...] = (Ellipsoid(centre=middle, semi_mm=semi, turn=turn), *antrum)
    wall = float(rng.uniform(3, 6))
    level = middle[1] - float(rng.uniform(-0.2, 1.0)) * (semi[1] - wall)
    contents = (
        ("stomach wall", hu["bowel_wall"], 3.0, 0.0, np.inf),
        ("stomach", filling, 9.0, wall, np.inf),
        ("gas", hu["gas"], 3.0, wall, level),
    )
    for name, value, texture, inset, level_y in contents:
        for shape in shapes:
            yield Organ(
                shape=shape,
                hu=value,
                rough_mm=2.5,
                texture_hu=texture,
                limits=limits,
                inset_mm=inset,
                level_y_mm=level_y,
                name=name,
            )


def _duodenum(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    path = np.array(
        [
            [-14, -54, -34],
            [-2, -44, -56],
            [24, -34, -58],
            [46, -34, -42],
            [48, -38, -8],
            [30, -42, 22],
        ],
        float,
    )
    path += rng.normal(0, 2.5, path.shape)
    radius = float(rng.uniform(9, 13))
    yield from _gut(rng, hu, path, (radius, _filling(rng, hu, 0.2), 0.15))
