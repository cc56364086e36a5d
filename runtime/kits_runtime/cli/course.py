"""How far a run of cases is, and how long the rest of it will take."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

from kits_runtime.cohort import READING, WRITING
from kits_runtime.pipeline import Job

# Of a case nobody has seen end yet: reading and writing beside one stage of nets.
_FILE_WORK = 0.1


class Course:
    """Follows the cases of a run through their stages.

    A stage counts for as much of a case as it took of the time of those that ended; before the
    first has ended, all stages of nets count the same.
    """

    def __init__(
        self, *, cases: int, stages: Sequence[str], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._cases = cases
        self._order = (READING, *stages, WRITING)
        self._spent_ms = dict.fromkeys(self._order, 0.0)
        self._now = now
        self._begun = now()
        self._under_way: dict[Job, tuple[str, float]] = {}
        self._ended = 0
        self._computed = 0
        self._nets_ran = False

    def at(self, job: Job, stage: str, share: float) -> None:
        """A case is in a stage, of which a share is done."""
        self._under_way[job] = (stage, share)
        self._nets_ran |= stage not in (READING, WRITING) and share > 0

    def ended(self, job: Job, stage_ms: Mapping[str, float] | None) -> None:
        """A case ended; with what its stages took, unless it was skipped or failed."""
        self._under_way.pop(job, None)
        self._ended += 1
        if stage_ms is not None:
            self._computed += 1
            for name, spent_ms in stage_ms.items():
                self._spent_ms[self._stage_of(name)] += spent_ms

    def shown(self) -> tuple[Job, str, float] | None:
        """The case to tell of: the one in the nets, else one being read, else one being written."""
        in_order = sorted(self._under_way.items(), key=lambda item: self._rank(item[1][0]))
        return next(((job, stage, share) for job, (stage, share) in in_order), None)

    @property
    def share(self) -> float:
        """How much of the whole run is done, 0 to 1."""
        return min(1.0, (self._ended + self._on_the_way()) / self._cases)

    def seconds_left(self) -> float | None:
        """How long the rest will take at the pace so far; None before a net has run.

        Skipped and failed cases say nothing about the pace.
        """
        done = self._computed + self._on_the_way()
        if not self._nets_ran or done <= 0:
            return None
        rest = self._cases - self._ended - self._on_the_way()
        return max(0.0, (self._now() - self._begun) / done * rest)

    def _on_the_way(self) -> float:
        """The cases under way, each by how much of it is done."""
        weights = self._weights()
        return math.fsum(
            sum(weights[: self._order.index(stage)]) + weights[self._order.index(stage)] * share
            for stage, share in self._under_way.values()
        )

    def _weights(self) -> list[float]:
        """How much of a case each stage is, in order."""
        found = list(self._spent_ms.values())
        if not any(found):
            found = [_FILE_WORK, *[1.0] * (len(found) - 2), _FILE_WORK]
        return [value / sum(found) for value in found]

    def _stage_of(self, phase: str) -> str:
        """The stage that a phase of a record belongs to; what follows the nets is writing."""
        if phase == "read":
            return READING
        stage = phase.partition(".")[0]
        return stage if stage in self._spent_ms else WRITING

    def _rank(self, stage: str) -> int:
        return {READING: 1, WRITING: 2}.get(stage, 0)
