"""Where a scan is worked on: what the executor asks of that place, and the host as one.

A place holds one scan. It prepares a box and gives its scores slab by slab, and it takes slabs back
to the labels' grids; a device does both without the host (``device.place``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kits_runtime.ahead import Waiting
from kits_runtime.arrays import HOST, Arrays
from kits_runtime.grid import Box, Grid
from kits_runtime.infer import RunNet, Slab, WindowedInput, slabs
from kits_runtime.look import Kept
from kits_runtime.manifest.schema import Decide, Stage
from kits_runtime.outcome import Outcome
from kits_runtime.steps import applied, scanned_region
from kits_runtime.volume import Volume
from kits_runtime.wayback import Labels, Sure, WayBack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxRun:
    """A box of a stage's grid that nets are to be asked about.

    ``kept`` are its slices that 2.5D windows ask about, None for all. ``preparing`` makes contexts
    in which the time is that of the steps. ``at_once`` and ``waiting`` are those of
    ``WindowedInput``.
    """

    stage: Stage
    grid: Grid
    box: Box
    kept: Kept
    nets: Sequence[RunNet]
    outcomes: Mapping[str, Outcome]
    preparing: Waiting
    at_once: int = 1
    waiting: Waiting = nullcontext


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelsOf:
    """The labels that slabs of a box become: on its grid, and on the scan's where they are needed.

    Both are written in place; ``on_scan`` has the scan's voxels in the box. So is ``sure``, on the
    box's grid by a decision of its own.
    """

    grid: Grid
    box: Box
    decide: Decide
    placed: Labels
    on_scan: Labels | None
    sure: Sure | None = None


class TakesSlabs(Protocol):
    """What slabs are pushed into."""

    def push(self, slab: Slab) -> None:
        """Takes the next slab."""
        ...


class Place(Protocol):
    """What the executor asks of the place where a scan is."""

    @property
    def arrays(self) -> Arrays:
        """Where slabs lie."""
        ...

    def slabs(self, run: BoxRun) -> Iterator[Slab]:
        """The scores of a box, from its first slice to its last; what must come first is done."""
        ...

    def way_back(self, labels: LabelsOf) -> TakesSlabs:
        """Takes a box's slabs and writes its labels."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostPlace:
    """The host, which prepares a box as a whole; without ``threads`` it uses all processors."""

    volume: Volume
    threads: int | None
    arrays: Arrays = HOST

    def slabs(self, run: BoxRun) -> Iterator[Slab]:
        """See ``Place``."""
        with run.preparing():
            cut = scanned_region(self.volume, run.grid, run.box, threads=self.threads)
            region = applied(cut, run.stage.steps, run.outcomes)
            values = region.values.astype(np.float32, copy=False)
        given = WindowedInput(
            values=values,
            air=region.air,
            kept=run.kept,
            at_once=run.at_once,
            waiting=run.waiting,
        )
        return slabs(given, run.stage, run.nets)

    def way_back(self, labels: LabelsOf) -> WayBack:
        """See ``Place``."""
        return WayBack(
            labels.grid,
            labels.box,
            decide=labels.decide,
            placed=labels.placed,
            on_scan=labels.on_scan,
            sure=labels.sure,
        )
