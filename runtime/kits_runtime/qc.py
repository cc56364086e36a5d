"""What a person should know about a scan and its mask before trusting them.

Each warning is one line: a short code that stays the same, and a sentence that says what was found,
what was expected and what to do. Warnings go into the case's record and onto the console; they
never change the mask. The scan is looked at through a thin sample, the mask through its statistics,
so that all of it takes a few milliseconds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Box
from kits_runtime.statistics import ClassStatistics
from kits_runtime.volume import Volume

Labels = NDArray[np.uint8]
Sampled = NDArray[np.int16 | np.float32]

NOTHING_FOUND = (
    "no-kidney: nothing was found, every voxel is background, expected at least one kidney. "
    "Check that the scan shows the abdomen."
)

# At most so many planes, rows and columns are looked at: a fifth of a per cent is 150 voxels. Each
# is a cache miss; 64 rows and columns would take twice the time, 12 ms for 1059 slices.
SAMPLES = (32, 48, 48)
# Denser than this is body or couch, not air or lung; fat is denser by far, lung thinner.
BODY_FROM_HU = -500
# Air and fat lie below, water and muscle above; an MR image has nothing there.
NEGATIVE_BELOW_HU = -20
# Fat alone is a tenth of the thinnest patient; a CT stored without its offset has none.
LEAST_NEGATIVE = 0.005
# Fat, muscle, blood and enhanced organs; 0.85 or more of the body in abdominal phantoms, 0.3 to 0.5
# where values are spread evenly over some thousand units.
TISSUE_HU = (-150, 200)
LEAST_TISSUE = 0.6
# Water is 0 HU. A patient's body is fat (-100) and muscle (55): where a tenth is not below the
# first and a quarter not above the second, with noise of up to 50 HU, there is neither.
WATER_MEDIAN_HU = 15
WATER_TENTH_HU = -80
WATER_UPPER_QUARTER_HU = 40
# The trunk of a slim adult has 300 cm2, phantoms 360 to 850; a head 220 at its widest, a thigh 200.
LEAST_SECTION_CM2 = 230
# Lung and no thinner: foam and air are.
LUNG_HU = (-900, -600)
# At the level of kidneys 0.03 to 0.08 with the lungs' lowest tips; in the chest a third or more.
MOST_LUNG = 0.25
# Kidneys without contrast agent have 25 to 45 HU, as solid tumours do, and a mask's mean with sinus
# fat and rims is below 50; of 40 phantoms with it the weakest had 66, all others above 90.
ENHANCED_FROM_HU = 60
# Of both kidneys together; the smaller one of a pair has a third or more.
FAINT = 0.05
# In 160 patients with kidney tumours one side had 55 ml (first percentile) to 430 ml beside its
# tumour, and tumours were up to 1464 ml, 88 % of what was labelled.
LEAST_SIDE_ML = 30
MOST_SIDE_ML = 600
MOST_TUMOUR_ML = 2000
MOST_TUMOUR_SHARE = 0.92

_EDGES = (("upper", "lower"), ("front", "back"), ("right", "left"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sample:
    """Every so many voxels of a scan along z, y and x, and the steps between them."""

    hu: Sampled
    step: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


def quality_warnings(
    volume: Volume,
    labels: Labels,
    *,
    reach: Box,
    statistics: Mapping[str, ClassStatistics],
) -> tuple[str, ...]:
    """The warnings about a scan and its mask, each a code, a colon and a sentence.

    Args:
        volume: The scan.
        labels: Its mask on (z, y, x).
        reach: A box outside of which all labels are background.
        statistics: Of the mask's classes by name; 'kidney' and 'tumour' are looked at.
    """
    sample = _sample_of(volume)
    found = list(_about_intensities(sample.hu))
    is_ct = not found
    found += _about_section(sample)
    kidney = statistics.get("kidney")
    if kidney is None or not any(facts.volume_ml for facts in statistics.values()):
        return tuple(found)
    found += _about_level(sample, labels, reach)
    if is_ct:
        found += _about_contrast(kidney, statistics.get("tumour"))
    found += _about_edges(labels, reach)
    found += _about_sides(kidney, statistics.get("tumour"))
    found += _about_tumour(kidney, statistics.get("tumour"))
    return tuple(found)


def _sample_of(volume: Volume) -> _Sample:
    z, y, x = (-(-n // most) for n, most in zip(volume.shape, SAMPLES, strict=True))
    hu = np.ascontiguousarray(volume.data[z // 2 :: z, y // 2 :: y, x // 2 :: x])
    return _Sample(hu=hu, step=(z, y, x), spacing_mm=volume.spacing_mm)


def _about_intensities(hu: Sampled) -> Iterator[str]:
    lowest, highest = float(hu.min()), float(hu.max())
    advice = "Give a CT in Hounsfield units"
    if lowest == highest:
        yield f"not-ct: every voxel looked at is {lowest:g}, expected air and tissue. {advice}."
        return
    if float((hu < NEGATIVE_BELOW_HU).mean()) < LEAST_NEGATIVE:
        yield (
            f"not-ct: the values lie from {lowest:g} to {highest:g} with hardly any below "
            f"{NEGATIVE_BELOW_HU} HU, expected air and fat there. {advice}, not an MR image and "
            "not stored values without their offset."
        )
        return
    body = hu[hu > BODY_FROM_HU]
    if body.size < LEAST_NEGATIVE * hu.size:
        share = 1 - body.size / hu.size
        yield f"not-ct: {share:.1%} of the scan is air, expected a body. {advice}."
        return
    low, high = TISSUE_HU
    share = float(((body > low) & (body < high)).mean())
    if share < LEAST_TISSUE:
        yield (
            f"not-ct: {share:.0%} of the body lies between {low} and {high} HU, expected at least "
            f"{LEAST_TISSUE:.0%} as fat, muscle and organs do. {advice}."
        )
    elif _is_water(body):
        yield (
            "water: the body is as uniform as water, expected fat and muscle. "
            "Check that this is a patient and no test object."
        )


def _is_water(body: Sampled) -> bool:
    tenth, middle, quarter = np.percentile(body, (10, 50, 75))
    return bool(
        abs(middle) <= WATER_MEDIAN_HU
        and tenth > WATER_TENTH_HU
        and quarter < WATER_UPPER_QUARTER_HU
    )


def _about_section(sample: _Sample) -> Iterator[str]:
    """Whether the body is as thick as a trunk; a field of view inside the body says nothing."""
    body = sample.hu > BODY_FROM_HU
    y_mm, x_mm = (s * n for s, n in zip(sample.spacing_mm[1:], sample.step[1:], strict=True))
    section_cm2 = float(np.median(body.sum(axis=(1, 2)))) * y_mm * x_mm / 100
    inside_body = body[:, :, [0, -1]].mean() > 0.1 or body[:, 0].mean() > 0.1
    if 0 < section_cm2 < LEAST_SECTION_CM2 and not inside_body:
        yield (
            f"small-section: the body measures {section_cm2:.0f} cm2 across, expected at least "
            f"{LEAST_SECTION_CM2} of an adult's trunk. Check that this is no head, limb or child."
        )


def _about_level(sample: _Sample, labels: Labels, reach: Box) -> Iterator[str]:
    """Whether kidneys were found beside lungs, where there are none."""
    first, step = sample.step[0] // 2, sample.step[0]
    rows = np.arange(len(sample.hu)) * step + first
    inner = (slice(reach.start[1], reach.stop[1]), slice(reach.start[2], reach.stop[2]))
    near = [
        place
        for place, row in enumerate(rows.tolist())
        if reach.start[0] <= row < reach.stop[0] and labels[(row, *inner)].any()
    ]
    hu = sample.hu[near]
    lung = int(np.count_nonzero((hu > LUNG_HU[0]) & (hu < LUNG_HU[1])))
    body = int(np.count_nonzero(hu > BODY_FROM_HU))
    if lung > MOST_LUNG * max(1, lung + body):
        yield (
            f"lung-level: {lung / (lung + body):.0%} of the body is lung where a kidney was "
            f"found, expected at most {MOST_LUNG:.0%}. Look at the mask: this may be a chest."
        )


def _about_contrast(kidney: ClassStatistics, tumour: ClassStatistics | None) -> Iterator[str]:
    """Whether neither class is bright: bright cortex taken for tumour is contrast agent, too."""
    means = [facts.mean_hu for facts in (kidney, tumour) if facts is not None]
    brightest = max((mean for mean in means if mean is not None), default=ENHANCED_FROM_HU)
    if brightest < ENHANCED_FROM_HU:
        yield (
            f"unenhanced: the kidneys have {brightest:.0f} HU, expected at least "
            f"{ENHANCED_FROM_HU} with contrast agent. Look at the mask: tumours hardly show "
            "without it."
        )


def _about_edges(labels: Labels, reach: Box) -> Iterator[str]:
    edges = list(_edges_reached(labels, reach))
    if edges:
        yield (
            f"cut-off: the mask reaches the scan's {' and '.join(edges)} edge, expected some "
            "tissue around the kidneys. Part of a kidney may lie outside: do not rely on volumes."
        )


def _edges_reached(labels: Labels, reach: Box) -> Iterator[str]:
    """The faces of the scan that a labelled voxel lies on; only planes inside the reach count."""
    part = labels[reach.slices]
    for axis, names in enumerate(_EDGES):
        ends = ((reach.start[axis] == 0, 0), (reach.stop[axis] == labels.shape[axis], -1))
        planes = np.moveaxis(part, axis, 0)  # a view: take would copy against the memory's order
        for (is_there, end), name in zip(ends, names, strict=True):
            if is_there and planes[end].any():
                yield name


def _about_sides(kidney: ClassStatistics, tumour: ClassStatistics | None) -> Iterator[str]:
    """Which side has none, or one of an unlikely size."""
    if not kidney.volume_ml:
        yield (
            "no-kidney: a tumour was found but no kidney, expected at least one. "
            "Look at the mask before using it."
        )
        return
    own_ml = {"right": kidney.right_ml, "left": kidney.left_ml}
    both_ml = dict(own_ml)
    if tumour is not None:
        both_ml = {
            "right": kidney.right_ml + tumour.right_ml,
            "left": kidney.left_ml + tumour.left_ml,
        }
    for side, found_ml in own_ml.items():
        if both_ml[side] < FAINT * sum(both_ml.values()):
            yield (
                f"one-kidney: hardly any kidney was found on the patient's {side}, expected two. "
                "Check whether it was removed, lies elsewhere or is outside the scan."
            )
        elif not LEAST_SIDE_ML <= found_ml <= MOST_SIDE_ML:
            yield (
                f"kidney-size: {found_ml:.0f} ml of kidney were found on the patient's {side}, "
                f"expected {LEAST_SIDE_ML} to {MOST_SIDE_ML}. Look at the mask before using it."
            )


def _about_tumour(kidney: ClassStatistics, tumour: ClassStatistics | None) -> Iterator[str]:
    if tumour is None or not tumour.volume_ml:
        return
    share = tumour.volume_ml / (tumour.volume_ml + kidney.volume_ml)
    if tumour.volume_ml > MOST_TUMOUR_ML or share > MOST_TUMOUR_SHARE:
        yield (
            f"tumour-size: the tumour has {tumour.volume_ml:.0f} ml, {share:.0%} of what was "
            f"found, expected at most {MOST_TUMOUR_ML} ml and {MOST_TUMOUR_SHARE:.0%}. "
            "Look at the mask before using it."
        )
