import gc
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from bundles import phantom, write_scan

from kits_runtime import EngineOptions, KitsError, ScanError, Segmenter
from kits_runtime import cohort as cohort_module
from kits_runtime import pipeline as pipeline_module
from kits_runtime.cases import Case
from kits_runtime.cohort import CaseOutcome, run_cohort
from kits_runtime.engines.ort_cpu import OrtCpuEngine
from kits_runtime.pipeline import Job, job_for

MOST_SCANS = 3


@pytest.fixture(scope="module")
def segmenter(one_stage: Path) -> Iterator[Segmenter]:
    options = EngineOptions(threads=1)
    with Segmenter.from_bundle(one_stage, backend="ort-cpu", options=options) as opened:
        yield opened


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for side in ("right", "left"):
        write_scan(folder / f"{side}.nii", phantom(tumour_on=side))  # type: ignore[arg-type]
    return folder


def jobs_in(scans: Path, out: Path, count: int) -> list[Job]:
    """As many cases; the tumour is on the right in those with an even number."""
    out.mkdir(exist_ok=True)
    sides = ("right", "left")
    cases = [Case(name=f"case_{i}", scan=scans / f"{sides[i % 2]}.nii") for i in range(count)]
    return [job_for(case, out, with_picture=False) for case in cases]


def run(segmenter: Segmenter, jobs: list[Job], **more: Any) -> tuple[CaseOutcome, ...]:
    more.setdefault("finished", lambda _: None)
    return run_cohort(segmenter, jobs, progress=lambda *_: None, **more)


