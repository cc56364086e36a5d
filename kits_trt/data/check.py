"""Checks training cases before anything is computed from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kits_runtime.errors import KitsError
from kits_runtime.nifti import read_scan
from kits_runtime.volume import Volume
from kits_trt.data.case_files import (
    apart_from,
    labels_shown,
    nothing_labelled,
    read_stored_labels,
    wrong_values,
)
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.processes import in_processes
from kits_trt.data.stage_pieces import TUMOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a case that a person should know, in one line.

    ``bad`` tells whether the case cannot be used.
    """

    case: str
    message: str
    bad: bool


def check_cases(
    cases: Sequence[TrainingCase],
    *,
    workers: int = 1,
    progress: Callable[[int, int, str], None] = lambda _done, _total, _case: None,
) -> tuple[Finding, ...]:
    """What ``check_case`` finds in each case, in order."""
    found: list[Finding] = []
    checked = in_processes(check_case, cases, workers=workers)
    for done, (case, findings) in enumerate(zip(cases, checked, strict=True), start=1):
        found += findings
        progress(done, len(cases), case.name)
    return tuple(found)


def check_case(case: TrainingCase) -> tuple[Finding, ...]:
    """All that is wrong with a case, and a note where it shows no tumour; nothing for a sound one.

    A scan or label map with a single slice, or with voxels that are no numbers, is one that cannot
    be read.
    """
    told: list[str] = []
    scan = _read(lambda: read_scan(case.scan).volume, told)
    stored = _read(lambda: read_stored_labels(case), told)
    notes: list[str] = []
    if stored is not None:
        empty = nothing_labelled(case, stored)
        told += filter(None, [wrong_values(case, stored), empty])
        if empty is None and TUMOUR not in labels_shown(case, stored):
            notes.append(f"{case.labels}: found no tumour; the case teaches kidneys alone")
    if scan is not None and stored is not None:
        told += filter(None, [apart_from(case, scan, stored)])
    bad = [Finding(case=case.name, message=message, bad=True) for message in told]
    return (*bad, *(Finding(case=case.name, message=message, bad=False) for message in notes))


def _read(read: Callable[[], Volume], told: list[str]) -> Volume | None:
    """What ``read`` gives; None where it raises, and its error told."""
    try:
        return read()
    except KitsError as error:
        told.append(str(error))
        return None
