"""Renders the same world around the kidneys of a real label map."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from kits_trt.phantom.anatomy import (
    Core,
    Habitus,
    draw_contrast,
    draw_grain,
    draw_habitus,
    draw_rough,
    draw_surroundings,
    draw_warp,
)
from kits_trt.phantom.extras import draw_metal, metal_organs
from kits_trt.phantom.fields import draw_field
from kits_trt.phantom.label_map import (
    MARGIN_MM,
    LabelMap,
    Labels,
    Mask,
    first_voxel_mm,
    mask_box,
    placed_map,
    sinus_centre,
)
from kits_trt.phantom.lesions import draw_look
from kits_trt.phantom.model import (
    CYST,
    TUMOUR,
    GivenLabels,
    Kidney,
    Lesion,
    Organ,
    Patient,
    Side,
    Torso,
    stream,
)
from kits_trt.phantom.phases import Phase
from kits_trt.phantom.sampled import Grown
from kits_trt.phantom.scanner import draw_scanner
from kits_trt.phantom.shapes import Point, Shape, rotation, tube


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Half:
    """One side of a map: what is drawn there, and from what."""

    side: Side
    columns: slice
    placed: LabelMap
    rng: np.random.Generator
    hu: Mapping[str, float]
    phase: Phase

    @property
    def lateral(self) -> float:
        """1 towards the patient's left, -1 towards the right."""
        return 1.0 if self.side == "left" else -1.0

    def mask(self) -> Mask:
        """What is labelled in this half."""
        mask = np.zeros(self.placed.labels.shape, bool)
        mask[:, :, self.columns] = self.placed.labels[:, :, self.columns] > 0
        return mask


def patient_from_labels(
    labels: Labels, spacing_mm: Point, *, seed: int, case: int, phase: Phase | None = None
) -> Patient:
    """A patient whose kidneys, tumours and cysts are those of a label map.

    Rendered with the map's shape and spacing and no other centre, its labels are the map's own.

    Args:
        labels: 0 background, 1 kidney, 2 tumour, 3 cyst, on (z, y, x) towards feet, back, left.
        spacing_mm: Voxel size along the same axes.
        seed: Seed of everything around the kidneys, and of the contrast.
        case: Number of the case.
        phase: Contrast phase, drawn where it is None.

    Raises:
        ValueError: The map is not a volume or has no kidney in it.
    """
    if labels.ndim != 3 or not labels.any():
        raise ValueError(f"labels must be a volume with a kidney in it, found {labels.shape}")
    habitus = draw_habitus(stream(seed, case, "habitus"))
    phase, hu = draw_contrast(seed, case, phase)
    warp = draw_warp(stream(seed, case, "warp"))
    first = first_voxel_mm(labels, spacing_mm, habitus.kidney_back_mm)
    reach_mm = max(field.bound() for field in warp)
    placed = placed_map(labels, spacing_mm, first, reach_mm=reach_mm)
    habitus = replace(habitus, torso=_around(habitus.torso, placed))
    metal = draw_metal(stream(seed, case, "metal"))
    core = _core(placed, habitus, hu, (seed, case, phase))
    centre = tuple(
        f + (n - 1) / 2 * s for f, n, s in zip(first, labels.shape, spacing_mm, strict=True)
    )
    return Patient(
        seed=seed,
        case=case,
        phase=phase,
        hu=hu,
        torso=habitus.torso,
        warp=warp,
        turn=rotation(0.0, 0.0, 0.0),
        rough=draw_rough(seed, case),
        grain=draw_grain(seed, case),
        organs=(
            *draw_surroundings(seed, case, hu, habitus.torso, core),
            *metal_organs(metal),
        ),
        kidneys=core.kidneys,
        scanner=draw_scanner(stream(seed, case, "scanner")),
        centre_mm=(centre[0], centre[1], centre[2]),
        metal=metal,
        given=GivenLabels(labels=labels, first_mm=first, spacing_mm=spacing_mm),
    )


def _around(torso: Torso, placed: LabelMap) -> Torso:
    """The trunk, widened and deepened until it holds everything labelled."""
    lower, upper = placed.bounds()
    return replace(
        torso,
        half_width_mm=max(torso.half_width_mm, abs(lower[2]) + 14, abs(upper[2]) + 14),
        front_mm=min(torso.front_mm, lower[1] - 10),
        back_mm=max(torso.back_mm, upper[1] + 6),
    )


