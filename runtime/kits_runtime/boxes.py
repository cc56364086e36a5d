"""The boxes of one stage: asked about one after the other or, where they overlap, together.

Scores become labels while they stream by. Nets take turns with those of other scans here.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field

from kits_runtime.clock import Clock
from kits_runtime.decide import surely_of
from kits_runtime.grid import Box, Grid
from kits_runtime.infer import RunNet, Scores, Slab
from kits_runtime.join import any_overlap, joined
from kits_runtime.look import Kept
from kits_runtime.manifest.schema import Stage
from kits_runtime.memory import Memory
from kits_runtime.outcome import Outcome
from kits_runtime.place import BoxRun, LabelsOf, Place
from kits_runtime.volume import Volume
from kits_runtime.wayback import Sure

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Means:
    """What a run may use: a memory that the labels are to lie in, and how many processors.

    Without them new memory, and all processors that the process has. ``place`` makes the place
    where a scan is worked on, the host where there is none; nets get their patches and give their
    scores there. Runs that share a ``turn`` ask nets one at a time; a thread may have it twice, for
    boxes that are joined. Nets are asked from as many threads as ``at_once`` says by name, where it
    does not from one.
    """

    memory: Memory | None = None
    threads: int | None = None
    place: Callable[[Volume], Place] | None = None
    turn: "threading.RLock | None" = None
    at_once: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the stages of one run share."""

    volume: Volume
    place: Place
    nets: Mapping[str, RunNet]
    clock: Clock
    progress: Progress
    means: Means
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def fill_outcome(run: Run, stage: Stage, asked: Mapping[Box, Kept], outcome: Outcome) -> None:
    """Runs all boxes; whatever happens, none of them goes on afterwards."""
    total, done = sum(box.shape[0] for box in asked), 0

    def told(stream: Generator[Slab]) -> Generator[Slab]:
        nonlocal done
        with closing(stream):
            for slab in stream:
                yield slab
                done += slab.depth
                run.progress(stage.name, done / total)

    groups = [
        (box, told(_box_slabs(run, stage, (outcome.grid, box), kept)))
        for box, kept in asked.items()
    ]
    with ExitStack() as begun:
        for _, stream in groups:
            begun.enter_context(closing(stream))
        _write(run, stage, groups, outcome)


def _write(
    run: Run, stage: Stage, groups: Sequence[tuple[Box, Iterator[Slab]]], outcome: Outcome
) -> None:
    """Takes the scores of all boxes back; where some overlap they are joined on the way."""
    if any_overlap([box for box, _ in groups]):
        union_slabs = joined(stage, outcome.box, groups, run.place.arrays)
        groups = [(outcome.box, _timed(union_slabs, run.clock, f"{stage.name}.join"))]
    for box, stream in groups:
        on_scan = None
        if outcome.on_scan is not None:
            on_scan = outcome.labels_on_scan(outcome.grid.scan_box(box))
        labels = LabelsOf(
            grid=outcome.grid,
            box=box,
            decide=stage.decide,
            placed=outcome.placed[box.seen_from(outcome.box).slices],
            on_scan=on_scan,
            sure=_sure_of(stage, outcome, box),
        )
        back = run.place.way_back(labels)
        for slab in stream:
            with run.clock.phase(f"{stage.name}.way_back"):
                back.push(slab)


def _sure_of(stage: Stage, outcome: Outcome, box: Box) -> Sure | None:
    decide = surely_of(stage)
    if decide is None or outcome.sure is None:
        return None
    return Sure(decide=decide, placed=outcome.sure[box.seen_from(outcome.box).slices])


def _box_slabs(run: Run, stage: Stage, where: tuple[Grid, Box], kept: Kept) -> Generator[Slab]:
    clock = run.clock

    def in_turn(net: RunNet) -> RunNet:
        def ask(patches: Scores) -> Scores:
            with _own_turn(run.means.turn, clock), clock.phase(f"{stage.name}.net"):
                return net(patches)

        return ask

    nets, turn = [run.nets[name] for name in stage.nets], run.means.turn
    at_once = min(run.means.at_once.get(name, 1) for name in stage.nets)
    if at_once == 1:
        nets, turn = [in_turn(net) for net in nets], None
    box_run = BoxRun(
        stage=stage,
        grid=where[0],
        box=where[1],
        kept=kept,
        nets=nets,
        outcomes=run.outcomes,
        preparing=lambda: clock.phase(f"{stage.name}.steps"),
        at_once=at_once,
        waiting=lambda: clock.phase(f"{stage.name}.net"),
    )
    stream = run.place.slabs(box_run)
    with _own_turn(turn, clock):
        yield from _timed(stream, clock, f"{stage.name}.windows")


def _timed(stream: Iterator[Slab], clock: Clock, phase: str) -> Iterator[Slab]:
    while True:
        with clock.phase(phase):
            slab = next(stream, None)
        if slab is None:
            return
        yield slab


@contextmanager
def _own_turn(turn: "threading.RLock | None", clock: Clock) -> Iterator[None]:
    """Holds the turn, if there is one; waiting for it is a phase of its own."""
    if turn is None:
        yield
        return
    if not turn.acquire(blocking=False):
        with clock.phase("turn"):
            turn.acquire()
    try:
        yield
    finally:
        turn.release()
