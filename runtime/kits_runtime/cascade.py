"""The executor: one code path that runs any system's stages over a scan.

Each stage looks, prepares its regions, runs its windows and writes labels while the scores stream
by; what it found serves the stages after it, and the overlay of some of them is the result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kits_runtime.clock import Clock
from kits_runtime.decide import background_scores
from kits_runtime.grid import Box, Grid, bounding_box, grid_over
from kits_runtime.infer import RunNet, Scores, Slab, WindowedInput, slabs
from kits_runtime.look import boxes_to_look_at
from kits_runtime.manifest.schema import (
    CentreInMask,
    MultiplyByMask,
    Overlap,
    Resample,
    Slices,
    Stage,
)
from kits_runtime.outcome import Outcome
from kits_runtime.steps import prepared_region
from kits_runtime.tidy import Frame, Tidied, follow_on_scan, tidied, tidy_labels
from kits_runtime.volume import Volume, empty_labels
from kits_runtime.wayback import WayBack

Labels = NDArray[np.uint8]
_NOWHERE = Box((0, 0, 0), (0, 0, 0))
Progress = Callable[[str, float], None]


class Staged(Protocol):
    """What the executor needs of a manifest; a system that is being trained has it as well."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order."""

    @property
    def overlay(self) -> tuple[str, ...]:
        """The stages whose labels make the result, each over those before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeResult:
    """The labels on the scan's (z, y, x) axes, each stage's outcome, and remarks."""

    labels: Labels
    outcomes: Mapping[str, Outcome]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What the stages of one run share."""

    volume: Volume
    nets: Mapping[str, RunNet]
    clock: Clock
    progress: Progress
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def run_cascade(
    volume: Volume,
    manifest: Staged,
    *,
    nets: Mapping[str, RunNet],
    clock: Clock,
    progress: Progress = lambda _stage, _share: None,
) -> CascadeResult:
    """Segments a scan. ``nets`` are the manifest's, by name; the volume is not changed."""
    run = _Run(volume=volume, nets=nets, clock=clock, progress=progress)
    remarks = []
    wanted = stages_wanted_on_scan(manifest)
    for stage in manifest.stages:
        outcome, looked = _run_stage(run, stage, on_scan=stage.name in wanted)
        run.outcomes[stage.name] = outcome
        if not looked:
            remarks.append(f"stage {stage.name!r} had nowhere to look")
    with clock.phase("overlay"):
        labels = _overlaid([run.outcomes[name] for name in manifest.overlay], volume)
    return CascadeResult(labels=labels, outcomes=run.outcomes, remarks=tuple(remarks))


def stages_wanted_on_scan(manifest: Staged) -> set[str]:
    """The stages whose labels are needed on the scan's grid; others never leave the model's."""
    wanted = set(manifest.overlay)
    for stage in manifest.stages:
        if stage.clean_on == "scan":
            wanted.add(stage.name)
            wanted.update(item.of for item in stage.clean if isinstance(item, Overlap))
        masks = (step for step in stage.steps if isinstance(step, MultiplyByMask | CentreInMask))
        wanted.update(step.of for step in masks)
    return wanted


def _run_stage(run: _Run, stage: Stage, *, on_scan: bool) -> tuple[Outcome, bool]:
    volume = run.volume
    resample = next((step for step in stage.steps if isinstance(step, Resample)), None)
    grid = grid_over(volume.shape, volume.spacing_mm, resample)
    with run.clock.phase(f"{stage.name}.look"):
        boxes = boxes_to_look_at(
            stage.look,
            volume,
            grid,
            outcomes=run.outcomes,
            cut_halves=stage.join == "halves",
        )
        boxes = asked_about(boxes, stage, grid, run.outcomes)
    union = _union(boxes)
    outcome = Outcome(
        grid=grid,
        box=union,
        placed=np.zeros(union.shape, np.uint8),
        on_scan=empty_labels(volume) if on_scan else None,
        reach=_NOWHERE,
    )
    if boxes:
        _fill(run, stage, boxes, outcome)
        outcome = _with_reach(outcome)
        with run.clock.phase(f"{stage.name}.clean"):
            outcome = _cleaned(run, stage, outcome)
    return outcome, bool(boxes)


