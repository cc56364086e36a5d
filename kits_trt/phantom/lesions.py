"""Tumours and cysts of a kidney."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kits_trt.phantom.fields import Floats
from kits_trt.phantom.model import KIDNEY, TUMOUR, Lesion
from kits_trt.phantom.phases import TUMOUR_KINDS, Phase, draw_tumour_hu
from kits_trt.phantom.shapes import Ellipsoid, Point, rotation

_LOOKS = ("homogeneous", "heterogeneous", "necrotic", "cystic", "infiltrating")
_LOOK_WEIGHTS = (0.33, 0.24, 0.26, 0.12, 0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class TumourVariety:
    """How many tumours there are and how they vary.

    Attributes:
        share: Of kidneys that have one, seldom two.
        spread: Standard deviation of the logarithm of the radius.
        rough: Limits of a factor of the roughness.
        anywhere: Whether they may lie behind and at the hilum, and hang on the kidney by an edge.
    """

    share: float = 0.52  # about three patients in four have one in either kidney
    spread: float = 0.52
    rough: tuple[float, float] = (1.0, 1.0)
    anywhere: bool = False


USUAL_TUMOURS = TumourVariety()


class Place(Protocol):
    """A kidney's pose, as far as lesions need it."""

    @property
    def semi_mm(self) -> Point:
        """Half-axes."""

    @property
    def turn(self) -> Floats:
        """Own axes as rows."""

    def place(self, long: float, thick: float, wide: float) -> Point:
        """Patient coordinates of a point in half-axes."""


def draw_lesions(
    rng: np.random.Generator,
    place: Place,
    hu: Mapping[str, float],
    phase: Phase,
    variety: TumourVariety,
) -> tuple[Lesion, ...]:
    """The lesions of one kidney: cysts first, tumours over them."""
    cysts = tuple(_cysts(rng, place, hu))
    tumours = tuple(_tumours(rng, place, hu, phase, variety))
    return (*cysts, *tumours)


def draw_look(
    rng: np.random.Generator, hu: Mapping[str, float], phase: Phase, radius_mm: float
) -> dict[str, float]:
    """HU of a tumour's parts, relative size of its core, wall, texture and border."""
    kind = TUMOUR_KINDS[int(rng.choice(len(TUMOUR_KINDS), p=(0.6, 0.16, 0.14, 0.1)))]
    solid = draw_tumour_hu(rng, phase, kind)
    look = _LOOKS[int(rng.choice(len(_LOOKS), p=_LOOK_WEIGHTS))]
    if look == "necrotic" and radius_mm < 12:
        look = "heterogeneous"
    liquid = float(rng.uniform(5, 28))
    parts = {"hu": solid, "core": 0.0, "core_hu": liquid, "wall_mm": 0.0, "wall_hu": solid}
    parts["texture_hu"] = float(rng.uniform(2, 6))
    parts["rough"], parts["blur_mm"] = 0.07, 0.0
    if look == "infiltrating":
        parts["rough"], parts["blur_mm"] = 0.16, float(rng.uniform(3, 8))
    if look in ("heterogeneous", "infiltrating"):
        parts["texture_hu"] = float(rng.uniform(10, 26))
    if look == "necrotic":
        parts["core"] = float(rng.uniform(0.4, 0.75))
        parts["texture_hu"] = float(rng.uniform(6, 18))
    if look == "cystic":
        parts["hu"] = liquid
        parts["wall_mm"] = float(rng.uniform(1.5, 4.0))
    return parts


def _tumours(
    rng: np.random.Generator,
    place: Place,
    hu: Mapping[str, float],
    phase: Phase,
    variety: TumourVariety,
) -> Iterator[Lesion]:
    if rng.random() > variety.share:
        return
    for _ in range(2 if rng.random() < 0.05 else 1):
        radius = float(np.clip(rng.lognormal(np.log(19), variety.spread), 5, 74))
        ratio = np.clip(rng.normal(1.0, 0.12, 3), 0.75, 1.3)
        # Small ones sit anywhere; large ones grow outwards, or they would replace the kidney.
        furthest = 1.25 if variety.anywhere else 1.1
        outward = float(rng.uniform(0.55, furthest)) + 0.35 * radius / place.semi_mm[2]
        centre = _surface_place(rng, place, outward, anywhere=variety.anywhere)
        semi = radius * ratio
        turn = rotation(*rng.uniform(-90, 90, 3).tolist())
        look = draw_look(rng, hu, phase, radius)
        least, most = variety.rough
        roughness = look["rough"] * (float(rng.uniform(least, most)) if least < most else least)
        core = None
        if look["core"] > 0:
            shift = rng.normal(0, 0.12, 3) * semi
            core = Ellipsoid(
                centre=(centre[0] + shift[0], centre[1] + shift[1], centre[2] + shift[2]),
                semi_mm=tuple((look["core"] * semi).tolist()),
                turn=turn,
            )
        yield Lesion(
            shape=Ellipsoid(centre=centre, semi_mm=tuple(semi.tolist()), turn=turn),
            label=TUMOUR,
            kind="tumour",
            hu=look["hu"],
            core=core,
            core_hu=look["core_hu"],
            wall_mm=look["wall_mm"],
            wall_hu=look["wall_hu"],
            texture_hu=look["texture_hu"],
            rough_mm=roughness * min(radius, 36.0),
            blur_mm=look["blur_mm"],
        )


def _cysts(rng: np.random.Generator, place: Place, hu: Mapping[str, float]) -> Iterator[Lesion]:
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.6, 0.24, 0.11, 0.05]))):
        radius = float(np.clip(rng.lognormal(np.log(9), 0.55), 3, 35))
        centre = _surface_place(rng, place, float(rng.uniform(0.7, 1.05)))
        dense = rng.random() < 0.18
        value = hu["dense_cyst"] if dense else hu["cyst"]
        yield Lesion(
            shape=Ellipsoid(centre=centre, semi_mm=(radius, radius, radius)),
            label=KIDNEY,
            kind="dense cyst" if dense else "cyst",
            hu=value + float(rng.normal(0, 4)),
            texture_hu=1.0,
            wall_mm=float(rng.choice([0.0, 0.8])),
            wall_hu=hu["muscle"],
        )


def _surface_place(
    rng: np.random.Generator, place: Place, outward: float, *, anywhere: bool = False
) -> Point:
    """A point in half-axes times ``outward``, away from hilum and back muscles or ``anywhere``."""
    turn = np.asarray(place.turn, np.float64)
    for _ in range(12):
        direction = rng.normal(0, 1, 3)
        direction /= max(float(np.linalg.norm(direction)), 1e-6)
        backwards = float(direction @ turn[:, 1])
        if anywhere or (direction[2] > -0.35 and backwards < 0.35):
            break
    z, y, x = outward * direction
    return place.place(float(z), float(y), float(x))
