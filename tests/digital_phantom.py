"""A digital phantom, and nets that answer by intensity, for each of the five systems."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kits_runtime.infer import RunNet
from kits_runtime.manifest.schema import Card, Manifest, Provenance
from kits_trt.systems import SYSTEMS, Preset, manifest_from_system

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """HU of the phantom's parts."""

    air: int = -1000
    body: int = 0
    kidney: int = 100
    tumour: int = 220


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """Int16 HU on (z, y, x), the true labels, and the spacing."""

    data: npt.NDArray[np.int16]
    truth: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


def phantom(
    shape: tuple[int, int, int] = (40, 92, 96),
    spacing_mm: tuple[float, float, float] = (4.0, 3.0, 3.0),
    *,
    levels: Levels,
) -> Phantom:
    """A body with two kidneys, and a tumour in the left one."""
    size_mm = np.multiply(shape, spacing_mm)
    right = _ellipsoid(shape, spacing_mm, size_mm * (0.46, 0.62, 0.31), (55, 32, 30))
    left = _ellipsoid(shape, spacing_mm, size_mm * (0.52, 0.62, 0.69), (55, 32, 30))
    tumour = _ellipsoid(shape, spacing_mm, size_mm * (0.52, 0.62, 0.69) + (12, 3, 4), (16, 13, 11))
    body = _ellipsoid(shape, spacing_mm, size_mm / 2, (1e6, *(size_mm[1:] * (0.37, 0.43))))
    truth = np.zeros(shape, np.uint8)
    truth[right | left], truth[tumour] = 1, 2
    data = np.where(body, levels.body, levels.air).astype(np.int16)
    data[truth == 1], data[truth == 2] = levels.kidney, levels.tumour
    return Phantom(data=data, truth=truth, spacing_mm=spacing_mm)


def _ellipsoid(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: npt.NDArray[np.float64],
    radii_mm: tuple[float, ...],
) -> npt.NDArray[np.bool_]:
    z, y, x = (
        (((np.arange(n) + 0.5) * step - centre) / radius) ** 2
        for n, step, centre, radius in zip(shape, spacing_mm, centre_mm, radii_mm, strict=True)
    )
    inside: npt.NDArray[np.bool_] = z[:, None, None] + y[:, None] + x <= 1
    return inside


def dice(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()))


def manifest_of(system: str, preset: Preset) -> Manifest:
    """A system's manifest without net files, which the executor never opens."""
    built = SYSTEMS[system](preset)
    return manifest_from_system(
        built,
        files={name: {} for name in built.nets},
        provenance=Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={}),
        card=Card(intended_use="", training_data="", licence="", metrics={}, remarks=()),
    )


def scores_of(*classes: npt.NDArray[np.bool_]) -> Array:
    """Certain scores for masks (n, ...), background first unless there is one class only."""
    foreground = [mask.astype(np.float32) for mask in classes]
    background = 1 - np.maximum.reduce(foreground)
    return np.stack([background, *foreground], axis=1)


def nets_of(system: str, preset: Preset = "small") -> Mapping[str, RunNet]:
    """Nets that tell kidney and tumour by the HU that they undo the system's steps to."""
    return _NETS[system] | (_SMALL_NETS.get(system, {}) if preset == "small" else {})


def _hu(patches: Array, lower_hu: float, upper_hu: float) -> Array:
    """The middle channel of patches that were scaled from a HU window to 0 and 1."""
    return patches[:, patches.shape[1] // 2] * np.float32(upper_hu - lower_hu) + np.float32(
        lower_hu
    )


# Mean and standard deviation of the whole phantom and of boxes around its kidneys; small clips HU
# before it takes them. Thresholds lie fifty HU from what they divide.
WHOLE_HU, SMALL_WHOLE_HU = (-496, 500), (-96, 105)
BOX_HU, SMALL_BOX_HU = (-378, 488), (-70, 103)


def _standardised(hu: float, mean_hu: float, std_hu: float) -> float:
    """What cascaded-vnet's steps make of a HU where these are the statistics."""
    return 0.25 * (hu - mean_hu) / std_hu


def _three_classes(hu: Array) -> Array:
    return scores_of((hu > 50) & (hu <= 160), hu > 160)


def _hu_by_landmarks(patches: Array) -> Array:
    """HU of z-scored patches: the least value is air (clipped to -30), the commonest other 0."""
    middle = patches[:, patches.shape[1] // 2]
    air = patches.min()
    above = patches[patches > air + 1e-3]
    if not above.size:
        return np.zeros_like(middle)
    body = np.median(above)
    return np.asarray((middle - body) / (body - air) * 30, np.float32)


def _vnets(whole: tuple[int, int], box: tuple[int, int]) -> dict[str, RunNet]:
    return {
        "roi-vnet": lambda patches: scores_of(patches[:, 0] > _standardised(50, *whole)),
        "kidney-vnet": lambda patches: scores_of(patches[:, 0] > _standardised(50, *box)),
        "tumour-vnet": lambda patches: scores_of(patches[:, 0] > _standardised(160, *box)),
    }


_NETS: Mapping[str, dict[str, RunNet]] = {
    "cascaded-vnet": _vnets(WHOLE_HU, BOX_HU),
    "resunet-msvnet": {
        "resunet3d": lambda patches: scores_of(_hu(patches, -200, 300) > 50),
        # The kidney's mean is at 45 HU by now: kidney lies below it, tumour far above.
        "msvnet": lambda patches: scores_of(_hu(patches, 0, 100) > 90),
    },
    "unet3d": {"unet": lambda patches: _three_classes(_hu(patches, -79, 304))},
    "multistage25d": {
        name: lambda patches: _three_classes(_hu_by_landmarks(patches))
        for name in ("res-unet-1", "res-unet-2", "res-net")
    },
    "unet2d-pair": {
        "kidney-unet": lambda patches: (_hu(patches, -100, 300) > 50).astype(np.float32)[:, None],
        "tumour-unet": lambda patches: (_hu(patches, -100, 300) > 160).astype(np.float32)[:, None],
    },
}

# What small prepares otherwise than its paper.
_SMALL_NETS: Mapping[str, dict[str, RunNet]] = {
    "cascaded-vnet": _vnets(SMALL_WHOLE_HU, SMALL_BOX_HU),
}
