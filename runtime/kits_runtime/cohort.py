"""Many cases, with all else beside the nets: four threads and two short queues.

Scans are read in one thread, segmented in the caller's and in another, and written in a fourth. The
nets of the two that are segmented take turns, so that one scan is prepared and cleaned while the
nets have the other. No more than three cases are on their way at once, so memory does not grow with
their number. A case that fails is reported and the rest go on.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from kits_runtime.errors import KitsError
from kits_runtime.memory import Memory
from kits_runtime.pipeline import (
    CaseRecord,
    Job,
    ReadCase,
    SegmentedCase,
    read_case,
    segment_case,
    write_case,
)
from kits_runtime.segmenter import Segmenter

logger = logging.getLogger(__name__)

T = TypeVar("T")

Progress = Callable[[Job, str, float], None]

# The stages of a case around those of its manifest.
READING = "reading"
WRITING = "writing"

_POLL_S = 0.1
_CASES_ON_THEIR_WAY = 3
_SEGMENTING = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaseOutcome:
    """How one case ended: its record, the error that stopped it, or neither: it was skipped."""

    job: Job
    record: CaseRecord | None = None
    error: Exception | None = None


class _Stopped(Exception):  # noqa: N818 - control flow between threads, never shown
    """The run ends before all cases are done."""


class _Belt(Generic[T]):
    """A queue of one whose ends give up when the run stops."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=1)
        self._stop = stop

    def put(self, item: T) -> None:
        self._put(item)

    def end(self) -> None:
        """Says that nothing more will come."""
        self._put(None)

    def _put(self, item: T | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _Stopped

    def take(self) -> T | None:
        """The next item, of which nothing is kept here; None when all were taken."""
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise _Stopped


def run_cohort(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    *,
    progress: Progress,
    finished: Callable[[CaseOutcome], None],
    is_done: Callable[[Job], bool] = lambda _: False,
) -> tuple[CaseOutcome, ...]:
    """Segments all cases; ``finished`` is told of each as it ends, from whichever thread ends it.

    Cases for which ``is_done`` says yes are skipped; it is asked just before a scan would be read.
    ``progress`` is told a case's stage and its share, also of ``READING`` and ``WRITING``, from
    whichever thread is at it.

    An exception that is no case's own, an interrupt above all, ends the run: the case being written
    is finished, the others leave nothing.
    """
    run = _Run(segmenter, finished, progress)
    workers = [
        _Worker(lambda: run.read_all(jobs, is_done), run.stop),
        _Worker(run.segment_all, run.stop),
        _Worker(run.write_all, run.stop),
    ]
    try:
        for worker in workers:
            worker.start()
        run.segment_all()
    except _Stopped:
        pass
    except BaseException:
        run.stop.set()
        raise
    finally:
        for worker in workers:
            worker.wait()
    for worker in workers:
        worker.raise_own()
    return tuple(run.outcomes[job] for job in jobs)


class _Run:
    """What the threads of one run share."""

    def __init__(
        self,
        segmenter: Segmenter,
        finished: Callable[[CaseOutcome], None],
        progress: Progress,
    ) -> None:
        self.stop = threading.Event()
        self.outcomes: dict[Job, CaseOutcome] = {}
        self._segmenter = segmenter
        self._memory = Memory()
        self._finished = finished
        self._progress = progress
        self._telling = threading.Lock()
        self._room = threading.Semaphore(_CASES_ON_THEIR_WAY)
        self._segmenting = _SEGMENTING
        self._scans: _Belt[ReadCase] = _Belt(self.stop)
        self._masks: _Belt[SegmentedCase] = _Belt(self.stop)

    def read_all(self, jobs: Sequence[Job], is_done: Callable[[Job], bool]) -> None:
        for job in jobs:
            self._wait_for_room()
            if is_done(job):
                self._end(CaseOutcome(job=job))
                continue
            self._progress(job, READING, 0.0)
            read = _tried(job, partial(self._read, job))
            if isinstance(read, CaseOutcome):
                self._end(read)
            else:
                self._progress(job, READING, 1.0)
                self._scans.put(read)
            del read
        self._scans.end()

    def _read(self, job: Job) -> ReadCase:
        return read_case(job, memory=self._memory, upload=self._segmenter.begin_upload())

    def segment_all(self) -> None:
        while (read := self._scans.take()) is not None:
            case = _tried(read.job, partial(self._segmented, read))
            del read
            if isinstance(case, CaseOutcome):
                self._end(case)
            else:
                self._masks.put(case)
            del case
        with self._telling:
            self._segmenting -= 1
            is_last = self._segmenting == 0
        (self._masks if is_last else self._scans).end()

    def write_all(self) -> None:
        names = self._segmenter.bundle.manifest.labels
        while (case := self._masks.take()) is not None:
            job = case.read.job
            self._progress(job, WRITING, 0.0)
            record = _tried(job, partial(write_case, case, names))
            del case  # before there is room for the next
            if isinstance(record, CaseOutcome):
                self._end(record)
            else:
                self._end(CaseOutcome(job=job, record=record))

    def _segmented(self, read: ReadCase) -> SegmentedCase:
        def told(stage: str, share: float) -> None:
            if self.stop.is_set():
                raise _Stopped
            self._progress(read.job, stage, share)

        return segment_case(self._segmenter, read, progress=told)

    def _end(self, outcome: CaseOutcome) -> None:
        with self._telling:
            self.outcomes[outcome.job] = outcome
            self._finished(outcome)
        self._room.release()

    def _wait_for_room(self) -> None:
        while not self._room.acquire(timeout=_POLL_S):
            if self.stop.is_set():
                raise _Stopped


def _tried(job: Job, part: Callable[[], T]) -> T | CaseOutcome:
    """What a part of a case gives, or how the case ended where it fails."""
    try:
        return part()
    except (KitsError, MemoryError, OSError) as error:
        logger.debug("%s failed", job.case.name, exc_info=True)
        _forget_frames(error)
        return CaseOutcome(job=job, error=error)


def _forget_frames(error: BaseException | None) -> None:
    """Drops the tracebacks of an error and its causes: their frames hold a whole scan."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


class _Worker(threading.Thread):
    """A thread whose unexpected error stops the run and is raised in the caller's."""

    def __init__(self, work: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._stop_all = stop
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except _Stopped:
            pass
        except BaseException as error:
            self._error = error
            self._stop_all.set()

    def wait(self) -> None:
        """Waits for the thread's end, if it ever began."""
        if self.ident is not None:
            self.join()

    def raise_own(self) -> None:
        """Raises what ended the thread, if anything unexpected did."""
        if self._error is not None:
            raise self._error
