"""The executor: one code path that runs any system's stages over a scan.

Each stage looks, prepares its regions, runs its windows and writes labels while the scores stream
by; what it found serves the stages after it, and the overlay of some of them is the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kits_runtime.boxes import Means, Progress, Run, fill_outcome
from kits_runtime.clock import Clock
from kits_runtime.decide import surely_of
from kits_runtime.grid import Box, bounding_box, box_of, grid_over
from kits_runtime.infer import RunNet
from kits_runtime.join import NOWHERE, union
from kits_runtime.look import asked_about, boxes_to_look_at
from kits_runtime.manifest.schema import MaskStep, Overlap, Resample, Stage
from kits_runtime.outcome import Outcome, zeros_stored_as
from kits_runtime.place import HostPlace, Place
from kits_runtime.steps import settled
from kits_runtime.tidy import Frame, Tidied, follow_on_scan, tidied, tidy_labels
from kits_runtime.volume import Volume, empty_labels

Labels = NDArray[np.uint8]
# What of the scan a stage's labels there must cover: all, its own box, or nobody needs them.
Room = Literal["whole", "box"] | None


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
    """The labels on the scan's (z, y, x) axes, each stage's outcome, and remarks.

    The labels lie in the memory of the overlay's first stage: where others lie over it, its outcome
    has none on the scan any more.
    """

    labels: Labels
    outcomes: Mapping[str, Outcome]
    remarks: tuple[str, ...]


def run_cascade(
    volume: Volume,
    manifest: Staged,
    *,
    nets: Mapping[str, RunNet],
    clock: Clock,
    progress: Progress = lambda _stage, _share: None,
    means: Means | None = None,
) -> CascadeResult:
    """Segments a scan, which is not changed.

    ``nets`` are the manifest's, by name; their later calls do not touch scores they gave before.
    """
    means = means or Means()
    if means.place is None:
        place: Place = HostPlace(volume=volume, threads=means.threads)
    else:
        with clock.phase("upload"):
            place = means.place(volume)
    run = Run(volume=volume, place=place, nets=nets, clock=clock, progress=progress, means=means)
    remarks = []
    wanted = stages_wanted_on_scan(manifest)
    for stage in manifest.stages:
        room: Room = None
        if stage.name in wanted:
            room = "whole" if stage.name == manifest.overlay[0] else "box"
        outcome, looked = _run_stage(run, stage, room=room)
        run.outcomes[stage.name] = outcome
        if not looked:
            remarks.append(f"stage {stage.name!r} had nowhere to look")
    with clock.phase("overlay"):
        labels = _overlaid(run.outcomes, manifest.overlay)
    return CascadeResult(labels=labels, outcomes=run.outcomes, remarks=tuple(remarks))


def stages_wanted_on_scan(manifest: Staged) -> set[str]:
    """The stages whose labels are needed on the scan's grid; others never leave the model's."""
    wanted = set(manifest.overlay)
    for stage in manifest.stages:
        if stage.clean_on == "scan":
            wanted.add(stage.name)
            wanted.update(item.of for item in stage.clean if isinstance(item, Overlap))
        masks = (step for step in stage.steps if isinstance(step, MaskStep))
        wanted.update(step.of for step in masks)
    return wanted


def _run_stage(run: Run, stage: Stage, *, room: Room) -> tuple[Outcome, bool]:
    volume = run.volume
    stage = replace(stage, steps=settled(stage.steps, volume, run.outcomes))
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
        asked = asked_about(boxes, stage, grid, run.outcomes)
    whole = union(tuple(asked))
    window = box_of(volume.shape) if room == "whole" else grid.scan_box(whole)
    outcome = Outcome(
        grid=grid,
        box=whole,
        placed=np.zeros(whole.shape, np.uint8),
        on_scan=_room_on_scan(run, window, room),
        window=window,
        reach=NOWHERE,
        sure=np.zeros(whole.shape, np.uint8) if surely_of(stage) else None,
    )
    if asked:
        fill_outcome(run, stage, asked, outcome)
        outcome = _with_reach(outcome)
        with run.clock.phase(f"{stage.name}.clean"):
            outcome = _cleaned(run, stage, outcome)
    return outcome, bool(asked)


def _room_on_scan(run: Run, window: Box, room: Room) -> Labels | None:
    if room is None:
        return None
    if room == "whole":
        return empty_labels(run.volume, memory=run.means.memory)
    return zeros_stored_as(run.volume.data, window.shape, np.uint8)


def _with_reach(outcome: Outcome) -> Outcome:
    """The outcome with the scan voxels that are interpolated from foreground, one voxel more."""
    found = bounding_box(outcome.placed)
    if found is None:
        return replace(outcome, reach=NOWHERE)
    wide = found.moved_by(outcome.box.start).wider_by(1).within(outcome.box)
    return replace(outcome, reach=outcome.grid.scan_box(wide))


def _cleaned(run: Run, stage: Stage, outcome: Outcome) -> Outcome:
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
        sure=outcome.sure,
    )
    before = outcome.placed > 0
    after = tidied(before, stage.clean, frame)
    if outcome.on_scan is not None:
        change = Tidied(grid=grid, box=box, before=before, after=after, fill=fill)
        follow_on_scan(outcome.labels_on_scan(grid.scan_box(box)), change)
    cleaned = replace(outcome, placed=_with_foreground(outcome.placed, after, fill))
    return _with_reach(cleaned)


def _with_foreground(placed: Labels, mask: NDArray[np.bool_], fill: int) -> Labels:
    """Labels whose foreground is ``mask``: what was labelled stays so, the rest is ``fill``."""
    return np.where(mask, np.where(placed > 0, placed, fill), 0).astype(np.uint8)


def _clean_scan(run: Run, stage: Stage, outcome: Outcome, *, fill: int) -> None:
    """Cleans the scan's labels in place, inside the box that holds all of them."""
    volume, reach = run.volume, outcome.reach
    if reach.empty:
        return
    frame = Frame(
        spacing_mm=volume.spacing_mm,
        middle_x=volume.shape[2] // 2 - reach.start[2],
        mask_of=lambda name: run.outcomes[name].mask_on_scan(reach),
    )
    tidy_labels(outcome.labels_on_scan(reach), stage.clean, frame=frame, fill=fill)


def _overlaid(outcomes: dict[str, Outcome], names: Sequence[str]) -> Labels:
    """The first stage's labels, written over in place by each later one's foreground."""
    first, *others = names
    labels = outcomes[first].on_scan
    assert labels is not None
    for name in others:
        own = outcomes[name].labels_on_scan(outcomes[name].reach)
        under = labels[outcomes[name].reach.slices]
        # A tenth of the time of a copy where a mask says so: bytes, many at once.
        under *= own == 0
        under |= own
    if others:
        outcomes[first] = replace(outcomes[first], on_scan=None)
    return labels
