"""Draws one patient: habitus, organs, kidneys and scanner, each from its own random stream."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kits_trt.phantom.bowel import draw_bowel
from kits_trt.phantom.extras import draw_arms, draw_breath, draw_metal, metal_organs
from kits_trt.phantom.fields import SmoothField, draw_field
from kits_trt.phantom.kidneys import USUAL, Variety, draw_kidney, draw_poses, perirenal_fat
from kits_trt.phantom.model import Kidney, Organ, Patient, Torso, stream
from kits_trt.phantom.organs import draw_adrenals, draw_organs
from kits_trt.phantom.phases import Phase, draw_hu, draw_phase
from kits_trt.phantom.scanner import draw_scanner
from kits_trt.phantom.shapes import Point, rotation
from kits_trt.phantom.skeleton import draw_skeleton
from kits_trt.phantom.vessels import draw_vessels

USUAL_PLACES: Mapping[str, Point] = {"right": (9.0, 17.0, -72.0), "left": (-9.0, 17.0, 72.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Habitus:
    """Build of the trunk: its surfaces, and the fat around the kidneys."""

    torso: Torso
    perirenal_mm: float
    kidney_back_mm: float

    @property
    def wide(self) -> float:
        """Width of the cavity relative to the average."""
        return self.torso.half_width_mm / 135.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core:
    """What the rest of a patient is built around: kidneys, their fat, and where vessels enter."""

    kidneys: tuple[Kidney, ...]
    fat: tuple[Organ, ...]
    hila: Mapping[str, Point]


def draw_patient(
    seed: int, case: int, *, phase: Phase | None = None, variety: Variety = USUAL
) -> Patient:
    """A random anatomy; the same for the same seed and case, whatever else is drawn.

    Args:
        seed: Seed of the whole set, not negative.
        case: Number of the case in the set, not negative.
        phase: Contrast phase; drawn with the frequencies of ``phases`` where it is None. The
            anatomy does not depend on it.
        variety: How often kidneys look unusual.
    """
    habitus = draw_habitus(stream(seed, case, "habitus"))
    phase, hu = draw_contrast(seed, case, phase)
    poses = draw_poses(stream(seed, case, "poses"), habitus.wide, habitus.kidney_back_mm)
    rng = stream(seed, case, "fat")
    core = Core(
        kidneys=tuple(
            draw_kidney(stream(seed, case, p.side), p, hu, phase, variety) for p in poses
        ),
        fat=tuple(perirenal_fat(rng, pose, hu, habitus.perirenal_mm) for pose in poses),
        hila={pose.side: pose.place(0.0, -0.05, -1.0) for pose in poses},
    )
    metal = draw_metal(stream(seed, case, "metal"))
    rng = stream(seed, case, "pose")
    torso = habitus.torso
    front = torso.front_mm - torso.wall_mm - torso.fat_front_mm
    return Patient(
        seed=seed,
        case=case,
        phase=phase,
        hu=hu,
        torso=torso,
        warp=draw_warp(stream(seed, case, "warp")),
        turn=rotation(*rng.normal(0, [3.5, 1.5, 1.5]).tolist()),
        rough=draw_rough(seed, case),
        grain=draw_grain(seed, case),
        organs=(*draw_surroundings(seed, case, hu, torso, core), *metal_organs(metal)),
        kidneys=core.kidneys,
        scanner=draw_scanner(stream(seed, case, "scanner")),
        centre_mm=(
            float(rng.normal(5, 12)),
            (torso.back_skin_mm + front) / 2 + float(rng.normal(8, 8)),
            float(rng.normal(0, 6)),
        ),
        metal=metal,
        breath=draw_breath(stream(seed, case, "breath")),
    )


def draw_contrast(seed: int, case: int, phase: Phase | None) -> tuple[Phase, dict[str, float]]:
    """The phase, drawn where it is None, and the CT numbers that go with it."""
    drawn = draw_phase(stream(seed, case, "phase"))
    chosen = drawn if phase is None else phase
    return chosen, draw_hu(stream(seed, case, "hu"), chosen)


def draw_rough(seed: int, case: int) -> SmoothField:
    """The field that makes surfaces uneven."""
    return draw_field(stream(seed, case, "rough"), 1.0, pitch_mm=13.0, controls=16)


def draw_grain(seed: int, case: int) -> SmoothField:
    """The field that varies tissues inside."""
    return draw_field(stream(seed, case, "grain"), 1.0, pitch_mm=5.0, controls=24)


def draw_habitus(rng: np.random.Generator) -> Habitus:
    """A trunk between slim and obese, subcutaneous and visceral fat varying apart."""
    size = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.14))
    visceral = float(rng.beta(1.6, 1.8))
    under_skin = float(rng.beta(1.6, 2.4))
    fat = 6 + 42 * under_skin
    torso = Torso(
        half_width_mm=size * (119 + 27 * visceral),
        front_mm=-size * (72 + 62 * visceral),
        back_mm=55.0 + 4 * visceral,
        wall_mm=float(rng.uniform(8, 13)),
        fat_side_mm=fat * float(rng.uniform(0.6, 1.0)),
        fat_front_mm=fat * float(rng.uniform(0.5, 1.0)),
        fat_back_mm=14 + fat * float(rng.uniform(0.5, 0.9)),
        skin_mm=float(rng.uniform(1.5, 2.6)),
        dome_mm=(float(rng.normal(-132, 12)), float(rng.normal(-118, 12))),
    )
    perirenal = 1.5 + 24 * visceral * float(rng.uniform(0.35, 1.0))
    back = 21.0 - 9 * visceral + float(rng.normal(0, 3))
    return Habitus(torso=torso, perirenal_mm=perirenal, kidney_back_mm=back)


def draw_warp(rng: np.random.Generator) -> tuple[SmoothField, SmoothField, SmoothField]:
    """The displacement along z, y, x that bends everything in the trunk together."""
    z, y, x = (draw_field(rng, 3.0, pitch_mm=55.0, controls=14) for _ in range(3))
    return z, y, x


def draw_surroundings(
    seed: int, case: int, hu: Mapping[str, float], torso: Torso, core: Core
) -> tuple[Organ, ...]:
    """Everything but the kidneys, in painting order."""
    return (
        *draw_bowel(stream(seed, case, "bowel"), hu, torso),
        *draw_organs(stream(seed, case, "organs"), hu, torso),
        *core.fat,
        *draw_skeleton(stream(seed, case, "bones"), hu, torso),
        *draw_vessels(stream(seed, case, "vessels"), hu, core.hila),
        *draw_adrenals(hu, USUAL_PLACES),
        *draw_arms(stream(seed, case, "arms"), hu, torso),
    )