def _core(
    placed: LabelMap, habitus: Habitus, hu: Mapping[str, float], drawn: tuple[int, int, Phase]
) -> Core:
    seed, case, phase = drawn
    width = placed.labels.shape[2]
    midline = int(np.clip(round(-placed.first_mm[2] / placed.spacing_mm[2]), 0, width))
    sides: Sequence[tuple[Side, slice]] = (
        ("right", slice(0, midline)),
        ("left", slice(midline, width)),
    )
    kidneys, fat = [], []
    hila: dict[str, Point] = {}
    for side, columns in sides:
        rng = stream(seed, case, side)
        half = _Half(side=side, columns=columns, placed=placed, rng=rng, hu=hu, phase=phase)
        if not half.mask().any():
            continue
        kidney, hila[side] = _kidney(half)
        kidneys.append(kidney)
        capsule = Grown(shape=kidney.outline, by_mm=min(habitus.perirenal_mm, MARGIN_MM))
        fat.append(Organ(shape=capsule, hu=hu["fat"], texture_hu=5, limits={"cavity": 1.0}))
    return Core(kidneys=tuple(kidneys), fat=tuple(fat), hila=hila)


def _kidney(half: _Half) -> tuple[Kidney, Point]:
    """The kidney in one half of the map, and where its vessels enter."""
    mask, placed, rng = half.mask(), half.placed, half.rng
    box = mask_box(mask)
    corner = np.array([part.start for part in box], float)
    z, y, x = placed.millimetres(corner + np.argwhere(mask[box]).mean(axis=0)).tolist()
    sinus = sinus_centre(mask[box], placed.spacing_mm)
    if sinus is None:
        hub = np.array([z, y - 4.0, x - half.lateral * 10.0])
    else:
        hub = placed.millimetres(corner + sinus)
    pelvis = _pelvis(half, hub)
    kidney = Kidney(
        side=half.side,
        centre=(z, y, x),
        outline=placed.sampled(placed.labels > 0, box),
        lobes=draw_field(rng, 0.0, pitch_mm=20.0),
        pyramids=draw_field(rng, 1.0, pitch_mm=float(rng.uniform(9, 13))),
        cortex_mm=float(rng.uniform(4.5, 8.0)),
        inner=tuple(
            Organ(shape=part, hu=half.hu["pelvis"], texture_hu=2, name="pelvis") for part in pelvis
        ),
        lesions=(*_cysts(half), *_tumours(half)),
    )
    gate = hub + np.array([0.0, -3.0, -half.lateral * 14.0])
    return kidney, (float(gate[0]), float(gate[1]), float(gate[2]))


def _pelvis(half: _Half, hub: NDArray[np.float64]) -> tuple[Shape, ...]:
    """Calyces that reach from the sinus into the kidney, and the pelvis that leaves it."""
    rng = half.rng
    swollen = float(rng.uniform(0.8, 1.6))
    parts: list[Shape] = []
    for reach in (-26, -12, 2, 14, 26):
        tip = hub + rng.normal(0, 4, 3) + np.array([reach, 0, half.lateral * 11.0])
        parts.extend(tube(np.array([hub, tip]), np.array([1.7, 2.4]) * swollen))
    out = hub + np.array([6.0, 2.0, -half.lateral * 20.0])
    parts.extend(tube(np.array([hub, out]), np.array([4.0, 4.5])))
    return tuple(parts)


def _cysts(half: _Half) -> Iterator[Lesion]:
    for mask, box in _pieces(half, CYST):
        shape = half.placed.sampled(mask, box)
        yield Lesion(shape=shape, label=CYST, kind="cyst", hu=half.hu["cyst"], texture_hu=1.0)


def _tumours(half: _Half) -> Iterator[Lesion]:
    for mask, box in _pieces(half, TUMOUR):
        volume_mm3 = float(mask[box].sum() * np.prod(half.placed.spacing_mm))
        radius = (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3)
        shape = half.placed.sampled(mask, box)
        look = draw_look(half.rng, half.hu, half.phase, radius)
        core = Grown(shape=shape, by_mm=-(1 - look["core"]) * radius) if look["core"] else None
        yield Lesion(
            shape=shape,
            label=TUMOUR,
            kind="tumour",
            hu=look["hu"],
            core=core,
            core_hu=look["core_hu"],
            wall_mm=look["wall_mm"],
            wall_hu=look["wall_hu"],
            texture_hu=look["texture_hu"],
        )


def _pieces(half: _Half, value: int) -> Iterator[tuple[Mask, tuple[slice, ...]]]:
    """Connected pieces of one label whose middle lies in this half, with their boxes."""
    numbers, _ = label(half.placed.labels == value)
    for number, box in enumerate(find_objects(numbers), start=1):
        middle = (box[2].start + box[2].stop - 1) / 2
        if half.columns.start <= middle < half.columns.stop:
            yield numbers == number, box
