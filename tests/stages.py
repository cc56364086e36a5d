"""Plain stages, outcomes and volumes from which tests start."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from hypothesis import settings

from kits_runtime.grid import Box, Grid, box_of
from kits_runtime.manifest.schema import Argmax, Patches, Slices, Stage, Whole
from kits_runtime.outcome import Outcome
from kits_runtime.volume import Volume, volume_from_array

Join = Literal["keep_centre", "mean", "gaussian"]

# Properties are searched for as long as it takes: a busy machine is no failure.
unhurried = settings(deadline=None, max_examples=50)

PLAIN = Stage(
    name="stage",
    look=Whole(),
    steps=(),
    windows=Patches(shape=(4, 4, 4), stride=(2, 2, 2), join="mean"),
    nets=("net",),
    combine="mean",
    decide=Argmax(labels=(0, 1)),
    join="mean",
    clean=(),
    clean_on="model",
)


def stage(**changes: Any) -> Stage:
    return replace(PLAIN, **changes)


def slices(shape: tuple[int, int], **changes: Any) -> Slices:
    plain = Slices(depth=1, shape=shape, stride=shape, join="mean", only=None, neighbours="volume")
    return replace(plain, **changes)


def volume(data: npt.NDArray[Any], spacing_mm: Sequence[float] = (2.5, 0.7, 0.8)) -> Volume:
    z_mm, y_mm, x_mm = spacing_mm
    affine = np.array([[0, 0, -x_mm, 11], [0, -y_mm, 0, 22], [-z_mm, 0, 0, 33], [0, 0, 0, 1.0]])
    return volume_from_array(data, affine)


def native_grid(shape: tuple[int, int, int], spacing_mm: Sequence[float] = (2.5, 0.7, 0.8)) -> Grid:
    z_mm, y_mm, x_mm = spacing_mm
    return Grid(shape, shape, (z_mm, y_mm, x_mm))


def outcome(
    placed: npt.NDArray[Any],
    *,
    grid: Grid | None = None,
    box: Box | None = None,
    on_scan: npt.NDArray[np.uint8] | None = None,
) -> Outcome:
    """An outcome whose labels fill a box of a grid; without a grid, that of their own shape."""
    z, y, x = placed.shape
    grid = grid or native_grid((z, y, x))
    return Outcome(
        grid=grid,
        box=box or box_of(grid.shape),
        placed=placed.astype(np.uint8),
        on_scan=on_scan,
        window=box_of(grid.scan_shape),
        reach=box_of(grid.scan_shape),
    )
