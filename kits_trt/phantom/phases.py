"""CT numbers of tissues in the four contrast phases, and how far they scatter between patients.

Means are textbook values for adults; the spread is deliberately wider than in any one hospital,
because a net that trains on these scans should not rely on absolute brightness.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Phase = Literal["unenhanced", "arterial", "nephrographic", "excretory"]
PHASES: tuple[Phase, ...] = get_args(Phase)
PHASE_WEIGHTS = (0.22, 0.33, 0.3, 0.15)

# tissue: mean HU in each phase, relative spread of the enhancement, spread in HU
_ENHANCING: Mapping[str, tuple[tuple[float, float, float, float], float, float]] = {
    "aorta": ((42, 290, 155, 115), 0.25, 4),
    "vena_cava": ((40, 95, 145, 112), 0.25, 4),
    "renal_artery": ((42, 280, 150, 112), 0.25, 4),
    "renal_vein": ((40, 175, 160, 112), 0.25, 4),
    "portal": ((40, 115, 165, 115), 0.25, 4),
    "cortex": ((33, 185, 185, 150), 0.22, 4),
    "medulla": ((31, 75, 178, 150), 0.22, 4),
    "pelvis": ((6, 8, 14, 650), 0.5, 5),
    "liver": ((56, 70, 112, 96), 0.25, 8),
    "spleen": ((48, 118, 122, 100), 0.22, 4),
    "pancreas": ((40, 98, 92, 76), 0.25, 6),
    "muscle": ((54, 58, 64, 63), 0.2, 5),
    "adrenal": ((30, 75, 70, 60), 0.3, 6),
    "bowel_wall": ((38, 85, 90, 75), 0.3, 6),
    "heart": ((42, 190, 140, 110), 0.25, 4),
}
_FIXED: Mapping[str, tuple[float, float]] = {
    "fat": (-102, 8),
    "subcutaneous": (-106, 7),
    "skin": (15, 18),
    "cortical_bone": (620, 130),
    "marrow": (190, 60),
    "rib_marrow": (160, 50),
    "disc": (80, 15),
    "canal": (28, 8),
    "lung": (-820, 45),
    "bile": (8, 6),
    "urine": (5, 4),
    "fluid": (18, 10),
    "stool": (15, 35),
    "gas": (-950, 30),
    "cyst": (8, 6),
    "dense_cyst": (62, 14),
    "stone": (750, 250),
    "calcium": (550, 180),
}
_TUMOUR: Mapping[str, tuple[float, float, float, float]] = {
    "clear_cell": (35, 135, 115, 90),
    "papillary": (34, 58, 68, 66),
    "chromophobe": (36, 92, 88, 78),
    "fat_poor": (42, 100, 85, 75),
}
TUMOUR_KINDS = tuple(_TUMOUR)


def draw_phase(rng: np.random.Generator) -> Phase:
    """One phase, the arterial and the nephrographic being the most frequent in KiTS."""
    return PHASES[int(rng.choice(len(PHASES), p=PHASE_WEIGHTS))]


def draw_hu(rng: np.random.Generator, phase: Phase) -> dict[str, float]:
    """The CT number of every tissue in one patient.

    Enhancement varies together (dose and timing of the contrast agent are the patient's) and then
    for each tissue alone; the unenhanced value varies by a few HU.
    """
    place = PHASES.index(phase)
    common = float(np.clip(rng.normal(1.0, 0.15), 0.6, 1.5))
    hu: dict[str, float] = {}
    for tissue, (means, relative, spread) in _ENHANCING.items():
        gain = common * float(np.clip(rng.normal(1.0, relative), 0.4, 1.8))
        hu[tissue] = means[0] + (means[place] - means[0]) * gain + float(rng.normal(0, spread))
    for tissue, (mean, spread) in _FIXED.items():
        hu[tissue] = mean + float(np.clip(rng.normal(0, spread), -2.5 * spread, 2.5 * spread))
    if rng.random() < 0.2:
        hu["liver"] -= float(rng.uniform(10, 50))  # fatty liver
    return hu


def draw_tumour_hu(rng: np.random.Generator, phase: Phase, kind: str) -> float:
    """The CT number of a tumour's solid part."""
    means = _TUMOUR[kind]
    gain = float(np.clip(rng.normal(1.0, 0.25), 0.4, 1.7))
    return means[0] + (means[PHASES.index(phase)] - means[0]) * gain + float(rng.normal(0, 5))
