"""The frozen configuration: which label maps, rendered how, for which purpose."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from kits_runtime.errors import UsageError
from kits_trt.phantom.phases import PHASES, Phase

Subset = Literal["dev", "test"]
SUBSETS: tuple[Subset, ...] = get_args(Subset)
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenCase:
    """One label map and how it is rendered.

    Attributes:
        case: Its name in the challenge.
        labels_sha256: Of its shape and voxels, by ``labels_sha256``.
        spacing_mm: Its voxel size along z, y and x.
        subset: 'dev' may be looked at while developing, 'test' only for a final figure.
        phase: The contrast phase.
        every_slice: One in so many slices is kept.
        every_pixel: One in so many rows and columns is kept.
    """

    case: str
    labels_sha256: str
    spacing_mm: tuple[float, float, float]
    subset: Subset
    phase: Phase
    every_slice: int
    every_pixel: int

    @property
    def number(self) -> int:
        """The number in its name."""
        return int(self.case.rpartition("_")[2])

    @property
    def rendered_mm(self) -> tuple[float, float, float]:
        """The voxel size after thinning."""
        z, y, x = self.spacing_mm
        return z * self.every_slice, y * self.every_pixel, x * self.every_pixel


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A version of the test; ``renderer`` is what ``probe_renderer`` gave when it was frozen."""

    version: int
    seed: int
    renderer: Mapping[str, Sequence[int]]
    cases: tuple[FrozenCase, ...]

    def of(self, subset: Subset) -> tuple[FrozenCase, ...]:
        """The cases of one subset."""
        return tuple(case for case in self.cases if case.subset == subset)

    @property
    def sha256(self) -> str:
        """The hash of everything in it."""
        return hashlib.sha256(text_of(self).encode()).hexdigest()


def read_configuration(version: int = VERSION) -> Configuration:
    """The committed configuration of a version.

    Raises:
        UsageError: There is no such version.
    """
    source = resources.files("kits_bench.frozen_test") / f"version-{version}.json"
    if not source.is_file():
        raise UsageError(
            f"--version-of-test: found {version}, expected a committed version up to {VERSION}. "
            "Leave it out for the newest."
        )
    return configuration_from(json.loads(source.read_text(encoding="utf-8")))


def rendered_anew(configuration: Configuration, number: int) -> Configuration:
    """The same maps in another rendering: other random numbers, and phases so many further on.

    For choosing between nets by the dev subset: twenty scans are few. Number 0 is what was frozen.
    """
    return replace(
        configuration,
        seed=configuration.seed + number,
        cases=tuple(
            replace(case, phase=PHASES[(PHASES.index(case.phase) + number) % len(PHASES)])
            for case in configuration.cases
        ),
    )


def configuration_from(plain: Mapping[str, Any]) -> Configuration:
    """The configuration from its JSON form; a missing or an unknown key is a TypeError."""
    rows = [FrozenCase(**{**row, "spacing_mm": tuple(row["spacing_mm"])}) for row in plain["cases"]]
    strange = [row.case for row in rows if row.subset not in SUBSETS or row.phase not in PHASES]
    if strange or len({row.case for row in rows}) != len(rows):
        raise ValueError(f"cases must be named once, in a known subset and phase, found {strange}")
    return Configuration(**{**plain, "cases": tuple(rows)})


def text_of(configuration: Configuration) -> str:
    """The committed text: one line a case, one line a probe."""
    plain = asdict(configuration)
    rows = ",\n  ".join(json.dumps(row) for row in plain["cases"])
    probes = ",\n  ".join(f'"{name}": {json.dumps(row)}' for name, row in plain["renderer"].items())
    head = f' "version": {plain["version"]},\n "seed": {plain["seed"]},\n'
    return f'{{\n{head} "renderer": {{\n  {probes}\n }},\n "cases": [\n  {rows}\n ]\n}}\n'


def labels_sha256(labels: NDArray[np.uint8]) -> str:
    """The hash of a label map on (z, y, x): of its shape and its voxels, not of its file."""
    digest = hashlib.sha256(repr(tuple(labels.shape)).encode())
    for plane in labels:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()
