"""The steps from the scan to a net's input, looked up in one table.

A region starts as the scan's own voxels (a view) and leaves as float32 on the stage's grid.
``air`` follows along: the value that -1000 HU has after the steps so far, with which windows are
padded. The way back to the scan is the grid itself, so no step needs an undo of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kits_runtime.arrays import HOST, Arrays
from kits_runtime.grid import Box, Grid, box_of, nearest_count
from kits_runtime.kernels.calls import Map
from kits_runtime.manifest.schema import (
    CentreInMask,
    CentreOnBrighterSide,
    Clip,
    ClipMeanSigma,
    DimOutsideMask,
    MaskStep,
    MultiplyByMask,
    Resample,
    Scale,
    Step,
    ZScore,
)
from kits_runtime.outcome import Outcome, Outcomes, zeros_stored_as
from kits_runtime.resample import nearest_index, resample_linear, resample_nearest
from kits_runtime.volume import Volume, Voxels

AIR_HU = -1000.0
_SMALLEST_SIDE = 0.1  # of a mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A box on its way to the nets.

    Before the resample step ``values`` are the scan's voxels that the box needs (``source``), after
    it the box's own. A stage without that step has the scan's grid, where both are the same. As
    soon as the values are ``own`` and no longer the scan's, steps write into them. Steps may use so
    many ``threads``, or as many as there are processors. Values lie where ``arrays`` has them.
    """

    values: Voxels
    grid: Grid
    box: Box
    source: Box
    on_scan: bool
    air: float
    own: bool = False
    threads: int | None = None
    arrays: Arrays = HOST


def scanned_region(volume: Volume, grid: Grid, box: Box, *, threads: int | None = None) -> Region:
    """The scan's own voxels that a box of the grid needs, before any step."""
    source = grid.source_box(box)
    return Region(
        values=volume.data[source.slices],
        grid=grid,
        box=box,
        source=source,
        on_scan=True,
        air=AIR_HU,
        threads=threads,
    )


def prepared_region(
    volume: Volume,
    grid: Grid,
    box: Box,
    *,
    steps: Sequence[Step],
    outcomes: Outcomes,
    threads: int | None = None,
) -> Region:
    """A box of the stage's grid after all steps, as float32; the scan is not changed."""
    return applied(scanned_region(volume, grid, box, threads=threads), steps, outcomes)


def settled(steps: Sequence[Step], volume: Volume, outcomes: Outcomes) -> tuple[Step, ...]:
    """Steps that do the same, of which none depends on more than the region it is applied to."""
    return tuple(
        ZScore(mean=_of_brighter_side(step, volume, outcomes) - step.target_hu, std=1.0)
        if isinstance(step, CentreOnBrighterSide)
        else step
        for step in steps
    )


def _of_brighter_side(step: CentreOnBrighterSide, volume: Volume, outcomes: Outcomes) -> float:
    """The higher quantile of both sides, as the step says; 0 where the mask is empty."""
    outcome = outcomes[step.of]
    box = outcome.found(outcome.box)
    if box is None:
        return 0.0
    grid = outcome.grid
    inside = outcome.placed[box.seen_from(outcome.box).slices] > 0
    values = volume.data[nearest_index(grid.shape, grid.scan_shape, box)]
    middle = min(max(grid.middle_x - box.start[2], 0), inside.shape[2])
    least = max(1, _SMALLEST_SIDE * np.count_nonzero(inside))
    sides = [
        values[..., half][inside[..., half]] for half in (slice(0, middle), slice(middle, None))
    ]
    return max(_quantile(side, step.quantile) for side in sides if side.size >= least)


def _quantile(values: Voxels, quantile: float) -> float:
    """The value that a share of all values, one at least, does not exceed."""
    place = math.floor(quantile * (values.size - 1))
    return float(np.partition(values, place)[place])


