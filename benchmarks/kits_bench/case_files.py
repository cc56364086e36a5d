"""Scans to measure on: phantoms of given shapes, made once and kept, or a user's own."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kits_bench.shapes import CASE_SETS, CaseShape
from kits_runtime.cases import find_cases
from kits_runtime.errors import ScanError, UsageError
from kits_runtime.files import replacing
from kits_runtime.nifti import read_scan
from kits_trt.phantom.cases import Plan, make_cases

SEED = 36
VERSION = 3  # counts up when the same shape would become another scan
_FACTS = "case.json"

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCase:
    """One scan in a file: its geometry, and a hash of geometry and voxels (not of the packing)."""

    name: str
    scan: Path
    sha256: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    bytes: int
    made: str
    published_s: float | None = None

    @property
    def facts(self) -> Mapping[str, object]:
        """What a record says of it; not where it lies."""
        return {name: value for name, value in asdict(self).items() if name != "scan"}


def cache_folder(given: Path | None) -> Path:
    """Where cases and bundles are kept: as given, else in the user's cache."""
    if given is not None:
        return given
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "kits-bench"


def cases_named(names: str, cache: Path, told: Told) -> tuple[BenchCase, ...]:
    """The cases that an option stands for: a set's name, numbers of a set, or a path.

    'published' or 'kits-like' are whole sets, '61,41' or 'kits-like:29,64' some of one (by number
    or by slices); anything else is a path as kits-infer takes it.

    Raises:
        UsageError: a set has no such case.
        ScanError: a path holds no scan, or a phantom that was kept is damaged.
    """
    chosen = _chosen(names)
    if chosen is None:
        return tuple(_own_case(case.name, case.scan) for case in find_cases(Path(names)))
    return tuple(phantom_case(shape, cache, told) for shape in chosen)


def _chosen(names: str) -> Sequence[CaseShape] | None:
    kind, _, some = names.partition(":")
    if kind not in CASE_SETS:
        if not all(part.strip().isdigit() for part in names.split(",")):
            return None
        kind, some = "published", names
    shapes = CASE_SETS[kind]
    if not some:
        return shapes
    known = {shape.number if kind == "published" else shape.slices: shape for shape in shapes}
    wanted = [int(part) if part.strip().isdigit() else -1 for part in some.split(",")]
    missing = [number for number in wanted if number not in known]
    if missing:
        raise UsageError(
            f"--cases: found {some!r}, expected numbers among "
            f"{', '.join(str(number) for number in sorted(known))}. Choose from these."
        )
    return [known[number] for number in wanted]


def phantom_case(shape: CaseShape, cache: Path, told: Told) -> BenchCase:
    """The phantom of a shape: an anatomy drawn from its number, rendered at full resolution.

    Every voxel has a scanner's noise, so that the file packs, and unpacks, as a CT does.
    """
    folder = cache / "cases" / f"{shape.name}-v{VERSION}"
    facts = folder / _FACTS
    if not facts.is_file():
        told(f"{shape.name}: making a phantom of {' x '.join(map(str, shape.size))} voxels")
        _make(shape, folder)
    return _kept_case(shape, folder)


def _make(shape: CaseShape, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        plan = Plan(
            out=Path(name),
            seed=SEED + shape.number,
            size=shape.size,
            spacing_mm=shape.spacing_mm,
        )
        make_cases(plan, 1, lambda _done, _count, _text: None)
        made = Path(name) / "case_00000"
        _write_facts(made / _FACTS, {"sha256": voxels_sha256(made / "imaging.nii.gz")})
        if folder.exists():  # a part of an earlier attempt, without its facts
            folder.rename(Path(name) / "abandoned")
        made.replace(folder)


def _kept_case(shape: CaseShape, folder: Path) -> BenchCase:
    scan = folder / "imaging.nii.gz"
    try:
        told = json.loads((folder / _FACTS).read_bytes())
        size = scan.stat().st_size
        sha256 = str(told["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise ScanError(
            f"{folder}: found a phantom that cannot be used ({error}), expected a scan and its "
            "facts. Remove the folder; it is made again."
        ) from error
    return BenchCase(
        name=shape.name,
        scan=scan,
        sha256=sha256,
        size=shape.size,
        spacing_mm=shape.spacing_mm,
        bytes=size,
        made=f"phantom, seed {SEED + shape.number}, version {VERSION}",
        published_s=shape.published_s,
    )


def _own_case(name: str, scan: Path) -> BenchCase:
    volume = read_scan(scan).volume
    return BenchCase(
        name=name,
        scan=scan,
        sha256=voxels_sha256(scan),
        size=volume.shape,
        spacing_mm=volume.spacing_mm,
        bytes=scan.stat().st_size,
        made="the user's own",
    )


def voxels_sha256(scan: Path) -> str:
    """A hash of a scan's geometry and voxels: the same however its file is packed."""
    volume = read_scan(scan).volume
    digest = hashlib.sha256()
    digest.update(json.dumps([list(volume.shape), _rounded(volume.spacing_mm)]).encode())
    for plane in volume.data:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()


def _rounded(spacing_mm: tuple[float, float, float]) -> list[float]:
    return [round(float(step), 5) for step in spacing_mm]


def _write_facts(path: Path, facts: Mapping[str, object]) -> None:
    with replacing(path) as stream:
        stream.write((json.dumps(facts, indent=1) + "\n").encode())
