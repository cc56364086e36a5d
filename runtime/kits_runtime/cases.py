"""Finds the scans that an input names: a file, a folder of files, a KiTS folder or a list."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kits_runtime.errors import ScanError

SUFFIXES = (".nii.gz", ".nii")
_KITS_SCAN = "imaging.nii.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan to segment and the name its results get."""

    name: str
    scan: Path


def find_cases(source: Path) -> tuple[Case, ...]:
    """The cases that a path stands for, in order of their names (a list keeps its own order).

    A scan that a list names need not be there: it is one case that fails, and the rest go on.

    Raises:
        ScanError: nothing is there or can be read, or two cases would write the same results.
    """
    try:
        cases = _cases_in(source)
    except OSError as error:
        raise ScanError(
            f"{source}: found '{error.strerror or error}', expected a scan, a folder or a list "
            "that can be read. Check the path and its permissions."
        ) from error
    twins = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twins:
        raise ScanError(
            f"{source}: found several scans named {twins[0]!r}, expected names that differ, "
            "because results carry them. Rename them or segment them one folder at a time."
        )
    return cases


def _cases_in(source: Path) -> tuple[Case, ...]:
    if source.is_dir():
        return _cases_in_folder(source)
    if not source.exists():
        raise ScanError(f"{source}: no such file, expected a scan, a folder or a list. Check it.")
    if source.suffix == ".txt":
        return _cases_in_list(source)
    return (_case_from_file(source),)


def _cases_in_folder(folder: Path) -> tuple[Case, ...]:
    kits = sorted(folder.glob(f"*/{_KITS_SCAN}"))
    if kits:
        return tuple(Case(name=scan.parent.name, scan=scan) for scan in kits)
    if (folder / _KITS_SCAN).is_file():
        return (Case(name=folder.resolve().name, scan=folder / _KITS_SCAN),)
    scans = sorted(path for path in folder.iterdir() if _is_scan(path))
    if not scans:
        raise ScanError(
            f"{folder}: found no scan, expected .nii or .nii.gz files, or a KiTS folder of "
            f"case_xxxxx/{_KITS_SCAN}. Give another folder."
        )
    return tuple(_case_from_file(scan) for scan in scans)


def _cases_in_list(listing: Path) -> tuple[Case, ...]:
    try:
        lines = [line.strip() for line in listing.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ScanError(
            f"{listing}: found byte {error.object[error.start]:#04x} at {error.start}, expected "
            "UTF-8 text with the path of one scan a line. Save the list as UTF-8."
        ) from error
    scans = [listing.parent / line for line in lines if line and not line.startswith("#")]
    if not scans:
        raise ScanError(f"{listing}: found no line, expected the path of one scan a line. Fill it.")
    return tuple(_case_from_file(scan) for scan in scans)


def _case_from_file(scan: Path) -> Case:
    if scan.name == _KITS_SCAN:
        return Case(name=scan.resolve().parent.name, scan=scan)
    name = next((scan.name[: -len(end)] for end in SUFFIXES if scan.name.endswith(end)), scan.name)
    return Case(name=name, scan=scan)


def _is_scan(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")
