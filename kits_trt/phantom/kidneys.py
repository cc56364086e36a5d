"""Kidneys of the procedural anatomy: outline, sinus, collecting system, perirenal fat.

A kidney's own axes are (long, thick, wide): towards the lower pole, towards the back, and away
from the hilum. The label contains parenchyma and collecting system inside the outline, and not the
fat of the sinus, as the KiTS label maps do.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kits_trt.phantom.fields import Floats, SmoothField, draw_field
from kits_trt.phantom.lesions import USUAL_TUMOURS, TumourVariety, draw_lesions
from kits_trt.phantom.model import Kidney, Organ, Side
from kits_trt.phantom.phases import Phase
from kits_trt.phantom.shapes import (
    Block,
    Bounds,
    Ellipsoid,
    Point,
    Shape,
    local_points,
    rotation,
    tube,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bean:
    """A bent ellipsoid: its poles lean towards the hilum and its hilar face is flattened."""

    centre: Point
    semi_mm: Point
    turn: Floats
    bend: float
    hilum: float

    def bounds(self) -> Bounds:
        """A box around the ball that holds the bean."""
        long, thick, wide = self.semi_mm
        reach = np.abs(np.asarray(self.turn, np.float64)) * np.array(
            [[long], [thick], [wide * (1 + self.bend)]]
        )
        half = reach.sum(axis=0)
        z, y, x = self.centre
        return (z - half[0], y - half[1], x - half[2]), (z + half[0], y + half[1], x + half[2])

    def signed_distance(self, block: Block) -> Floats:
        """The ellipsoid's distance at the point that the bend carries there."""
        long, thick, wide = local_points(block.points, self.centre, self.turn)
        share = long / np.float32(self.semi_mm[0])
        wide = wide + np.float32(self.bend * self.semi_mm[2]) * (share * share - np.float32(0.3))
        # The hilar lip: the inner face is drawn in around the middle of the kidney.
        dent = np.exp(-(share * share) * 5 - (thick / np.float32(self.semi_mm[1])) ** 2 * 2.5)
        wide = wide - np.float32(self.hilum) * dent * (wide < 0)
        scaled = (share, thick / np.float32(self.semi_mm[1]), wide / np.float32(self.semi_mm[2]))
        square = [s * s for s in scaled]
        norm = np.sqrt(square[0] + square[1] + square[2])
        slope = np.sqrt(
            sum(s / np.float32(m * m) for s, m in zip(square, self.semi_mm, strict=True))
        )
        distance: Floats = norm * (norm - 1) / np.maximum(slope, np.float32(1e-6))
        return distance


@dataclass(frozen=True, slots=True, kw_only=True)
class Variety:
    """How often kidneys look unusual.

    Attributes:
        sinus: Shares of kidneys with a sinus full of fat, with clefts of it, and with none.
        bulged: Share whose outline has large bulges and dents instead of lobes.
        tumours: How many tumours there are and how they vary.
    """

    sinus: tuple[float, float, float]
    bulged: float = 0.0
    tumours: TumourVariety = USUAL_TUMOURS