def asked_about(
    boxes: Sequence[Box], stage: Stage, grid: Grid, outcomes: Mapping[str, Outcome]
) -> tuple[Box, ...]:
    """The boxes cut, along z, to the slices that 2.5D windows ask about and their neighbours.

    One slice more stays at least: scores must fall off towards a slice that nobody asked about.
    """
    windows = stage.windows
    if not isinstance(windows, Slices) or windows.only is None:
        return tuple(boxes)
    margin = max(1, windows.depth // 2)
    cut = []
    for box in boxes:
        kept = np.flatnonzero(outcomes[windows.only].mask_on(grid, box).any(axis=(1, 2)))
        if kept.size:
            first = box.start[0] + int(kept[0]) - margin
            last = box.start[0] + int(kept[-1]) + 1 + margin
            cut.append(Box((first, *box.start[1:]), (last, *box.stop[1:])).within(box))
    return tuple(cut)


def _kept_slices(
    stage: Stage, outcomes: Mapping[str, Outcome], grid: Grid, box: Box
) -> NDArray[np.bool_] | None:
    if not isinstance(stage.windows, Slices) or stage.windows.only is None:
        return None
    mask = outcomes[stage.windows.only].mask_on(grid, box)
    return np.asarray(mask.any(axis=(1, 2)))


def _union(boxes: Sequence[Box]) -> Box:
    if not boxes:
        return _NOWHERE
    union = boxes[0]
    for box in boxes[1:]:
        union = union.around(box)
    return union


def _fill(run: _Run, stage: Stage, boxes: Sequence[Box], outcome: Outcome) -> None:
    """Runs all boxes; where some overlap their scores are joined first, else each goes its way."""
    total, done = sum(box.shape[0] for box in boxes), 0

    def told(stream: Iterator[Slab]) -> Iterator[Slab]:
        nonlocal done
        for slab in stream:
            yield slab
            done += slab.depth
            run.progress(stage.name, done / total)

    groups = [(box, told(_box_slabs(run, stage, outcome.grid, box))) for box in boxes]
    if _any_overlap(boxes):
        with run.clock.phase(f"{stage.name}.join"):
            joined = _joined(stage, outcome.box, groups)
        groups = [(outcome.box, iter((joined,)))]
    for box, stream in groups:
        back = WayBack(
            outcome.grid,
            box,
            decide=stage.decide,
            placed=outcome.placed[box.seen_from(outcome.box).slices],
            on_scan=outcome.on_scan,
        )
        for slab in stream:
            with run.clock.phase(f"{stage.name}.way_back"):
                back.push(slab)


def _with_reach(outcome: Outcome) -> Outcome:
    """The outcome with the scan voxels that are interpolated from foreground, one voxel more."""
    found = bounding_box(outcome.placed)
    if found is None:
        return replace(outcome, reach=_NOWHERE)
    wide = found.moved_by(outcome.box.start).wider_by(1).within(outcome.box)
    return replace(outcome, reach=outcome.grid.scan_box(wide))


def _box_slabs(run: _Run, stage: Stage, grid: Grid, box: Box) -> Iterator[Slab]:
    clock = run.clock
    with clock.phase(f"{stage.name}.steps"):
        region = prepared_region(run.volume, grid, box, steps=stage.steps, outcomes=run.outcomes)
        kept = _kept_slices(stage, run.outcomes, grid, box)
        values = region.values.astype(np.float32, copy=False)
        given = WindowedInput(values=values, air=region.air, kept=kept)

    def timed(net: RunNet) -> RunNet:
        def ask(patches: Scores) -> Scores:
            with clock.phase(f"{stage.name}.net"):
                return net(patches)

        return ask

    stream = slabs(given, stage, [timed(run.nets[name]) for name in stage.nets])
    while True:
        with clock.phase(f"{stage.name}.windows"):
            slab = next(stream, None)
        if slab is None:
            return
        yield slab


def _any_overlap(boxes: Sequence[Box]) -> bool:
    pairs = ((a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    return any(not a.within(b).empty for a, b in pairs)


def _joined(stage: Stage, union: Box, groups: Sequence[tuple[Box, Iterator[Slab]]]) -> Slab:
    """One slab over the union of boxes: the mean or the maximum where they overlap."""
    classes = len(stage.decide.labels)
    largest = stage.join == "max"
    joined = np.full((classes, *union.shape), -np.inf if largest else 0, np.float32)
    seen = np.zeros(union.shape, np.uint8)
    for box, stream in groups:
        where = box.seen_from(union)
        z = where.start[0]
        for slab in stream:
            rows = (slice(z, z + slab.depth), *where.slices[1:])
            shape = (classes, slab.depth, *box.shape[1:])
            scores = background_scores(shape, stage.decide) if slab.scores is None else slab.scores
            target = joined[(slice(None), *rows)]
            (np.maximum if largest else np.add)(target, scores, out=target)
            seen[rows] += 1
            z += slab.depth
    if not largest:
        joined /= np.maximum(seen, 1)
    unseen = seen == 0
    for channel, value in zip(joined, background_scores((classes,), stage.decide), strict=True):
        channel[unseen] = value
    return Slab(depth=union.shape[0], scores=joined)


def _cleaned(run: _Run, stage: Stage, outcome: Outcome) -> Outcome:
    if not (stage.clean and outcome.placed.any()):
        return outcome
    grid, box = outcome.grid, outcome.box
    fill = next(label for label in stage.decide.labels if label)
    if stage.clean_on == "scan":
        _clean_scan(run, stage, outcome, fill=fill)
        after = outcome.mask_on(grid, box)
        return replace(outcome, placed=_with_foreground(outcome.placed, after, fill))
    frame = Frame(
        spacing_mm=grid.spacing_mm,
        middle_x=grid.middle_x - box.start[2],
        mask_of=lambda name: run.outcomes[name].mask_on(grid, box),
    )
    before = outcome.placed > 0
    after = tidied(before, stage.clean, frame)
    if outcome.on_scan is not None:
        change = Tidied(grid=grid, box=box, before=before, after=after, fill=fill)
        follow_on_scan(outcome.on_scan, change)
    cleaned = replace(outcome, placed=_with_foreground(outcome.placed, after, fill))
    return _with_reach(cleaned)


def _with_foreground(placed: Labels, mask: NDArray[np.bool_], fill: int) -> Labels:
    """Labels whose foreground is ``mask``: what was labelled stays so, the rest is ``fill``."""
    return np.where(mask, np.where(placed > 0, placed, fill), 0).astype(np.uint8)


def _clean_scan(run: _Run, stage: Stage, outcome: Outcome, *, fill: int) -> None:
    """Cleans the scan's labels in place, inside the box that holds all of them."""
    assert outcome.on_scan is not None
    volume, reach = run.volume, outcome.reach
    if reach.empty:
        return
    frame = Frame(
        spacing_mm=volume.spacing_mm,
        middle_x=volume.shape[2] // 2 - reach.start[2],
        mask_of=lambda name: run.outcomes[name].mask_on_scan(reach),
    )
    tidy_labels(outcome.on_scan[reach.slices], stage.clean, frame=frame, fill=fill)


def _overlaid(outcomes: Sequence[Outcome], volume: Volume) -> Labels:
    """A later stage's foreground replaces what an earlier one said."""
    labels = empty_labels(volume)
    for outcome in outcomes:
        assert outcome.on_scan is not None
        own = outcome.on_scan[outcome.reach.slices]
        np.copyto(labels[outcome.reach.slices], own, where=own > 0)
    return labels
