"""Makes the pieces of a case through the runtime's own look and steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from kits_runtime.grid import Box, Grid, bounding_box, box_of, grid_over
from kits_runtime.look import asked_about, boxes_to_look_at
from kits_runtime.manifest.schema import (
    MaskStep,
    MultiplyByMask,
    Resample,
    Slices,
    Step,
)
from kits_runtime.outcome import Outcomes
from kits_runtime.resample import nearest_index
from kits_runtime.steps import Region, applied, scanned_region, settled, with_numbers
from kits_runtime.volume import Volume
from kits_trt.data.stage_pieces import (
    Labels,
    Piece,
    PieceMask,
    groups_of_slices,
    labelled_places,
)
from kits_trt.data.stage_views import StageView, resample_of, true_outcome

Floats = NDArray[np.float32]

# A rough mask stays within so far of the true one, and so does what a masked piece holds.
_MARGIN_MM = 15.0
_SMALLEST_SHARE = 1e-4  # less lets a tenth of a HU through at most
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    """What the boxes of one case share."""

    view: StageView
    volume: Volume
    labels: Labels
    grid: Grid
    outcomes: Outcomes


def pieces_of(view: StageView, volume: Volume, labels: Labels) -> tuple[Piece, ...]:
    """The pieces of a case; ``labels`` lie on the scan's grid, in any memory order."""
    stage = view.stage
    outcomes = {earlier.name: true_outcome(earlier, volume, labels) for earlier in view.earlier}
    grid = grid_over(volume.shape, volume.spacing_mm, resample_of(stage))
    boxes = boxes_to_look_at(
        stage.look, volume, grid, outcomes=outcomes, cut_halves=stage.join == "halves"
    )
    view = replace(view, stage=replace(stage, steps=settled(stage.steps, volume, outcomes)))
    sight = _Sight(view=view, volume=volume, labels=labels, grid=grid, outcomes=outcomes)
    return tuple(_piece(sight, box) for box in asked_about(boxes, stage, grid, outcomes))


def _piece(sight: _Sight, box: Box) -> Piece:
    view, grid, outcomes = sight.view, sight.grid, sight.outcomes
    region = applied(scanned_region(sight.volume, grid, box), view.cached_steps, outcomes)
    labels = sight.labels[nearest_index(grid.shape, grid.scan_shape, box)]
    masks = _masks_read(sight, box)
    values, masked = region.values, _postponed(view.cached_steps)
    stored = box_of(box.shape)
    if masked is not None:
        values, masks[masked] = _unmasked(sight, box, region, masked)
        stored = _near(masks[masked], labels, grid)
    hu = np.clip(np.rint(values), _INT16.min, _INT16.max).astype(np.int16)
    labels = np.ascontiguousarray(labels[stored.slices])
    places, counts = labelled_places(labels)
    return Piece(
        shape=box.shape,
        corner=(stored.start[1], stored.start[2]),
        hu=np.ascontiguousarray(hu[stored.slices]),
        labels=labels,
        masks={name: _part(mask, stored) for name, mask in masks.items()},
        masked=masked,
        kept=_kept_slices(sight, box),
        groups=groups_of_slices(labels),
        places=places,
        counts=counts,
        spacing_mm=grid.spacing_mm,
        steps=_numbered(region, view.steps_left, outcomes),
    )


def _postponed(cached: Sequence[Step]) -> str | None:
    """The mask by which the scan is multiplied right before it is resampled, if it is."""
    match cached[-2:]:
        case (MultiplyByMask(of=of), Resample()):
            return of
    return None


def _masks_read(sight: _Sight, box: Box) -> dict[str, PieceMask]:
    """The masks that the steps left for a sample read."""
    steps = sight.view.steps_left
    names = {step.of for step in steps if isinstance(step, MaskStep)}
    insides = {name: sight.outcomes[name].mask_on(sight.grid, box) for name in sorted(names)}
    return {
        name: PieceMask(share=inside.astype(np.float16), inside=inside)
        for name, inside in insides.items()
    }


def _unmasked(sight: _Sight, box: Box, region: Region, mask: str) -> tuple[Floats, PieceMask]:
    """A masked region as the mean of what its mask lets through, and the mask.

    Where the mask lets nothing through stands what it hides, for a rough mask may let it.
    """
    grid, outcome = sight.grid, sight.outcomes[mask]
    *first, _, resample = sight.view.cached_steps
    scanned = scanned_region(sight.volume, grid, box)
    hidden: Floats = np.asarray(
        applied(scanned, (*first, resample), sight.outcomes).values, np.float32
    )
    through = outcome.mask_on_scan(scanned.source).astype(np.int16)
    share = applied(replace(scanned, values=through), (resample,), {}).values
    np.divide(region.values, share, out=hidden, where=share > _SMALLEST_SHARE)
    inside = outcome.mask_on(grid, box)
    return hidden, PieceMask(share=share.astype(np.float16), inside=inside)


def _near(mask: PieceMask, labels: Labels, grid: Grid) -> Box:
    """All slices of a piece, and in plane what lies near its mask and labels."""
    whole = box_of((labels.shape[0], labels.shape[1], labels.shape[2]))
    found = bounding_box((mask.share > 0) | (labels > 0))
    if found is None:
        return whole
    y, x = (ceil(_MARGIN_MM / step_mm) for step_mm in grid.spacing_mm[1:])
    near = Box(
        (0, found.start[1] - y, found.start[2] - x),
        (whole.stop[0], found.stop[1] + y, found.stop[2] + x),
    )
    return near.within(whole)


def _part(mask: PieceMask, stored: Box) -> PieceMask:
    share, inside = mask.share[stored.slices], mask.inside[stored.slices]
    return PieceMask(share=np.ascontiguousarray(share), inside=np.ascontiguousarray(inside))


def _kept_slices(sight: _Sight, box: Box) -> NDArray[np.bool_]:
    windows = sight.view.stage.windows
    if not isinstance(windows, Slices) or windows.only is None:
        return np.ones(box.shape[0], np.bool_)
    mask = sight.outcomes[windows.only].mask_on(sight.grid, box)
    return np.asarray(mask.any(axis=(1, 2)))


def _numbered(region: Region, steps: Sequence[Step], outcomes: Outcomes) -> tuple[Step, ...]:
    """The steps with statistics of the region as numbers; the region's values are used up."""
    numbered: list[Step] = []
    for step in steps:
        fixed = with_numbers(step, region, outcomes)
        region = applied(region, fixed, outcomes)
        numbered += fixed
    return tuple(numbered)
