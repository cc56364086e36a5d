"""Pieces of cases, made once and kept as plain arrays on disk.

A case is a folder that appears in one rename, so that an interrupted run leaves no half-written
one, and of runs that share a cache the first to write wins. Its name holds what was asked for and
what it was made from: the stage and those before it, cysts, the code, and the SHA-256 of both
files. Beside the arrays lies ``index.json`` with size and checksum of each; what does not match it
is made again, never used.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import kits_runtime
import kits_trt.data
from kits_runtime.errors import KitsError, OutOfMemoryError
from kits_runtime.files import replacing_folder
from kits_runtime.manifest.codec import to_plain
from kits_runtime.manifest.schema import Slices
from kits_trt.data.case_files import labels_path, read_case
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.data.make_pieces import pieces_of
from kits_trt.data.processes import in_processes
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.data.stage_views import StageView, stage_view
from kits_trt.data.stored_pieces import StoredPieces, checked, write_pieces
from kits_trt.systems.system import System

Progress = Callable[[int, int, str], None]

_LOGGER = logging.getLogger(__name__)
_CHUNK = 1 << 20
# All code on which the arrays depend; a change to it makes them anew.
_CODE = {
    kits_runtime: "cascade grid look nifti nifti_header outcome resample steps volume windows",
    kits_trt.data: "case_files label_values make_pieces stage_pieces stage_views stored_pieces",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is asked of the cache, the same for each case."""

    root: Path
    view: StageView
    cyst: Cyst


def cached_pieces(
    root: Path,
    system: System,
    net: str,
    cases: Sequence[TrainingCase],
    *,
    cyst: Cyst = "kidney",
    workers: int = 1,
    progress: Progress = lambda _done, _total, _case: None,
) -> tuple[CasePieces, ...]:
    """The pieces of the net's stage for each case, in order; arrays are mapped, not read.

    What the cache lacks is made in ``workers`` processes. Each is told of when it is there.

    Raises:
        ScanError: A case's files cannot be read, or are not a scan and its labels.
        OutOfMemoryError: A case does not fit.
        KitsError: The cache cannot be written.
    """
    order = _Order(root=root, view=stage_view(system, net), cyst=cyst)
    made: list[CasePieces] = []
    ensured = in_processes(partial(_ensure, order), cases, workers=workers)
    for case, (place, damage) in zip(cases, ensured, strict=True):
        if damage is not None:
            _LOGGER.warning("%s: %s; made again", place, damage)
        made.append(CasePieces(name=case.name, pieces=StoredPieces(place)))
        progress(len(made), len(cases), case.name)
    return tuple(made)


def _ensure(order: _Order, case: TrainingCase) -> tuple[Path, str | None]:
    """A case's folder, made if it is missing or damaged, and what the damage was."""
    place = order.root / _name_of(order, case)
    damage = None
    if place.is_dir():
        damage = checked(place)
        if damage is None:
            return place, None
        shutil.rmtree(place)
    try:
        volume, labels = read_case(case, order.cyst)
        with replacing_folder(place, keep=True) as part:
            write_pieces(part, pieces_of(order.view, volume, labels))
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{case.name}: found too little memory to prepare it for {order.view.stage.name!r}, "
            "expected to fit; take fewer --workers, or --preset small"
        ) from error
    return place, damage


def _name_of(order: _Order, case: TrainingCase) -> str:
    """The case's name and a hash of all that its pieces depend on."""
    stage, windows = order.view.stage, order.view.stage.windows
    asked = {
        "look": to_plain(stage.look),
        "steps": to_plain(stage.steps),
        "join": stage.join,
        "slices": [windows.depth, windows.only] if isinstance(windows, Slices) else None,
        "earlier": to_plain(order.view.earlier),
        "cyst": order.cyst,
        "classes": sorted(case.classes.items()),
        "code": _code_sha256(),
        "scan": _file_sha256(case.scan),
        "labels": _file_sha256(labels_path(case)),
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{case.name}-{stage.name}-{digest[:16]}"


@cache
def _code_sha256() -> str:
    digest = hashlib.sha256()
    for package, modules in _CODE.items():
        folder = Path(package.__path__[0])
        for module in modules.split():
            digest.update((folder / f"{module}.py").read_bytes())
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise KitsError(
            f"{path}: found '{error.strerror or error}'; expected a readable file; check the data "
            "with --check-data"
        ) from error
    return digest.hexdigest()
