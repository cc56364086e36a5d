"""Each kernel on the device against its twin on the host: the same bits, and what both take."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kits_bench.gpu_check.plan import Facts
from kits_runtime.arrays import HOST, Arrays
from kits_runtime.errors import EngineError
from kits_runtime.grid import box_of, grid_over
from kits_runtime.kernels.calls import Answer, Planes, blend_into, gathered, labelled, resampled
from kits_runtime.kernels.twins import launch_twin
from kits_runtime.manifest.schema import Argmax, Resample, Shape3
from kits_runtime.windows import window_weights

TWINS = replace(HOST, launch=launch_twin)
_WINDOW = (32, 128, 128)
_LARGE: Mapping[str, Shape3] = {"scan": (48, 512, 512), "model": (32, 250, 250)}
_DRY: Mapping[str, Shape3] = {"scan": (6, 20, 24), "model": (32, 128, 136)}

Work = Callable[[Arrays], Any]


def kernel_facts(arrays: Arrays, *, repeats: int, dry: bool) -> Facts:
    """What each kernel took, here and as its twin.

    Raises:
        EngineError: a kernel computed something else.
    """
    sizes = _DRY if dry else _LARGE
    return {name: _compared(name, work, arrays, repeats) for name, work in _works(sizes).items()}


def _compared(name: str, work: Work, arrays: Arrays, repeats: int) -> Facts:
    expected, twin_ms = _timed(work, TWINS, 1)
    found, ms = _timed(work, arrays, repeats)
    differing = int(np.count_nonzero(found != expected))
    if differing:
        apart = np.abs(found.astype(np.float64) - expected).max()
        raise EngineError(
            f"kernel {name}: {differing} of {found.size} values differ from its twin's, by "
            f"{apart:g} at the most, expected none to"
        )
    return {"ms": ms, "twin_ms": twin_ms, "values": found.size}


def _timed(work: Work, arrays: Arrays, repeats: int) -> tuple[Any, float]:
    """What the work gives, and its median time, copies to and from the device included."""
    spent = []
    for _ in range(1 + repeats):  # the first one compiles
        start = time.perf_counter()
        found = arrays.get(work(arrays))
        arrays.wait()
        spent.append(time.perf_counter() - start)
    return found, round(float(np.median(spent[1:])) * 1e3, 4)


def _works(sizes: Mapping[str, Shape3]) -> Mapping[str, Work]:
    rng = np.random.default_rng(3)
    scan = rng.integers(-1000, 1000, sizes["scan"][::-1]).astype(np.int16)
    values = rng.standard_normal(sizes["model"]).astype(np.float32)
    scores = rng.standard_normal((2, 3, *_WINDOW)).astype(np.float32)
    weights = window_weights(_WINDOW, "gaussian")
    _, height, width = sizes["model"]
    corners = [(0, 0), (height - _WINDOW[1], width - _WINDOW[2])]
    answers = [
        Answer(start=(y, x), y=(y, y + _WINDOW[1]), x=(x, x + _WINDOW[2])) for y, x in corners
    ]
    step = Resample(spacing_mm=(None, None, None), size_vox=sizes["model"], interpolation="linear")
    grid = grid_over(sizes["scan"], (1.0, 1.0, 1.0), step)

    def resample(arrays: Arrays) -> Any:  # noqa: ANN401
        taps = [grid.taps(axis, box_of(grid.shape)) for axis in range(3)]
        maps = [(-79.0, 304.0, -79.0, 1 / 383, 0.0)]
        return resampled(arrays.put(scan).transpose(), taps, maps, arrays)

    def gather(arrays: Arrays) -> Any:  # noqa: ANN401
        rows = np.zeros((len(corners), 1), np.intp)
        return gathered(arrays.put(values), rows, corners, _WINDOW, arrays)

    def blend(arrays: Arrays) -> Any:  # noqa: ANN401
        sums = arrays.xp.zeros((3, *sizes["model"]), np.float32)
        counts = arrays.xp.zeros(sizes["model"], np.float32)
        there = arrays.put(scores), arrays.put(weights)
        blend_into(sums, counts, *there, answers, z_from=0, arrays=arrays)
        return sums

    def labels(arrays: Arrays) -> Any:  # noqa: ANN401
        taps = [grid.taps_back(axis, box_of(grid.shape)) for axis in range(3)]
        three = arrays.put(np.stack([values, np.roll(values, 5, 1), np.roll(values, 5, 2)]))
        planes = Planes(scores=three, before=three[:, 0])
        return labelled(planes, taps, Argmax(labels=(0, 1, 2)), arrays)

    return {"resample": resample, "gather": gather, "blend": blend, "labels": labels}
