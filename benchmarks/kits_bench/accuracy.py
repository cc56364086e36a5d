"""How well a bundle does on scans whose labels are known: one result a scan, medians of many."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits_runtime.cases import Case
from kits_runtime.files import replacing
from kits_runtime.pipeline import job_for, read_case, segment_case, write_case
from kits_runtime.segmenter import Segmenter
from kits_trt.evaluation.evaluate import evaluate
from kits_trt.evaluation.label_maps import read_labels
from kits_trt.evaluation.pairs import Pair
from kits_trt.evaluation.protocols import PROTOCOLS
from kits_trt.phantom.phases import PHASES

SEED = 20_190
RESAMPLES = 10_000
TUMOUR = 2
_KITS19 = PROTOCOLS["kits19"]

# Diameters of a ball of the same volume; 4 and 7 cm divide the stages T1a, T1b and T2.
_SIZES_CM = ((2.0, "tumour up to 2 cm"), (4.0, "2 to 4 cm"), (7.0, "4 to 7 cm"))
_LARGEST = "tumour above 7 cm"
_SLICES_MM = ((1.5, "slices up to 1.5 mm"), (3.0, "above 1.5 to 3 mm"))
_THICKEST = "slices above 3 mm"
_NO_TUMOUR = "no tumour"
# The order in which groups are told.
_ORDER = (
    *(name for _, name in _SIZES_CM),
    *(_LARGEST, _NO_TUMOUR, *PHASES),
    *(name for _, name in _SLICES_MM),
    _THICKEST,
)
# The resampled medians of fewer values are hardly more than the values themselves.
FEWEST_FOR_AN_INTERVAL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a bundle made of one scan.

    Attributes:
        case: The scan's name.
        phase: Its contrast phase.
        thickness_mm: Its voxel size along z.
        tumour_cm: The diameter of a ball with the tumour's true volume; 0 without a tumour.
        dice_kidney: Of kidney with tumour.
        dice_tumour: Of the tumour; 1 where there is none and none was found.
        empty: Whether nothing at all was found.
        warnings: The codes of the warnings.
        total_ms: From file to files.
    """

    case: str
    phase: str
    thickness_mm: float
    tumour_cm: float
    dice_kidney: float
    dice_tumour: float
    empty: bool
    warnings: tuple[str, ...]
    total_ms: float


def run_case(segmenter: Segmenter, folder: Path, *, phase: str, out: Path) -> Result:
    """Segments ``folder/imaging.nii.gz`` as kits-infer does and scores it by the rules of KiTS19.

    Raises:
        KitsError: The scan or its labels cannot be read, or a net failed.
    """
    truth = folder / "segmentation.nii.gz"
    job = job_for(Case(name=folder.name, scan=folder / "imaging.nii.gz"), out, with_picture=False)
    done = segment_case(segmenter, read_case(job))
    run = write_case(done, segmenter.bundle.manifest.labels).run
    (scored,) = evaluate([Pair(case=folder.name, truth=truth, prediction=job.mask)], _KITS19)
    labels = read_labels(truth, _KITS19.highest_label)
    tumour_ml = np.count_nonzero(labels.labels == TUMOUR) * float(np.prod(labels.spacing_mm)) / 1e3
    return Result(
        case=folder.name,
        phase=phase,
        thickness_mm=round(labels.spacing_mm[0], 3),
        tumour_cm=round(float(np.cbrt(6 * tumour_ml / np.pi)), 2),
        dice_kidney=round(scored.scores["Dice_kidney"], 5),
        dice_tumour=round(scored.scores["Dice_tumor"], 5),
        empty="kidney" in scored.empty_prediction,
        warnings=codes_of(run.warnings),
        total_ms=round(run.total_ms),
    )


def kept_result(path: Path, make: Callable[[], Result]) -> Result:
    """The result that an earlier run left in a file, or a new one, which is left there."""
    if path.is_file():
        plain = json.loads(path.read_text(encoding="utf-8"))
        return Result(**{**plain, "warnings": tuple(plain["warnings"])})
    result = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(json.dumps(asdict(result)).encode())
    return result


def codes_of(warnings: Iterable[str]) -> tuple[str, ...]:
    """The codes of those warnings that have one, each once."""
    heads = (text.partition(":")[0] for text in warnings if ":" in text)
    return tuple(dict.fromkeys(head for head in heads if " " not in head))


def size_of(result: Result) -> str:
    """The group of a result by its tumour's size."""
    if not result.tumour_cm:
        return _NO_TUMOUR
    return next((name for most, name in _SIZES_CM if result.tumour_cm <= most), _LARGEST)


def thickness_of(result: Result) -> str:
    """The group of a result by its slices' thickness."""
    return next((name for most, name in _SLICES_MM if result.thickness_mm <= most), _THICKEST)


GROUPINGS: Mapping[str, Callable[[Result], str]] = {
    "tumour size": size_of,
    "phase": lambda result: result.phase,
    "slice thickness": thickness_of,
}


def accuracy_of(results: Sequence[Result]) -> dict[str, Any]:
    """The medians of all results and of their groups, with how often nothing was found."""
    free = [result for result in results if not result.tumour_cm]
    codes = Counter(code for result in results for code in result.warnings)
    return {
        "all": scores_of(results),
        "groups": {
            grouping: {
                name: scores_of([result for result in results if group_of(result) == name])
                for name in sorted({group_of(result) for result in results}, key=_ORDER.index)
            }
            for grouping, group_of in GROUPINGS.items()
        },
        "empty_results": sum(result.empty for result in results),
        "tumour_free": len(free),
        "tumour_free_with_a_tumour_found": sum(result.dice_tumour < 1 for result in free),
        "warnings": dict(sorted(codes.items())),
    }


def scores_of(results: Sequence[Result]) -> dict[str, Any]:
    """Median, its 95 % interval, mean and lowest of both Dice; tumours only where there is one."""
    with_tumour = [result.dice_tumour for result in results if result.tumour_cm]
    return {
        "cases": len(results),
        "dice_kidney": _facts([result.dice_kidney for result in results]),
        "dice_tumour": _facts(with_tumour) if with_tumour else None,
    }


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile-bootstrap interval of the median, with a fixed seed."""
    given = np.asarray(values)
    draws = np.random.default_rng(SEED).integers(len(given), size=(RESAMPLES, len(given)))
    low, high = np.percentile(np.median(given[draws], axis=1), (2.5, 97.5))
    return float(low), float(high)


def _facts(values: Sequence[float]) -> dict[str, Any]:
    interval = None
    if len(values) >= FEWEST_FOR_AN_INTERVAL:
        interval = [round(value, 4) for value in median_interval(values)]
    return {
        "median": round(statistics.median(values), 4),
        "interval_95_of_median": interval,
        "mean": round(statistics.fmean(values), 4),
        "lowest": round(min(values), 4),
    }


def worst_first(results: Sequence[Result]) -> list[Result]:
    """The results from the lowest mean of both Dice to the highest."""
    return sorted(results, key=lambda r: (r.dice_kidney + r.dice_tumour, r.case))