def labels_in(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


class Watch:
    """Counts the scans that are in memory."""

    def __init__(self) -> None:
        self.live = 0
        self.most = 0
        self._turn = threading.Lock()

    def add(self, scan: Any) -> None:
        voxels = scan.volume.data
        while isinstance(voxels.base, np.ndarray):
            voxels = voxels.base
        with self._turn:
            self.live += 1
            self.most = max(self.most, self.live)
        weakref.finalize(voxels, self._gone)

    def _gone(self) -> None:
        with self._turn:
            self.live -= 1


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    counting, read_scan = Watch(), pipeline_module.read_scan

    def counted(path: Path, **options: Any) -> Any:
        scan = read_scan(path, **options)
        counting.add(scan)
        return scan

    monkeypatch.setattr(pipeline_module, "read_scan", counted)
    gc.collect()
    return counting


def test_every_case_gets_its_own_mask_and_outcomes_keep_the_order(
    segmenter: Segmenter, scans: Path, tmp_path: Path
) -> None:
    jobs = jobs_in(scans, tmp_path, 6)
    told: list[str] = []
    outcomes = run(segmenter, jobs, finished=lambda outcome: told.append(outcome.job.case.name))
    assert [outcome.job for outcome in outcomes] == jobs
    assert sorted(told) == sorted(job.case.name for job in jobs)
    for index, outcome in enumerate(outcomes):
        side = "left" if index % 2 else "right"
        np.testing.assert_array_equal(
            labels_in(outcome.job.mask),
            phantom(tumour_on=side).labels,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize("slow", ["write_case", "segment_case", "read_case"])
def test_no_more_than_three_scans_are_in_memory_whatever_is_slow(
    segmenter: Segmenter,
    scans: Path,
    tmp_path: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
) -> None:
    part = getattr(cohort_module, slow)

    def slowly(*args: Any, **more: Any) -> Any:
        time.sleep(0.02)
        return part(*args, **more)

    monkeypatch.setattr(cohort_module, slow, slowly)
    outcomes = run(segmenter, jobs_in(scans, tmp_path, 12))
    assert all(outcome.record is not None for outcome in outcomes)
    assert 1 <= watch.most <= MOST_SCANS
    if slow != "read_case":
        assert watch.most == MOST_SCANS  # reading goes on beside the slow part
    assert watch.live == 0


@pytest.mark.parametrize("part", ["segment_case", "write_case"])
def test_cases_that_fail_leave_nothing_in_memory(
    segmenter: Segmenter,
    scans: Path,
    tmp_path: Path,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    def fail(*args: Any, **_more: Any) -> None:
        held = args  # what a real failure holds in its frames
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise KitsError(f"found {error} after {len(held)} arguments") from error

    monkeypatch.setattr(cohort_module, part, fail)
    outcomes = run(segmenter, jobs_in(scans, tmp_path, 6))
    assert all("No space left" in str(outcome.error) for outcome in outcomes)
    assert watch.most <= MOST_SCANS
    assert watch.live == 0


@pytest.mark.parametrize("part", ["read_case", "segment_case", "write_case"])
@pytest.mark.parametrize(
    "error", [ScanError("a bad scan"), OSError(5, "Input/output error"), MemoryError()]
)
def test_an_error_in_any_part_is_that_cases_own(
    segmenter: Segmenter,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: Exception,
) -> None:
    real = getattr(cohort_module, part)

    def sometimes(*args: Any, **more: Any) -> Any:
        job = next(
            getattr(each, "job", None) or getattr(getattr(each, "read", None), "job", None) or each
            for each in args
            if not isinstance(each, Segmenter)
        )
        if job.case.name == "case_1":
            raise error
        return real(*args, **more)

    monkeypatch.setattr(cohort_module, part, sometimes)
    outcomes = run(segmenter, jobs_in(scans, tmp_path, 4))
    assert [outcome.error for outcome in outcomes] == [None, error, None, None]
    assert [outcome.record is None for outcome in outcomes] == [False, True, False, False]


@pytest.mark.parametrize("part", ["read_case", "segment_case", "write_case"])
def test_an_unexpected_error_in_any_thread_ends_the_run_and_is_raised(
    segmenter: Segmenter,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    calls = []

    def broken(*_args: Any, **_more: Any) -> None:
        calls.append(part)
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr(cohort_module, part, broken)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        run(segmenter, jobs_in(scans, tmp_path, 6))
    assert 1 <= len(calls) <= 2  # two cases are segmented at once
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_the_run_and_what_was_finished_stays(
    segmenter: Segmenter, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ended = cohort_module.segment_case, []

    def interrupted(segmenter: Segmenter, read: Any, **more: Any) -> Any:
        if read.job.case.name == "case_3":
            raise KeyboardInterrupt
        return real(segmenter, read, **more)

    monkeypatch.setattr(cohort_module, "segment_case", interrupted)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(segmenter, jobs_in(scans, tmp_path, 8), finished=ended.append)
    assert threading.active_count() == before
    names = {outcome.job.case.name for outcome in ended}
    assert names <= {"case_0", "case_1", "case_2"}
    expected = {f"{name}{end}" for name in names for end in (".nii.gz", ".json")}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_what_is_done_is_neither_read_nor_written(
    segmenter: Segmenter, scans: Path, tmp_path: Path, watch: Watch
) -> None:
    jobs = jobs_in(scans, tmp_path, 5)
    outcomes = run(segmenter, jobs, is_done=lambda job: job.case.name != "case_2")
    done = [outcome.record is None and outcome.error is None for outcome in outcomes]
    assert done == [True, True, False, True, True]
    assert watch.most == 1
    assert {path.name for path in tmp_path.iterdir()} == {"case_2.nii.gz", "case_2.json"}


def test_two_cases_are_segmented_at_once(
    segmenter: Segmenter, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, pair = cohort_module.segment_case, threading.Barrier(2)

    def beside_another(*args: Any, **more: Any) -> Any:
        pair.wait(timeout=60)
        return real(*args, **more)

    monkeypatch.setattr(cohort_module, "segment_case", beside_another)
    outcomes = run(segmenter, jobs_in(scans, tmp_path, 6))
    assert all(outcome.record is not None for outcome in outcomes)


def test_nets_take_turns(
    segmenter: Segmenter, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asking, most = OrtCpuEngine.run, [], []

    def counted(engine: OrtCpuEngine, patches: Any) -> Any:
        asking.append(engine)
        most.append(len(asking))
        time.sleep(0.01)
        try:
            return real(engine, patches)
        finally:
            asking.pop()

    monkeypatch.setattr(OrtCpuEngine, "run", counted)
    outcomes = run(segmenter, jobs_in(scans, tmp_path, 6))
    assert max(most) == 1
    waits = [outcome.record.run.stage_ms.get("turn", 0) for outcome in outcomes if outcome.record]
    assert max(waits) > 5  # a case waited while the net had another


def test_no_case_is_no_work(segmenter: Segmenter) -> None:
    assert run(segmenter, []) == ()
