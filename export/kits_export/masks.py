"""Masks of the whole pipeline, and how far two of them disagree.

Disagreement is counted against the union of both foregrounds, class by class and case by case:
most of a scan is background, so that a share of all voxels would say nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kits_runtime.cascade import run_cascade
from kits_runtime.cases import find_cases
from kits_runtime.clock import Clock
from kits_runtime.infer import RunNet
from kits_runtime.manifest.schema import Manifest
from kits_runtime.nifti import read_scan
from kits_runtime.volume import Volume, volume_from_array
from kits_trt.phantom import draw_patient, render
from kits_trt.phantom.cases import kits_affine

Labels = NDArray[np.uint8]

PHANTOM_SEED = 2024
# 300 mm wide: both kidneys, and few enough windows for nets of the paper's size.
PHANTOM_SLICES, PHANTOM_PLANE_VOX, PHANTOM_SPACING_MM = 48, 120, (5.0, 2.5, 2.5)
_HALF_A_HU = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifyCase:
    """A scan whose masks are compared."""

    name: str
    volume: Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """How many voxels of a class two masks of one case disagree on; ``union`` has either."""

    case: str
    voxels: int
    union: int

    @property
    def share(self) -> float:
        """Disagreeing voxels over the union; 0 where both are empty."""
        return self.voxels / self.union if self.union else 0.0


def cases_from(source: Path) -> tuple[VerifyCase, ...]:
    """The cases of a path, as ``kits-infer`` would find and read them.

    Raises:
        ScanError: nothing is there, or a scan cannot be read.
    """
    found = find_cases(source)
    return tuple(VerifyCase(name=case.name, volume=read_scan(case.scan).volume) for case in found)


def phantom_cases(
    numbers: Iterable[int], *, plane_vox: int = PHANTOM_PLANE_VOX
) -> tuple[VerifyCase, ...]:
    """Built-in phantoms: small scans with two kidneys and a tumour."""
    return tuple(_phantom(number, plane_vox) for number in numbers)


def masks_of(case: VerifyCase, manifest: Manifest, nets: Mapping[str, RunNet]) -> Labels:
    """The labels that the runtime's executor makes of a case with these nets."""
    return run_cascade(case.volume, manifest, nets=nets, clock=Clock()).labels


def half_a_hu_brighter(case: VerifyCase) -> VerifyCase:
    """The same scan, moved by what rounding to whole HU may have moved it."""
    data = case.volume.data.astype(np.float32) + np.float32(_HALF_A_HU)
    return replace(case, volume=replace(case.volume, data=data))


def disagreements(
    cases: Sequence[VerifyCase], left: Sequence[Labels], right: Sequence[Labels], label: int
) -> tuple[Disagreement, ...]:
    """One row a case for one class."""
    rows = []
    for case, one, other in zip(cases, left, right, strict=True):
        here, there = one == label, other == label
        rows.append(
            Disagreement(
                case=case.name,
                voxels=int(np.count_nonzero(here ^ there)),
                union=int(np.count_nonzero(here | there)),
            )
        )
    return tuple(rows)


def _phantom(number: int, plane_vox: int) -> VerifyCase:
    patient = draw_patient(PHANTOM_SEED, number, phase="nephrographic")
    shape = (PHANTOM_SLICES, plane_vox, plane_vox)
    hu, _ = render(patient, shape=shape, spacing_mm=PHANTOM_SPACING_MM)
    volume = volume_from_array(hu, kits_affine(PHANTOM_SPACING_MM))
    return VerifyCase(name=f"phantom-{PHANTOM_SEED}-{number}", volume=volume)
