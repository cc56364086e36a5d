"""A stage's region on a device, never whole: a few slices at a time, whenever they are asked for.

Every step gives a slice the same values whatever lies beside it, but for the statistics of the
whole region; these are taken once, before. So slices that two windows share are prepared twice,
which takes less time than the nets have use for, and no slices need to be kept.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import Arrays
from kits_runtime.device.plan import STATISTICS_VOXELS
from kits_runtime.grid import Box, Grid, Taps, nearest_voxels
from kits_runtime.kernels.calls import resampled
from kits_runtime.manifest.schema import Resample, Shape3, Stage, Step
from kits_runtime.outcome import Outcomes
from kits_runtime.steps import (
    AIR_HU,
    STEPS,
    Region,
    air_after,
    map_of,
    needs_statistics,
    numbers_for,
)

# The scan's voxels in a box of it, on the device.
Part: TypeAlias = Callable[[Box], Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceRegion:
    """The values of a box of a stage's grid after all steps, by slices.

    ``steps`` need no statistics any more. ``scan`` gives the scan's voxels, at most ``scan_rows``
    slices of it at once where the grid is no coarser than that.
    """

    grid: Grid
    box: Box
    steps: tuple[Step, ...]
    outcomes: Outcomes
    scan: Part
    scan_rows: int
    arrays: Arrays

    @property
    def shape(self) -> Shape3:
        """Voxels along z, y and x."""
        return self.box.shape

    @property
    def air(self) -> float:
        """The value of air after the steps."""
        return self.rows(0, 1).air

    def between(self, first: int, last: int) -> Any:  # noqa: ANN401
        """Float32 values of slices first to last, contiguous."""
        at_once = self._rows_at_once()
        if last - first <= at_once:
            return self.rows(first, last).values
        values = self.arrays.xp.empty((last - first, *self.shape[1:]), np.float32)
        for start in range(first, last, at_once):
            stop = min(start + at_once, last)
            values[start - first : stop - first] = self.rows(start, stop).values
        return values

    def rows(self, first: int, last: int) -> Region:
        """Slices first to last after all steps, whatever that takes at once."""
        return applied_on_device(_rows(self, first, last), self.steps, self.outcomes)

    def _rows_at_once(self) -> int:
        ratio = self.grid.shape[0] / self.grid.scan_shape[0]
        return max(1, math.floor((self.scan_rows - 2) * ratio))


def device_region(
    stage: Stage,
    where: tuple[Grid, Box],
    *,
    outcomes: Outcomes,
    scan: Part,
    scan_rows: int,
    arrays: Arrays,
) -> DeviceRegion:
    """The region of a box of a stage's grid, once the statistics that its steps need are known."""
    region = DeviceRegion(
        grid=where[0],
        box=where[1],
        steps=(),
        outcomes=outcomes,
        scan=scan,
        scan_rows=scan_rows,
        arrays=arrays,
    )
    for step in stage.steps:
        numbers: tuple[Step, ...] = (step,)
        if needs_statistics(step):
            numbers = numbers_for(step, _mean_and_std(region))
        region = replace(region, steps=(*region.steps, *numbers))
    return region


def applied_on_device(region: Region, steps: Sequence[Step], outcomes: Outcomes) -> Region:
    """``steps.applied`` with resampling, and what follows it value by value, in one kernel."""
    left = list(steps)
    while left:
        together = _together(left)
        if together:
            region = _fused(region, together)
        else:
            region = STEPS[type(left[0])](region, left[0], outcomes)
        left = left[max(1, len(together)) :]
    values = region.values.astype(np.float32, order="C", copy=not region.own)
    return replace(region, values=values, own=True)


def _rows(of: DeviceRegion, first: int, last: int) -> Region:
    start, stop = of.box.start, of.box.stop
    box = Box((start[0] + first, *start[1:]), (start[0] + last, *stop[1:]))
    return _unchanged(of, box, of.grid.source_box(box))


def _unchanged(of: DeviceRegion, box: Box, source: Box) -> Region:
    """The scan's voxels before any step."""
    return _placed(of, (box, source), of.scan(source), on_scan=True)


