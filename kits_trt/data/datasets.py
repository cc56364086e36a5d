"""Finds the cases of a data set: scans and the label maps that were drawn on them.

Two layouts are known. KiTS: ``case_00000/{imaging,segmentation}.nii.gz`` (``aggregated_MAJ_seg`` in
KiTS21 before its segmentations were merged). nnU-Net's raw one: ``dataset.json``,
``imagesTr/NAME_0000.nii.gz`` and ``labelsTr/NAME.nii.gz``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kits_runtime.cases import SUFFIXES
from kits_runtime.errors import ScanError, UsageError

KITS_LABELS: Mapping[int, int] = {0: 0, 1: 1, 2: 2, 3: 3}
_KITS_SEGMENTATIONS = ("segmentation", "aggregated_MAJ_seg")
_CLASSES = {
    "background": 0,
    "kidney": 1,
    "kidneys": 1,
    "tumour": 2,
    "tumor": 2,
    "cyst": 3,
    "cysts": 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCase:
    """A scan and its label map.

    ``labels`` is None where there is no such file. ``classes`` gives each value that may stand in
    it the meaning it has here: 0 background, 1 kidney, 2 tumour, 3 cyst.
    """

    name: str
    scan: Path
    labels: Path | None
    classes: Mapping[int, int]


def find_training_cases(
    folder: Path, *, only: Sequence[str] | None = None
) -> tuple[TrainingCase, ...]:
    """The cases of a folder, by name; ``only`` these where given.

    A case whose label map is missing is among them (``check_case`` names it), a folder without a
    scan is not, since test cases lie beside the others.

    Raises:
        ScanError: The folder is missing, or its layout is neither of the two.
        UsageError: ``only`` names a case that is not there.
    """
    if not folder.is_dir():
        raise ScanError(
            f"{folder}: found no such folder; expected one with training cases; check the path"
        )
    found = _nnunet_cases(folder) if (folder / "dataset.json").is_file() else _kits_cases(folder)
    if not found:
        raise ScanError(
            f"{folder}: found no training case; expected case_*/imaging.nii.gz beside "
            "segmentation.nii.gz (KiTS), or dataset.json with imagesTr and labelsTr (nnU-Net raw); "
            "give the folder that holds them"
        )
    cases = sorted(found, key=lambda case: case.name)
    return tuple(cases) if only is None else _only(cases, only, folder)


def _only(
    cases: Sequence[TrainingCase], only: Sequence[str], folder: Path
) -> tuple[TrainingCase, ...]:
    names = [case.name for case in cases]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise UsageError(
            f"{folder}: found no case {unknown[0]!r}; expected names such as {names[0]!r}; "
            "correct the name"
        )
    return tuple(case for case in cases if case.name in set(only))


def _kits_cases(folder: Path) -> list[TrainingCase]:
    cases = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        scan = _file(place, "imaging")
        labels = next(filter(None, (_file(place, name) for name in _KITS_SEGMENTATIONS)), None)
        if scan is not None or labels is not None:
            scan = scan or place / "imaging.nii.gz"
            cases.append(
                TrainingCase(name=place.name, scan=scan, labels=labels, classes=KITS_LABELS)
            )
    if not any(case.labels for case in cases):
        return []
    return cases


def _nnunet_cases(folder: Path) -> list[TrainingCase]:
    classes = _nnunet_classes(folder / "dataset.json")
    scans = {_stem(path): path for path in sorted((folder / "imagesTr").glob("*_0000.nii*"))}
    maps = {_stem(path): path for path in sorted((folder / "labelsTr").glob("*.nii*"))}
    cases = []
    for name in sorted({stem.removesuffix("_0000") for stem in scans} | set(maps)):
        scan = scans.get(f"{name}_0000", folder / "imagesTr" / f"{name}_0000.nii.gz")
        cases.append(TrainingCase(name=name, scan=scan, labels=maps.get(name), classes=classes))
    return cases


def _nnunet_classes(path: Path) -> Mapping[int, int]:
    """What the label values of an nnU-Net data set mean here, by their names."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        named = plain["labels"]
        # The first version of the format has {"1": "kidney"}, the second {"kidney": 1}.
        pairs = [(k, v) if str(k).lstrip("-").isdigit() else (v, k) for k, v in named.items()]
        classes = {int(value): _CLASSES[str(name).lower()] for value, name in pairs}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScanError(
            f"{path}: found labels that cannot be told ({type(error).__name__}: {error}); expected "
            f"'labels' with a whole number for each of {sorted(_CLASSES)}, as far as they occur; "
            "correct the file"
        ) from error
    return {0: 0, **classes}


def _file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)
