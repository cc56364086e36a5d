"""Many cases, with reading and writing beside the nets: three threads and two short queues.

Scans are read in one thread, segmented in the caller's and written in a third. Each queue holds one
case, so memory does not grow with their number. A case that fails is reported and the rest go on.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kits_runtime.errors import KitsError
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

T = TypeVar("T")

Progress = Callable[[Job, str, float], None]

_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaseOutcome:
    """How one case ended: its record, or the error that stopped it."""

    job: Job
    record: CaseRecord | None
    error: Exception | None


class _Stopped(Exception):  # noqa: N818 - control flow between threads, never shown
    """The run ends before all cases are done."""


class _Belt(Generic[T]):
    """A queue of one whose ends give up when the run stops."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=1)
        self._stop = stop

    def put(self, item: T | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return
        raise _Stopped

    def items(self) -> Iterator[T]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
        raise _Stopped


def run_cohort(
    segmenter: Segmenter,
    jobs: Sequence[Job],
    *,
    progress: Progress,
    finished: Callable[[CaseOutcome], None],
) -> tuple[CaseOutcome, ...]:
    """Segments all cases; ``finished`` is told of each as it ends, from whichever thread ends it.

    An exception that is no case's own, an interrupt above all, ends the run: the case being written
    is finished, the others leave nothing.
    """
    stop = threading.Event()
    scans: _Belt[ReadCase] = _Belt(stop)
    masks: _Belt[SegmentedCase] = _Belt(stop)
    outcomes: list[CaseOutcome] = []
    telling = threading.Lock()

    def end(job: Job, *, record: CaseRecord | None = None, error: Exception | None = None) -> None:
        outcome = CaseOutcome(job=job, record=record, error=error)
        with telling:
            outcomes.append(outcome)
            finished(outcome)

    def read_all() -> None:
        for job in jobs:
            try:
                read = read_case(job)
            except (KitsError, MemoryError, OSError) as error:
                end(job, error=error)
            else:
                scans.put(read)
                del read
        scans.put(None)

    def write_all() -> None:
        names = segmenter.bundle.manifest.labels
        for case in masks.items():
            try:
                record = write_case(case, names)
            except (KitsError, MemoryError, OSError) as error:
                end(case.read.job, error=error)
            else:
                end(case.read.job, record=record)
            del case

    threads = _started(stop, read_all, write_all)
    try:
        for read in scans.items():
            job = read.job
            try:
                case = segment_case(
                    segmenter, read, progress=lambda stage, share: progress(job, stage, share)
                )
            except (KitsError, MemoryError) as error:
                end(job, error=error)
            else:
                masks.put(case)
                del case
            del read
        masks.put(None)
    except _Stopped:
        pass
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join()
    for thread in threads:
        thread.raise_own()
    order = {job: index for index, job in enumerate(jobs)}
    return tuple(sorted(outcomes, key=lambda outcome: order[outcome.job]))


class _Worker(threading.Thread):
    """A thread whose unexpected error stops the run and is raised in the caller's."""

    def __init__(self, work: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(name=work.__name__, daemon=True)
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

    def raise_own(self) -> None:
        """Raises what ended the thread, if anything unexpected did."""
        if self._error is not None:
            raise self._error


def _started(stop: threading.Event, *works: Callable[[], None]) -> tuple[_Worker, ...]:
    workers = tuple(_Worker(work, stop) for work in works)
    for worker in workers:
        worker.start()
    return workers
