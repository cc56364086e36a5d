"""Times each stage around the nets beside the usual way of doing it, in turns, on one scan."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kits_bench import usual
from kits_runtime.clean import fill_holes, keep_largest
from kits_runtime.grid import Grid, box_of, grid_over
from kits_runtime.infer import Slab
from kits_runtime.manifest.schema import Argmax, Clip, Resample, Scale
from kits_runtime.nifti import Scan, read_scan, write_labels
from kits_runtime.resample import nearest_index
from kits_runtime.steps import prepared_region
from kits_runtime.tidy import Tidied, follow_on_scan
from kits_runtime.volume import Volume, empty_labels
from kits_runtime.wayback import WayBack

SPACING_MM = (3.22, 1.62, 1.62)
WINDOW_HU = (-79.0, 304.0)
SLAB_SLICES = 32

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]
Way = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: our way, the usual ones by name, and how alike two results are (1 is equal)."""

    name: str
    ours: Way
    usual: Mapping[str, Way]
    likeness: Callable[[Any, Any], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds of every repeat of one way, and how alike its result is to ours."""

    stage: str
    way: str
    ms: tuple[float, ...]
    likeness: float

    @property
    def median_ms(self) -> float:
        """The median over the repeats."""
        return statistics.median(self.ms)


def timed_stages(stages: Sequence[Stage], *, repeats: int) -> tuple[Timing, ...]:
    """Runs all ways of each stage in turns; the first round warms up and is not counted."""
    return tuple(timing for stage in stages for timing in _timed(stage, repeats))


def _timed(stage: Stage, repeats: int) -> Sequence[Timing]:
    ways = {"kits-trt": stage.ours, **stage.usual}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for round_ in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            results[name] = way()
            if round_:
                spent[name].append(round((time.perf_counter() - start) * 1e3, 3))
    return [
        Timing(
            stage=stage.name,
            way=name,
            ms=tuple(spent[name]),
            likeness=round(stage.likeness(results["kits-trt"], results[name]), 6),
        )
        for name in ways
    ]


def stages_of(path: Path, labels: Labels, folder: Path) -> tuple[Stage, ...]:
    """The stages of a scan in a file whose true labels are known; writing goes to ``folder``."""
    scan = read_scan(path)
    resample = Resample(spacing_mm=SPACING_MM, size_vox=(None, None, None), interpolation="linear")
    grid = grid_over(scan.volume.shape, scan.volume.spacing_mm, resample)
    scores = smooth_scores(labels, grid)
    return (
        _reading(path),
        _resampling(scan.volume, grid, resample),
        _way_back(scan.volume, grid, scores),
        _components(scan.volume, grid, scores),
        _holes(labels > 0),
        _writing(scan, labels, folder),
    )


def smooth_scores(labels: Labels, grid: Grid) -> Scores:
    """Scores (3, z, y, x) on a grid that look like a net's: the labels, softened."""
    small = labels[nearest_index(grid.shape, grid.scan_shape, box_of(grid.shape))]
    soft = [ndimage.gaussian_filter((small == value).astype(np.float32), 0.8) for value in (1, 2)]
    return np.stack([1 - soft[0] - soft[1], *soft]).astype(np.float32)


def labels_on_scan(volume: Volume, grid: Grid, scores: Scores) -> tuple[Labels, Labels]:
    """The labels of scores on the scan's grid and on the model's."""
    on_scan, placed = empty_labels(volume), np.zeros(grid.shape, np.uint8)
    decide = Argmax(labels=(0, 1, 2))
    back = WayBack(grid, box_of(grid.shape), decide=decide, placed=placed, on_scan=on_scan)
    for first in range(0, grid.shape[0], SLAB_SLICES):
        part = scores[:, first : first + SLAB_SLICES]
        back.push(Slab(depth=part.shape[1], scores=part))
    return on_scan, placed


def _reading(path: Path) -> Stage:
    def likeness(ours: Volume | NDArray[Any], other: Volume | NDArray[Any]) -> float:
        return float(np.array_equal(_as_stored(ours), _as_stored(other)))

    return Stage(
        name="read .nii.gz",
        ours=lambda: read_scan(path).volume,
        usual={"nibabel get_fdata": lambda: usual.read_with_nibabel(path)},
        likeness=likeness,
    )


def _as_stored(read: Volume | NDArray[Any]) -> NDArray[Any]:
    return read.orientation.to_source(read.data) if isinstance(read, Volume) else read


def _resampling(volume: Volume, grid: Grid, resample: Resample) -> Stage:
    clip = Clip(lower_hu=WINDOW_HU[0], upper_hu=WINDOW_HU[1])
    steps = (resample, clip, Scale(source=WINDOW_HU, target=(0.0, 1.0)))
    box, hu = box_of(grid.shape), volume.data.astype(np.int16, copy=False)
    return Stage(
        name="resample to 3.22 x 1.62 x 1.62 mm, clip, scale",
        ours=lambda: prepared_region(volume, grid, box, steps=steps, outcomes={}).values,
        usual={
            "scipy zoom": lambda: usual.resample_with_scipy(hu, grid.shape, WINDOW_HU),
            "MONAI Spacing": lambda: usual.resample_with_monai(
                hu, volume.affine, SPACING_MM, WINDOW_HU
            ),
        },
        likeness=mean_likeness,
    )


def _way_back(volume: Volume, grid: Grid, scores: Scores) -> Stage:
    return Stage(
        name="scores to the scan's grid, argmax",
        ours=lambda: labels_on_scan(volume, grid, scores)[0],
        usual={
            "scipy zoom, argmax": lambda: usual.labels_with_scipy(scores, volume.shape),
            "torch interpolate, argmax": lambda: usual.labels_with_torch(scores, volume.shape),
        },
        likeness=label_likeness,
    )


def _components(volume: Volume, grid: Grid, scores: Scores) -> Stage:
    on_scan, placed = labels_on_scan(volume, grid, scores)
    mask, before = on_scan > 0, placed > 0

    def ours() -> NDArray[np.bool_]:
        after = keep_largest(before, count=2)
        kept = on_scan.copy(order="K")
        box = box_of(grid.shape)
        follow_on_scan(kept, Tidied(grid=grid, box=box, before=before, after=after, fill=1))
        return kept > 0

    return Stage(
        name="keep the two largest components",
        ours=ours,
        usual={"scipy label": lambda: usual.largest_with_scipy(mask, 2)},
        likeness=label_likeness,
    )


def _holes(mask: NDArray[np.bool_]) -> Stage:
    return Stage(
        name="fill holes",
        ours=lambda: fill_holes(mask, per_slice=False),
        usual={"scipy binary_fill_holes": lambda: usual.filled_with_scipy(mask)},
        likeness=label_likeness,
    )


def _writing(scan: Scan, labels: Labels, folder: Path) -> Stage:
    own = empty_labels(scan.volume)
    own[...] = labels
    stored = scan.volume.orientation.to_source(own)
    affine = nib.load(scan.path).affine  # type: ignore[attr-defined]
    paths = folder / "ours.nii.gz", folder / "usual.nii.gz"

    def ours() -> Path:
        write_labels(paths[0], own, like=scan)
        return paths[0]

    def likeness(one: Path, other: Path) -> float:
        return label_likeness(*(usual.read_with_nibabel(path) for path in (one, other)))

    return Stage(
        name="write labels .nii.gz",
        ours=ours,
        usual={"nibabel save": lambda: usual.write_with_nibabel(paths[1], stored, affine)},
        likeness=likeness,
    )


def label_likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """1 less the share of the union of foregrounds on which two label arrays disagree."""
    union = int(((one > 0) | (other > 0)).sum())
    return 1 - int((one != other).sum()) / max(1, union)


def mean_likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """1 less the mean absolute difference, where grids that differ in size by a voxel overlap."""
    shared = tuple(slice(0, min(n, m)) for n, m in zip(one.shape, other.shape, strict=True))
    return 1 - float(np.abs(one[shared] - other[shared]).mean())
