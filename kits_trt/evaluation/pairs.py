"""Finds the prediction that belongs to each truth, by the name of the case."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kits_runtime.cases import SUFFIXES
from kits_runtime.errors import ScanError, UsageError

_KITS_LABELS = tuple(f"segmentation{suffix}" for suffix in SUFFIXES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One case: where its truth and its prediction are."""

    case: str
    truth: Path
    prediction: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The cases to score, by name, and the predictions without a truth, which are not."""

    pairs: tuple[Pair, ...]
    without_truth: tuple[str, ...]


def find_pairs(truth: Path, prediction: Path, *, cases: Sequence[str] | None = None) -> Pairs:
    """The pairs of two folders; each holds ``<case>.nii.gz`` or ``<case>/segmentation.nii.gz``.

    Every case of the truth needs a prediction, unless ``cases`` names those that matter.

    Raises:
        ScanError: A folder is missing, holds no label map or two of one case, or a prediction is
            missing.
        UsageError: A case was asked for that has no truth.
    """
    truths, predictions = label_files(truth), label_files(prediction)
    if cases is None:
        names = sorted(truths)
    else:
        names = sorted(set(cases))
        unknown = [name for name in names if name not in truths]
        if unknown:
            raise UsageError(
                f"--cases: found {unknown[0]!r}; expected a case with a label map in {truth}, such "
                f"as {min(truths)!r}; correct the name"
            )
    missing = [name for name in names if name not in predictions]
    if missing:
        raise ScanError(
            f"{prediction}: found no prediction of {missing[0]}{_and_more(missing)}; expected "
            f"{missing[0]}.nii.gz or {missing[0]}/segmentation.nii.gz; predict every case, or name "
            "those to score with --cases"
        )
    pairs = [Pair(case=name, truth=truths[name], prediction=predictions[name]) for name in names]
    return Pairs(pairs=tuple(pairs), without_truth=tuple(sorted(predictions.keys() - truths)))


def label_files(folder: Path) -> dict[str, Path]:
    """The label map of each case in a folder.

    Raises:
        ScanError: The folder is missing, holds no label map or two of one case.
    """
    if not folder.is_dir():
        raise ScanError(
            f"{folder}: found no such folder; expected one with label maps; check the path"
        )
    found = [(path.parent.name, path) for name in _KITS_LABELS for path in folder.glob(f"*/{name}")]
    found += [(_case_name(path), path) for path in sorted(folder.iterdir()) if _is_flat(path)]
    if not found:
        raise ScanError(
            f"{folder}: found no label map; expected <case>.nii.gz or "
            "<case>/segmentation.nii.gz; give the folder that holds the cases"
        )
    files: dict[str, Path] = {}
    for case, path in found:
        if case in files:
            raise ScanError(
                f"{folder}: found two label maps of {case}, {files[case].relative_to(folder)} and "
                f"{path.relative_to(folder)}; expected one; remove the other"
            )
        files[case] = path
    return files


def _is_flat(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def _case_name(path: Path) -> str:
    suffix = next(suffix for suffix in SUFFIXES if path.name.endswith(suffix))
    return path.name.removesuffix(suffix)


def _and_more(missing: Sequence[str]) -> str:
    return f" and {len(missing) - 1} more cases" if len(missing) > 1 else ""
