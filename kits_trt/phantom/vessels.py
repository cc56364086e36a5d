"""Aorta, vena cava, iliac, renal, mesenteric and splenic vessels."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kits_trt.phantom.model import Organ
from kits_trt.phantom.shapes import Capsule, Point, tube

_AORTA = np.array(
    [[-480, -8, 16], [-330, -16, 16], [-120, -24, 12], [-40, -31, 9], [40, -37, 7], [92, -37, 3]],
    float,
)
_CAVA = np.array(
    [[100, -32, -14], [40, -35, -20], [-40, -33, -22], [-90, -26, -24], [-135, -26, -22]], float
)


def draw_vessels(
    rng: np.random.Generator, hu: Mapping[str, float], hila: Mapping[str, Point]
) -> tuple[Organ, ...]:
    """The great vessels and the renal pedicles to the given hila."""
    return (
        *_great_vessels(rng, hu),
        *_gut_vessels(hu),
        *_pedicles(rng, hu, hila),
    )


def _run(path: ArrayLike, radii: ArrayLike, hu: float, name: str) -> Iterator[Organ]:
    for piece in tube(np.asarray(path, float), np.asarray(radii, float)):
        yield Organ(shape=piece, hu=hu, texture_hu=4, name=name)


def _great_vessels(rng: np.random.Generator, hu: Mapping[str, float]) -> Iterator[Organ]:
    width = float(np.clip(rng.normal(10.0, 1.4), 7.5, 15))
    path = _AORTA + rng.normal(0, 1.5, _AORTA.shape)
    wall = np.array([1.25, 1.2, 1.1, 1.05, 0.95, 0.85]) * width
    yield from _run(path, wall + 1.2, hu["muscle"], "aortic wall")
    yield from _run(path, wall, hu["aorta"], "aorta")
    flat = np.array([9.0, 10.5, 11.5, 12.0, 12.0]) * float(rng.uniform(0.7, 1.2))
    yield from _run(_CAVA, flat, hu["vena_cava"], "vena cava")
    for side in (-1, 1):
        artery = [path[-1], [130, -30, 3 + side * 24], [200, -20, side * 52], [290, -48, side * 75]]
        vein = [_CAVA[0], [140, -20, side * 26 - 4], [205, -10, side * 55], [290, -40, side * 68]]
        yield from _run(vein, [7.5, 7.0, 6.5, 6.0], hu["vena_cava"] - 10, "iliac vein")
        yield from _run(artery, [6.5, 5.5, 5.0, 4.5], hu["aorta"], "iliac artery")
    yield from _calcium(rng, hu, path, wall)


def _calcium(
    rng: np.random.Generator,
    hu: Mapping[str, float],
    path: NDArray[np.float64],
    wall: NDArray[np.float64],
) -> Iterator[Organ]:
    for _ in range(int(rng.choice([0, 4, 12], p=[0.5, 0.3, 0.2]))):
        share = float(rng.uniform(2, len(path) - 1.01))
        first = int(share)
        middle = path[first] + (share - first) * (path[first + 1] - path[first])
        angle = float(rng.uniform(0, 2 * np.pi))
        offset = float(wall[first]) * np.array([0, np.cos(angle), np.sin(angle)])
        z, y, x = middle + offset
        plaque = Capsule(start=(z - 3, y, x), end=(z + 3, y, x), radius_mm=(1.8, 1.2))
        yield Organ(shape=plaque, hu=hu["calcium"], name="calcium")


def _gut_vessels(hu: Mapping[str, float]) -> Iterator[Organ]:
    superior = [[-28, -40, 8], [-18, -54, 7], [20, -58, 5], [70, -62, -4]]
    yield from _run(superior, [4.0, 4.2, 3.8, 2.5], hu["aorta"], "superior mesenteric artery")
    vein = [[75, -62, -14], [20, -60, -10], [-16, -56, -12], [-32, -48, -28], [-46, -40, -38]]
    yield from _run(vein, [4.0, 5.5, 6.5, 6.5, 6.0], hu["portal"], "portal vein")
    splenic = [[-18, -54, -8], [-26, -46, 28], [-40, -20, 66], [-56, -4, 88]]
    yield from _run(splenic, [5.0, 4.5, 4.2, 3.5], hu["portal"], "splenic vein")
    trunk = [[-42, -38, 9], [-48, -52, 9]]
    yield from _run(trunk, [4.0, 3.8], hu["aorta"], "coeliac trunk")
    hepatic = [[-48, -52, 9], [-52, -52, -14], [-48, -42, -38]]
    yield from _run(hepatic, [3.0, 2.6, 2.2], hu["aorta"], "hepatic artery")


def _pedicles(
    rng: np.random.Generator, hu: Mapping[str, float], hila: Mapping[str, Point]
) -> Iterator[Organ]:
    """Artery behind vein; the left vein crosses in front of the aorta."""
    for side, hilum in hila.items():
        sign = 1 if side == "left" else -1
        end = np.asarray(hilum)
        level = float(np.clip(end[0], -40, 60) * 0.5 - 4)
        start = np.array([level, -30.0, 9 + sign * 8.0])
        bend = 0.5 * (start + end) + rng.normal(0, 4, 3)
        yield from _run([start, bend, end], [3.4, 3.0, 2.6], hu["renal_artery"], "renal artery")
        root = np.array([level - 2, -36.0, -20.0])
        way = [root, end + np.array([1.0, -5.0, 0.0])]
        if sign > 0:
            way.insert(1, np.array([level - 2, -52.0, 8.0]))
            way.insert(2, np.array([level, -44.0, 28.0]))
        radii = np.full(len(way), float(rng.uniform(4.2, 6.2)))
        yield from _run(way, radii, hu["renal_vein"], "renal vein")