def applied(region: Region, steps: Sequence[Step], outcomes: Outcomes) -> Region:
    """The region after these steps, as float32; values that are its ``own`` are written into."""
    for step in steps:
        region = STEPS[type(step)](region, step, outcomes)
    values = region.values.astype(np.float32, order="C", copy=not region.own)
    return replace(region, values=values, own=True)


def with_numbers(step: Step, region: Region, outcomes: Outcomes) -> tuple[Step, ...]:
    """Steps that do to any region what ``step`` does to this one: statistics become numbers."""
    if not needs_statistics(step):
        return (step,)
    return numbers_for(step, _mean_and_std(region.values))


def needs_statistics(step: Step) -> bool:
    """Whether what a step does depends on mean and standard deviation of the whole region."""
    match step:
        case ZScore(mean=mean, std=std):
            return mean is None or std is None
        case _:
            return isinstance(step, ClipMeanSigma)


def numbers_for(step: Step, mean_and_std: tuple[float, float]) -> tuple[Step, ...]:
    """Steps with numbers in the place of one that needs statistics."""
    mean, std = mean_and_std
    match step:
        case ClipMeanSigma(sigma=sigma, target=target):
            low, high = mean - sigma * std, mean + sigma * std
            return (Clip(lower_hu=low, upper_hu=high), Scale(source=(low, high), target=target))
        case _:
            return (ZScore(mean=mean, std=std),)


def mask_of(region: Region, step: MaskStep, outcomes: Outcomes) -> NDArray[np.bool_]:
    """The mask that a step reads, where the region's values are."""
    return _mask_in(region, outcomes[step.of], region.source if region.on_scan else region.box)


def _mask_in(region: Region, outcome: Outcome, box: Box) -> NDArray[np.bool_]:
    """A mask in a box of the scan or of the grid, whichever the region's values are on."""
    return outcome.mask_on_scan(box) if region.on_scan else outcome.mask_on(region.grid, box)


