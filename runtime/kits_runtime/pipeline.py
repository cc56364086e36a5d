"""One case in three parts that may run beside each other: read, segment, write."""

import dataclasses
import errno
import hashlib
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kits_runtime.cases import Case
from kits_runtime.clock import Clock
from kits_runtime.device.upload import Upload
from kits_runtime.errors import UsageError
from kits_runtime.files import replacing
from kits_runtime.memory import Memory
from kits_runtime.nifti import Scan, read_scan, write_labels
from kits_runtime.png import write_png
from kits_runtime.preview import preview
from kits_runtime.qc import quality_warnings
from kits_runtime.record import RunRecord, versions
from kits_runtime.segmenter import Progress, Segmentation, Segmenter
from kits_runtime.statistics import ClassStatistics, class_statistics

_HASHED_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A case and the files it leaves; the record is written last and says that all is there."""

    case: Case
    mask: Path
    record: Path
    picture: Path | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadCase:
    """A job whose scan has been read; ``upload`` may have taken it to a GPU meanwhile."""

    job: Job
    scan: Scan
    sha256: str
    read_ms: float
    upload: Upload | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentedCase:
    """A job whose labels are known but not yet written."""

    read: ReadCase
    result: Segmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRecord:
    """What a finished case tells; its JSON form lies beside the mask."""

    case: str
    scan: str
    scan_sha256: str
    mask_sha256: str
    statistics: Mapping[str, ClassStatistics]
    run: RunRecord

    def to_plain(self) -> dict[str, object]:
        """The record as JSON takes it."""
        return {
            "case": self.case,
            "scan": self.scan,
            "scan_sha256": self.scan_sha256,
            "mask_sha256": self.mask_sha256,
            **self.run.to_plain(),
            "statistics": {
                name: {key: _rounded(value) for key, value in dataclasses.asdict(facts).items()}
                for name, facts in self.statistics.items()
            },
        }


def job_for(case: Case, folder: Path, *, with_picture: bool) -> Job:
    """Where a case's results go.

    Raises:
        UsageError: the mask would replace the scan that it is made from.
    """
    mask = folder / f"{case.name}.nii.gz"
    if mask.resolve() == case.scan.resolve():
        raise UsageError(
            f"{case.scan}: the mask would replace the scan, expected another output folder than "
            f"{folder}. Choose one with -o."
        )
    picture = folder / f"{case.name}.png" if with_picture else None
    return Job(case=case, mask=mask, record=folder / f"{case.name}.json", picture=picture)


def read_case(job: Job, *, memory: Memory | None = None, upload: Upload | None = None) -> ReadCase:
    """Reads a job's scan; its hash is taken beside that, by another processor.

    With a ``memory`` the scan's voxels lie there; an ``upload`` follows while they come.

    Raises:
        ScanError: the scan cannot be read.
    """
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        sha256 = beside.submit(file_sha256, job.case.scan)
        follow = None if upload is None else upload.follow
        scan = read_scan(job.case.scan, memory=memory, follow=follow)
    return ReadCase(
        job=job, scan=scan, sha256=sha256.result(), read_ms=_since(start), upload=upload
    )


def segment_case(
    segmenter: Segmenter, read: ReadCase, *, progress: Progress | None = None
) -> SegmentedCase:
    """Segments a scan that has been read; a GPU's memory for it is given back."""
    try:
        result = segmenter.segment(read.scan.volume, progress=progress, upload=read.upload)
    finally:
        if read.upload is not None:
            read.upload.close()
    return SegmentedCase(read=read, result=result)


def write_case(case: SegmentedCase, names: tuple[str, ...]) -> CaseRecord:
    """Writes mask, picture and record; ``names`` are the labels' names by value.

    All of them are there at the end. After an error none is, not even of an earlier run: a mask
    without its record would pass for a result.

    Raises:
        KitsError: a file cannot be written.
    """
    job, clock = case.read.job, Clock()
    with clock.phase("statistics"):
        statistics = _statistics(case, names)
    with clock.phase("quality"):
        remarks = _remarks(case, statistics)
    try:
        _withdraw_record(job)
        with clock.phase("write"):
            write_labels(job.mask, case.result.model_labels, like=case.read.scan)
            mask_sha256 = file_sha256(job.mask)
        if job.picture is not None:
            with clock.phase("preview"), replacing(job.picture) as stream:
                write_png(stream, _picture(case, names))
        record = CaseRecord(
            case=job.case.name,
            scan=str(job.case.scan),
            scan_sha256=case.read.sha256,
            mask_sha256=mask_sha256,
            statistics=statistics,
            run=_whole_run(case, clock, remarks),
        )
        with replacing(job.record) as stream:
            stream.write((json.dumps(record.to_plain(), indent=1) + "\n").encode())
    except BaseException:
        for path in (job.record, job.mask, job.picture):
            if path is not None:
                path.unlink(missing_ok=True)
        raise
    return record


def is_up_to_date(job: Job, segmenter: Segmenter) -> bool:
    """Whether a job's files are there, whole, and what this segmenter would make of the scan.

    The record must tell of the same scan, bundle, backend, precision and mask, all by content.
    """
    try:
        if job.picture is not None and not job.picture.is_file():
            return False
        told = json.loads(job.record.read_bytes())
        found = (
            told["scan_sha256"],
            told["mask_sha256"],
            told["bundle"]["sha256"],
            told["backend"]["name"],
            told["backend"]["precision"],
            told["versions"]["kits-trt"],
        )
        backend = segmenter.backend
        return found == (
            file_sha256(job.case.scan),
            file_sha256(job.mask),
            segmenter.bundle.sha256,
            backend.name,
            backend.precision,
            versions()["kits-trt"],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False  # whatever lies there, it is no record of ours


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe might never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "no regular file", str(path))
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASHED_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _statistics(case: SegmentedCase, names: tuple[str, ...]) -> dict[str, ClassStatistics]:
    volume, result = case.read.scan.volume, case.result
    return {
        name: class_statistics(volume, result.model_labels, value, reach=result.reach)
        for value, name in enumerate(names)
        if value
    }


def _remarks(case: SegmentedCase, statistics: Mapping[str, ClassStatistics]) -> tuple[str, ...]:
    result = case.result
    return quality_warnings(
        case.read.scan.volume, result.model_labels, reach=result.reach, statistics=statistics
    )


def _picture(case: SegmentedCase, names: tuple[str, ...]) -> NDArray[np.uint8]:
    result = case.result
    legend = [(name, result.record.volumes_ml[name]) for name in names[1:]]
    return preview(
        case.read.scan.volume,
        result.model_labels,
        legend,
        reach=result.reach,
        title=case.read.job.case.name,
    )


def _whole_run(case: SegmentedCase, clock: Clock, remarks: tuple[str, ...]) -> RunRecord:
    """The run's record with the time around the nets, and all that a person should know."""
    run = case.result.record
    phases = {"read": case.read.read_ms, **run.stage_ms, **clock.spent_ms()}
    warnings = (*case.read.scan.warnings, *run.warnings, *remarks)
    return replace(run, stage_ms=phases, total_ms=sum(phases.values()), warnings=warnings)


def _withdraw_record(job: Job) -> None:
    """Removes an earlier record, and the picture that came with it if no new one will."""
    picture = job.record.with_suffix(".png")
    if job.picture is None and job.record.is_file():
        picture.unlink(missing_ok=True)
    job.record.unlink(missing_ok=True)


def _rounded(value: float | bool | None) -> float | bool | None:
    return round(value, 3) if isinstance(value, float) else value


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
