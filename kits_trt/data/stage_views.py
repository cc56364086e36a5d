"""What the pieces of a stage depend on: the stage, and the truth about those before it."""

from dataclasses import dataclass, replace

import numpy as np

from kits_runtime.grid import Box, bounding_box, box_of, grid_over
from kits_runtime.manifest.rules import references
from kits_runtime.manifest.schema import ClipMeanSigma, Resample, Scale, Stage, Step, ZScore
from kits_runtime.outcome import Outcome
from kits_runtime.resample import nearest_index
from kits_runtime.volume import Volume
from kits_trt.data.stage_pieces import Labels
from kits_trt.systems.system import System

_NOWHERE = Box((0, 0, 0), (0, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An earlier stage that a stage refers to, and the labels that make its true foreground."""

    name: str
    resample: Resample | None
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """A stage and those before it that it refers to."""

    stage: Stage
    earlier: tuple[Earlier, ...]

    @property
    def cached_steps(self) -> tuple[Step, ...]:
        """The steps up to the resample step; none where there is no such step."""
        steps = self.stage.steps
        return steps[: next((i + 1 for i, s in enumerate(steps) if isinstance(s, Resample)), 0)]

    @property
    def steps_left(self) -> tuple[Step, ...]:
        """The steps after those that are cached."""
        return self.stage.steps[len(self.cached_steps) :]


def stage_view(system: System, net: str) -> StageView:
    """What the pieces that a net is taught with depend on.

    Raises:
        ValueError: The stage leaves HU before it resamples, so that nothing could be augmented, or
            no recipe says what the foreground of an earlier stage is.
    """
    name = system.recipes[net].stage
    stage = next(stage for stage in system.stages if stage.name == name)
    names = {of for _, of in references(replace(stage, clean=()))}
    earlier = tuple(_earlier(system, other) for other in system.stages if other.name in names)
    view = StageView(stage=stage, earlier=earlier)
    if any(isinstance(step, Scale | ZScore | ClipMeanSigma) for step in view.cached_steps):
        raise ValueError(f"{name}: found a step that leaves HU before the resample step")
    return view


def resample_of(stage: Stage) -> Resample | None:
    """The resample step of a stage, if it has one."""
    return next((step for step in stage.steps if isinstance(step, Resample)), None)


def true_outcome(earlier: Earlier, volume: Volume, labels: Labels) -> Outcome:
    """The outcome of an earlier stage that made no mistake; ``labels`` lie on the scan's grid."""
    grid = grid_over(volume.shape, volume.spacing_mm, earlier.resample)
    on_scan = np.isin(labels, earlier.labels).astype(np.uint8)
    box = box_of(grid.shape)
    return Outcome(
        grid=grid,
        box=box,
        placed=on_scan[nearest_index(grid.shape, grid.scan_shape, box)],
        on_scan=on_scan,
        reach=bounding_box(on_scan) or _NOWHERE,
    )


def _earlier(system: System, stage: Stage) -> Earlier:
    recipes = (recipe for recipe in system.recipes.values() if recipe.stage == stage.name)
    recipe = next(recipes, None)
    if recipe is None:
        raise ValueError(f"{system.name}: found no recipe for {stage.name!r}, whose mask is needed")
    labels = tuple(sorted(label for label, told in recipe.target.items() if told > 0))
    return Earlier(name=stage.name, resample=resample_of(stage), labels=labels)