def _placed(
    of: DeviceRegion,
    where: tuple[Box, Box],
    values: Any,  # noqa: ANN401
    *,
    on_scan: bool,
) -> Region:
    box, source = where
    return Region(
        values=values,
        grid=of.grid,
        box=box,
        source=source,
        on_scan=on_scan,
        air=AIR_HU,
        own=not on_scan,
        arrays=of.arrays,
    )


def _together(steps: Sequence[Step]) -> Sequence[Step]:
    """As many of the first steps as one kernel does: resampling, then what maps each value."""
    count = 1 if isinstance(steps[0], Resample) else 0
    while count < len(steps) and map_of(steps[count]) is not None:
        count += 1
    return steps[:count]


def _fused(region: Region, steps: Sequence[Step]) -> Region:
    taps = _taps(region, steps[0])
    maps = [found for found in map(map_of, steps) if found is not None]
    air = region.air
    for changed in maps:
        air = air_after(air, changed)
    values = resampled(region.values, taps, maps, region.arrays)
    on_scan = region.on_scan and not isinstance(steps[0], Resample)
    return replace(region, values=values, air=air, on_scan=on_scan, own=True)


def _taps(region: Region, step: Step) -> tuple[Taps, ...]:
    grid, box, first = region.grid, region.box, region.source.start
    if not isinstance(step, Resample):
        return tuple(_each(np.arange(length)) for length in region.values.shape)
    if step.interpolation == "linear":
        return tuple(grid.taps(axis, box).counted_from(first[axis]) for axis in range(3))
    axes = zip(grid.shape, grid.scan_shape, box.start, box.stop, first, strict=True)
    return tuple(_each(nearest_voxels(n, m, start=a, stop=b) - f) for n, m, a, b, f in axes)


def _each(voxels: NDArray[np.intp]) -> Taps:
    return Taps(voxels, voxels, np.zeros(len(voxels), np.float32))


def _mean_and_std(region: DeviceRegion) -> tuple[float, float]:
    """As on the host: float64 sums of slices; a constant region has 1 for the latter."""
    size = math.prod(_whole(region).shape)

    def mean_of(measure: Callable[[Any], Any]) -> float:
        sums: list[float] = []
        for piece in _pieces(region):
            sums += _sums(measure(_wide(piece)), region.arrays)
        return sum(sums) / size

    mean = mean_of(lambda values: values)
    return mean, math.sqrt(mean_of(lambda values: region.arrays.xp.square(values - mean))) or 1.0


def _wide(piece: Region) -> Any:  # noqa: ANN401
    return piece.arrays.xp.ascontiguousarray(piece.values, np.float64)


def _sums(wide: Any, arrays: Arrays) -> list[float]:  # noqa: ANN401
    """The sum of each slice."""
    sums: list[float] = arrays.get(wide.reshape(len(wide), -1).sum(axis=1)).tolist()
    return sums


def _is_on_grid(region: DeviceRegion) -> bool:
    return any(isinstance(step, Resample) for step in region.steps)


def _whole(region: DeviceRegion) -> Box:
    """All values there are after the region's steps: before they are resampled the scan's."""
    return region.box if _is_on_grid(region) else region.grid.source_box(region.box)


def _pieces(region: DeviceRegion) -> Iterator[Region]:
    """All values after the region's steps, each once, by some slices."""
    whole, on_grid = _whole(region), _is_on_grid(region)
    depth, height, width = whole.shape
    at_once = max(1, STATISTICS_VOXELS // max(1, height * width))
    for first in range(0, depth, at_once):
        last = min(first + at_once, depth)
        start = whole.start[0]
        part = Box((start + first, *whole.start[1:]), (start + last, *whole.stop[1:]))
        if on_grid:
            places = (part, region.grid.source_box(part))
            yield _placed(region, places, region.between(first, last), on_scan=False)
        else:
            scanned = _unchanged(region, region.box, part)
            yield applied_on_device(scanned, region.steps, region.outcomes)