UNUSUAL_TUMOURS = TumourVariety(share=0.7, spread=0.65, rough=(0.6, 2.0), anywhere=True)
USUAL = Variety(sinus=(0.5, 0.3, 0.2))
# A net that sees fat in most sections of healthy kidneys takes a solid section for a tumour.
UNUSUAL = Variety(sinus=(0.25, 0.25, 0.5), bulged=0.25, tumours=UNUSUAL_TUMOURS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pose:
    """Where one kidney lies and how large it is."""

    side: Side
    centre: Point
    semi_mm: Point
    turn: Floats

    def place(self, long: float, thick: float, wide: float) -> Point:
        """Patient coordinates of a point given in the kidney's own axes, in half-axes."""
        local = np.array([long, thick, wide]) * np.array(self.semi_mm)
        z, y, x = np.asarray(self.centre) + local @ np.asarray(self.turn, np.float64)
        return float(z), float(y), float(x)


def draw_poses(rng: np.random.Generator, wide: float, kidney_back_mm: float) -> tuple[Pose, ...]:
    """Two kidneys, seldom one, seldom one of them low, small or both.

    Args:
        rng: Random numbers of this part.
        wide: The trunk's width relative to the average.
        kidney_back_mm: Middle (y) of the kidneys; more visceral fat carries them forward.
    """
    size = float(np.clip(rng.normal(1.0, 0.075), 0.82, 1.2))
    chance = float(rng.random())
    sides: Sequence[Side] = ("right", "left")
    if chance < 0.04:
        sides = (sides[int(rng.integers(2))],)
        size *= 1.12  # the only kidney grows
    odd = sides[int(rng.integers(len(sides)))]
    variant = "ectopic" if 0.04 <= chance < 0.07 else "atrophic" if chance < 0.11 else ""
    if len(sides) == 1:
        variant = ""
    return tuple(
        _pose(rng, side, (size, wide, kidney_back_mm), variant if side == odd else "")
        for side in sides
    )


def _pose(
    rng: np.random.Generator, side: Side, frame: tuple[float, float, float], variant: str
) -> Pose:
    size, wide, back = frame
    sign = 1.0 if side == "left" else -1.0
    height = float(rng.normal(-9 if side == "left" else 9, 9))
    offset = sign * (71 * (0.35 + 0.65 * wide) + float(rng.normal(0, 3)))
    if variant == "ectopic":
        height, offset, back = float(rng.uniform(85, 135)), 0.62 * offset, back - 34
    if variant == "atrophic":
        size *= float(rng.uniform(0.55, 0.75))
    semi = np.array([57.0, 27.5, 31.0]) * size * np.clip(rng.normal(1.0, 0.08, 3), 0.84, 1.24)
    # Poles: the upper one medial and behind; the hilum looks forwards and to the middle.
    lean, tilt = float(rng.normal(16, 6)), float(rng.normal(12, 6))
    open_front = float(rng.normal(32, 14)) + (40 if variant == "ectopic" else 0)
    flip = np.diag([1.0, 1.0, sign]).astype(np.float32)
    turn = rotation(-open_front, 0.0, 0.0) @ rotation(0.0, 0.0, -tilt) @ rotation(0.0, lean, 0.0)
    return Pose(
        side=side,
        centre=(height, back + float(rng.normal(0, 3)), offset),
        semi_mm=(float(semi[0]), float(semi[1]), float(semi[2])),
        turn=np.asarray(turn @ flip, np.float32),
    )


def draw_kidney(
    rng: np.random.Generator, pose: Pose, hu: Mapping[str, float], phase: Phase, variety: Variety
) -> Kidney:
    """A kidney at the pose with everything in it."""
    bean = Bean(
        centre=pose.centre,
        semi_mm=pose.semi_mm,
        turn=pose.turn,
        bend=float(rng.uniform(0.15, 0.42)),
        hilum=float(rng.uniform(1.0, 8.0)),
    )
    sinus, calyces, inner = _hollow(rng, pose, hu, variety.sinus)
    return Kidney(
        side=pose.side,
        centre=pose.centre,
        outline=bean,
        lobes=_relief(rng, variety.bulged),
        pyramids=draw_field(rng, 1.0, pitch_mm=float(rng.uniform(9, 13))),
        cortex_mm=float(rng.uniform(4.5, 8.0)),
        lined=bool(rng.random() < 0.5),
        sinus=sinus,
        calyces=calyces,
        inner=inner,
        lesions=draw_lesions(rng, pose, hu, phase, variety=variety.tumours),
    )


def _relief(rng: np.random.Generator, bulged: float) -> SmoothField:
    """What moves the outline: lobes, or large bulges and dents."""
    if bulged and rng.random() < bulged:
        return draw_field(rng, float(rng.uniform(3, 6)), pitch_mm=float(rng.uniform(30, 50)))
    lobed = float(rng.choice([0.5, 1.0, 2.0, 3.2], p=[0.3, 0.35, 0.2, 0.15]))
    return draw_field(rng, lobed, pitch_mm=float(rng.uniform(13, 24)))


def _hollow(
    rng: np.random.Generator,
    pose: Pose,
    hu: Mapping[str, float],
    shares: tuple[float, float, float],
) -> tuple[tuple[Shape, ...], tuple[Shape, ...], tuple[Organ, ...]]:
    """Sinus fat, calyces and pelvis, and what else lies in the sinus.

    A sinus is full of fat, or there are only clefts of it between solid parenchyma, or neither;
    ``shares`` say how often. Where nothing is dilated and nothing opaque, the calyces may be too
    thin to be seen.
    """
    kind = str(rng.choice(["full", "clefts", "solid"], p=shares))
    hub = pose.place(0.03, 0.05, -0.62)
    swollen = float(rng.choice([1.0, 1.5, 2.6], p=[0.7, 0.22, 0.08]))
    tips = [
        pose.place(
            reach + float(rng.normal(0, 0.04)),
            float(rng.normal(0, 0.22)),
            float(rng.uniform(-0.1, 0.16)),
        )
        for reach in (-0.5, -0.22, 0.05, 0.3, 0.52)
    ]
    collapsed = kind != "full" and swollen == 1.0 and rng.random() < 0.5
    calyces = () if collapsed else tuple(_calyces(pose, hub, tips, swollen))
    organs = [] if kind == "solid" else list(_vessels(rng, pose, hu))
    organs += [Organ(shape=s, hu=hu["pelvis"], texture_hu=2, name="pelvis") for s in calyces]
    if rng.random() < 0.08:
        stone = Ellipsoid(
            centre=tips[int(rng.integers(len(tips)))],
            semi_mm=tuple(rng.uniform(1.5, 6.0, 3).tolist()),
        )
        organs.append(Organ(shape=stone, hu=hu["stone"], name="stone"))
    return tuple(_fat(rng, pose, hub, kind)), calyces, tuple(organs)


def _fat(rng: np.random.Generator, pose: Pose, hub: Point, kind: str) -> Iterator[Shape]:
    """The fat of the sinus: a core, or clefts that run from the hilum between the pyramids."""
    long, thick, wide = pose.semi_mm
    if kind == "full":
        fat = float(rng.uniform(0.35, 1.0))
        yield Ellipsoid(
            centre=pose.place(0.0, 0.0, -0.42),
            semi_mm=(0.42 * long * (0.6 + 0.4 * fat), 0.36 * thick * fat, 0.5 * wide),
            turn=pose.turn,
        )
    if kind == "clefts":
        for _ in range(int(rng.integers(2, 7))):
            end = pose.place(*rng.normal([0.0, 0.0, -0.1], [0.35, 0.3, 0.15]).tolist())
            widths = np.array([rng.uniform(1.0, 4.5), rng.uniform(0.8, 2.0)])
            yield from tube(np.array([hub, end]), widths)


def _calyces(pose: Pose, hub: Point, tips: Sequence[Point], swollen: float) -> Iterator[Shape]:
    """Tubes from the pelvis to the calyces, and the ureter."""
    for tip in tips:
        yield from tube(np.array([hub, tip]), np.array([1.7, 2.6]) * swollen)
    ureter = np.array([hub, pose.place(0.2, 0.1, -1.12), pose.place(0.75, 0.3, -1.3)])
    yield from tube(ureter, np.array([4.2, 5.0, 2.2]) * (0.7 + 0.3 * swollen))


def _vessels(rng: np.random.Generator, pose: Pose, hu: Mapping[str, float]) -> Iterator[Organ]:
    """Vessels that enter the sinus."""
    gate = pose.place(-0.05, -0.1, -1.05)
    for reach in (-0.3, 0.0, 0.28):
        tip = pose.place(reach, float(rng.normal(-0.1, 0.15)), -0.12)
        for piece in tube(np.array([gate, tip]), np.array([2.6, 1.2])):
            yield Organ(shape=piece, hu=hu["renal_vein"], name="sinus vessel")


def perirenal_fat(
    rng: np.random.Generator, pose: Pose, hu: Mapping[str, float], thick_mm: float
) -> Organ:
    """The fat capsule around a kidney."""
    a, b, c = (semi + thick_mm for semi in pose.semi_mm)
    shape = Ellipsoid(centre=pose.centre, semi_mm=(a + thick_mm, b, c), turn=pose.turn)
    value = hu["fat"] + float(rng.normal(0, 4))
    return Organ(
        shape=shape,
        hu=value,
        rough_mm=1.5,
        texture_hu=5,
        limits={"cavity": 1.0},
        name="perirenal fat",
    )