def _mask_and_near(
    region: Region, step: DimOutsideMask, outcomes: Outcomes
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The mask, and grown: from outside of the region too, whose borders change nothing."""
    grid = region.grid
    box, whole = (region.source, grid.scan_shape) if region.on_scan else (region.box, grid.shape)
    z, y, x = (
        nearest_count(step.within_mm * own / (count * step_mm))
        for own, count, step_mm in zip(whole, grid.shape, grid.spacing_mm, strict=True)
    )
    wide = box.wider_by((z, y, x)).within(box_of(whole))
    mask = near = _mask_in(region, outcomes[step.of], wide)
    for axis, count in enumerate((z, y, x)):
        near = _grown(near, axis, count)
    own_part = box.seen_from(wide).slices
    return mask[own_part], near[own_part]


def _grown(mask: NDArray[np.bool_], axis: int, count: int) -> NDArray[np.bool_]:
    """The mask with so many voxels more at both ends of whatever it holds along an axis."""
    width = [(0, 0)] * mask.ndim
    width[axis] = (count + 1, count)
    seen = np.moveaxis(np.cumsum(np.pad(mask, width), axis=axis, dtype=np.int32), axis, 0)
    length = mask.shape[axis]
    return np.moveaxis(seen[2 * count + 1 :][:length] > seen[:length], 0, axis)


def map_of(step: Step) -> Map | None:
    """What a step does to each value alone: (low, high, origin, gain, offset); None if it does not.

    Values are clipped to low and high, and then become (value - origin) * gain + offset.
    """
    match step:
        case Clip(lower_hu=low, upper_hu=high):
            return (low, high, 0.0, 1.0, 0.0)
        case Scale(source=(low, high), target=(to_low, to_high)):
            return (-math.inf, math.inf, low, (to_high - to_low) / (high - low), to_low)
        case ZScore(mean=float(mean), std=float(std)):
            return (-math.inf, math.inf, mean, 1 / std, 0.0)
        case _:
            return None


def air_after(air: float, changed: Map) -> float:
    """The value of air after such a change."""
    low, high, origin, gain, offset = changed
    return (min(max(air, low), high) - origin) * gain + offset


def _resample(region: Region, step: Resample, _: Outcomes) -> Region:
    grid, box = region.grid, region.box
    if step.interpolation == "nearest":
        values = resample_nearest(region.values, grid, box, first=region.source.start)
    else:
        taps = [grid.taps(a, box).counted_from(region.source.start[a]) for a in range(3)]
        values = resample_linear(region.values, (taps[0], taps[1], taps[2]), threads=region.threads)
    return replace(region, values=values, on_scan=False, own=True)


def _mapped(region: Region, step: Clip | Scale | ZScore, _: Outcomes) -> Region:
    """The region after a step that changes each value alone."""
    if needs_statistics(step):
        return _with_statistics(region, step, {})
    changed = map_of(step)
    assert changed is not None
    low, high, origin, gain, offset = (np.float32(number) for number in changed)
    values = _writable(region)
    if isinstance(step, Clip):
        region.arrays.xp.clip(values, low, high, out=values)
    else:
        values -= origin
        values *= gain
        values += offset
    return replace(region, values=values, air=air_after(region.air, changed), own=True)


def _with_statistics(region: Region, step: Step, outcomes: Outcomes) -> Region:
    """The region after a step whose numbers are those of this region."""
    return applied(region, with_numbers(step, region, outcomes), {})


def _multiply_by_mask(region: Region, step: MultiplyByMask, outcomes: Outcomes) -> Region:
    mask = mask_of(region, step, outcomes)
    if region.arrays is not HOST:
        inside = region.arrays.put(mask)
        values = region.arrays.xp.where(inside, region.values, region.values.dtype.type(0))
    else:
        values = zeros_stored_as(region.values, region.values.shape, region.values.dtype)
        np.copyto(values, region.values, where=mask)
    return replace(region, values=values, air=0.0, own=True)


def _dim_outside_mask(region: Region, step: DimOutsideMask, outcomes: Outcomes) -> Region:
    inside, near = _mask_and_near(region, step, outcomes)
    share = np.where(inside, np.float32(1), np.float32(step.share))
    share *= near
    values = _writable(region)
    values *= region.arrays.put(share)
    return replace(region, values=values, air=0.0, own=True)


def _centre_in_mask(region: Region, step: CentreInMask, outcomes: Outcomes) -> Region:
    mask = mask_of(region, step, outcomes)
    values = _writable(region)
    for plane, inside in zip(values, mask, strict=True):
        if inside.any():
            here = region.arrays.put(inside)
            shift_hu = step.target_hu - float(plane[here].mean(dtype=np.float64))
            moved = plane + np.float32(shift_hu)
            plane[...] = region.arrays.xp.where(here, moved, plane)
    return replace(region, values=values, own=True)


STEPS: Mapping[type[Step], Callable[..., Region]] = {
    Resample: _resample,
    Clip: _mapped,
    Scale: _mapped,
    ZScore: _mapped,
    ClipMeanSigma: _with_statistics,
    MultiplyByMask: _multiply_by_mask,
    DimOutsideMask: _dim_outside_mask,
    CentreInMask: _centre_in_mask,
}


def _writable(region: Region) -> NDArray[np.float32]:
    """The region's values as float32 that may be written: a copy while they are the scan's."""
    values: NDArray[np.float32] = region.values.astype(np.float32, copy=not region.own)
    return values


def _mean_and_std(values: Voxels) -> tuple[float, float]:
    """The mean and standard deviation; a constant region has 1 for the latter.

    Sums are made slice by slice, so that they do not depend on the scan's order in memory.
    """

    def mean_of(measure: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        planes = (np.ascontiguousarray(plane, np.float64) for plane in values)
        return sum(float(measure(plane).sum()) for plane in planes) / values.size

    mean = mean_of(lambda plane: plane)
    return mean, math.sqrt(mean_of(lambda plane: np.square(plane - mean))) or 1.0
