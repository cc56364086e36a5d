"""What a patient is made of, in mm and HU, independent of any grid.

Patient coordinates are (z, y, x): towards the feet, towards the back, towards the patient's left.
The origin is the middle of the vertebral column between the kidneys.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom.fields import Floats, SmoothField
from kits_trt.phantom.phases import Phase
from kits_trt.phantom.shapes import Block, Point, Shape

Side = Literal["left", "right"]
KIDNEY, TUMOUR, CYST = 1, 2, 3
"""Label values; cysts become kidney in KiTS19 and stay 3 only where given label maps have them."""

# How the trunk's width and depth follow its height: z in mm, then factors.
_HEIGHT_MM = (-420.0, -260.0, -120.0, -20.0, 60.0, 150.0, 230.0, 420.0)
_WIDTH = (1.02, 1.04, 1.02, 0.99, 0.97, 1.02, 1.08, 1.0)
_DEPTH = (0.98, 1.04, 1.05, 1.02, 0.99, 0.97, 0.98, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Organ:
    """A shape filled with one tissue.

    ``rough_mm`` moves the surface by the patient's random field, ``texture_hu`` varies the inside,
    ``limits`` keep the organ inside named surfaces of the trunk by at least so many mm. Below
    ``rind_mm`` under the surface lies another tissue, as marrow under compact bone. The organ can
    fill its shape up to ``inset_mm`` under the surface only, and in front of ``level_y_mm`` only:
    gas rises in a patient who lies on the back. Organs with one shape have its roughness and
    limits in common.
    """

    shape: Shape
    hu: float
    rough_mm: float = 0.0
    texture_hu: float = 3.0
    limits: Mapping[str, float] = field(default_factory=dict)
    rind_mm: float = np.inf
    core_hu: float = 0.0
    inset_mm: float = 0.0
    level_y_mm: float = np.inf
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesion:
    """A tumour or cyst: solid part, optional core, optional wall; painted over its kidney.

    ``blur_mm`` makes the visible border of an infiltrating tumour that much softer.
    """

    shape: Shape
    label: int
    kind: str
    hu: float
    core: Shape | None = None
    core_hu: float = 0.0
    wall_mm: float = 0.0
    wall_hu: float = 0.0
    texture_hu: float = 5.0
    rough_mm: float = 0.0
    blur_mm: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kidney:
    """One kidney: outline, sinus fat taken out of it, calyces that stay in, and what it carries.

    Where it is ``lined``, cortex lies along the sinus as well as under the outline.
    """

    side: Side
    centre: Point
    outline: Shape
    lobes: SmoothField
    pyramids: SmoothField
    cortex_mm: float
    lined: bool = False
    sinus: tuple[Shape, ...] = ()
    calyces: tuple[Shape, ...] = ()
    inner: tuple[Organ, ...] = ()
    lesions: tuple[Lesion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Torso:
    """The trunk's cross-section: an abdominal cavity, a muscle wall, fat and skin around it."""

    half_width_mm: float
    front_mm: float
    back_mm: float
    wall_mm: float
    fat_side_mm: float
    fat_front_mm: float
    fat_back_mm: float
    skin_mm: float
    dome_mm: tuple[float, float]

    @property
    def back_skin_mm(self) -> float:
        """How far behind the origin the back's skin lies, at the level of the kidneys."""
        return self.back_mm + self.wall_mm + self.fat_back_mm + self.skin_mm

    def section(self, grown_mm: Point) -> tuple[float, float, float]:
        """Half width, half depth and middle (y) of the cavity grown by (side, front, back) mm."""
        front = self.front_mm - grown_mm[1]
        back = self.back_mm + grown_mm[2]
        return self.half_width_mm + grown_mm[0], (back - front) / 2, (back + front) / 2

    def layers(self) -> Mapping[str, Point]:
        """What to add to the cavity at (side, front, back) for each surface, outermost first."""
        wall = (self.wall_mm, self.wall_mm, self.wall_mm)
        fat = (
            self.wall_mm + self.fat_side_mm,
            self.wall_mm + self.fat_front_mm,
            self.wall_mm + self.fat_back_mm,
        )
        skin = (fat[0] + self.skin_mm, fat[1] + self.skin_mm, fat[2] + self.skin_mm)
        return {"skin": skin, "fat": fat, "wall": wall, "cavity": (0.0, 0.0, 0.0)}

    def distance(self, block: Block, grown_mm: Point) -> Floats:
        """Distance to one surface along the ray from the middle of the section."""
        half_width, half_depth, middle = self.section(grown_mm)
        height = block.axes[0]
        width = np.interp(height, _HEIGHT_MM, _WIDTH).astype(np.float32).reshape(-1, 1, 1)
        depth = np.interp(height, _HEIGHT_MM, _DEPTH).astype(np.float32).reshape(-1, 1, 1)
        y = block.points[1] - np.float32(middle)
        y *= y
        x = block.points[2] * block.points[2]
        across = x * (1 / (width * np.float32(half_width)) ** 2)
        along = y * (1 / (depth * np.float32(half_depth)) ** 2)
        y += x
        # Between an ellipse and its boxy relative of the fourth power.
        norm = np.sqrt(across + along)
        across *= across
        along *= along
        across += along
        norm += np.sqrt(np.sqrt(across, out=across), out=across)
        norm *= np.float32(0.5)
        np.maximum(norm, np.float32(0.05), out=norm)
        distance: Floats = (1 - 1 / norm) * np.sqrt(y, out=y)
        return distance

    def dome_distance(self, block: Block) -> Floats:
        """Negative below the diaphragm, positive above it."""
        z, y, x = block.points
        heights = []
        for top, middle in zip(self.dome_mm, (-0.5, 0.52), strict=True):
            side = (x - np.float32(middle * self.half_width_mm)) / 70
            fall = 42 * (side * side + ((y + 22) / 66) ** 2)
            heights.append(np.float32(top) + fall)
        distance: Floats = np.float32(0.75) * (np.minimum(heights[0], heights[1]) - z)
        return distance

    def wall_radius_mm(self, angle: float) -> tuple[float, float]:
        """The wall's middle (y, x) in the direction of an angle from the back to the left."""
        half = self.wall_mm / 2
        half_width, half_depth, middle = self.section((half, half, half))
        y, x = np.cos(angle), np.sin(angle)
        across, along = (x / half_width) ** 2, (y / half_depth) ** 2
        norm = 0.5 * (np.sqrt(across + along) + np.sqrt(np.hypot(across, along)))
        return float(y / norm + middle), float(x / norm)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scanner:
    """How the picture is taken: noise, artefacts, couch, field of view."""

    noise_hu: float
    noise_grain_mm: float
    streak_hu: float
    bias: SmoothField
    blur_mm: float
    gain: float
    field_of_view_mm: float
    couch_gap_mm: float
    couch_radius_mm: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metal:
    """A rod of metal, and the rays it throws: a random factor for each direction."""

    place: Point
    radius_mm: float
    length_mm: float
    streak_hu: float
    rays: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Breath:
    """Everything below a height is shifted: the patient breathed while the table moved."""

    below_mm: float
    shift_mm: Point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenLabels:
    """A real label map and where its first voxel lies in patient coordinates."""

    labels: NDArray[np.uint8]
    first_mm: Point
    spacing_mm: Point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patient:
    """One anatomy. ``centre_mm`` is the point that a rendered grid has in its middle by default."""

    seed: int
    case: int
    phase: Phase
    hu: Mapping[str, float]
    torso: Torso
    warp: tuple[SmoothField, SmoothField, SmoothField]
    turn: Floats
    rough: SmoothField
    grain: SmoothField
    organs: tuple[Organ, ...]
    kidneys: tuple[Kidney, ...]
    scanner: Scanner
    centre_mm: Point
    given: GivenLabels | None = None
    metal: Metal | None = None
    breath: Breath | None = None


def stream(seed: int, case: int, part: str) -> np.random.Generator:
    """Random numbers for one part of one case; parts and cases do not disturb one another."""
    return np.random.default_rng([seed, case, *part.encode()])
