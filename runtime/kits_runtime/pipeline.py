"""One case from file to files: read, segment, write the mask, the picture and the record."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

from kits_runtime.cases import Case
from kits_runtime.errors import ScanError
from kits_runtime.files import replacing
from kits_runtime.nifti import read_scan, write_labels
from kits_runtime.png import write_png
from kits_runtime.preview import preview
from kits_runtime.record import RunRecord
from kits_runtime.segmenter import Progress, Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The files that one case leaves; the record is written last and so says that all is there."""

    mask: Path
    record: Path
    picture: Path | None


def outputs_of(case: Case, folder: Path, *, with_picture: bool) -> Outputs:
    """Where a case's results go.

    Raises:
        ScanError: the mask would replace the scan it is made from.
    """
    mask = folder / f"{case.name}.nii.gz"
    if mask.resolve() == case.scan.resolve():
        raise ScanError(
            f"{case.scan}: the mask would replace the scan, expected another output folder than "
            f"{folder}. Choose one with -o."
        )
    return Outputs(
        mask=mask,
        record=folder / f"{case.name}.json",
        picture=folder / f"{case.name}.png" if with_picture else None,
    )


def segment_file(
    segmenter: Segmenter, case: Case, outputs: Outputs, *, progress: Progress | None = None
) -> RunRecord:
    """Segments one scan and leaves its files; returns the record as written.

    Raises:
        ScanError: the scan cannot be read.
        EngineError: a net failed.
    """
    start = time.perf_counter()
    scan = read_scan(case.scan)
    read_ms = _since(start)
    result = segmenter.segment(scan.volume, progress=progress)
    begin = time.perf_counter()
    outputs.record.unlink(missing_ok=True)
    write_labels(outputs.mask, result.model_labels, like=scan)
    write_ms = _since(begin)
    begin = time.perf_counter()
    if outputs.picture is not None:
        names = segmenter.bundle.manifest.labels
        picture = preview(scan.volume, result.model_labels, names, title=case.name)
        with replacing(outputs.picture) as stream:
            write_png(stream, picture)
    preview_ms = _since(begin)
    phases = {"read": read_ms, **result.record.stage_ms, "write": write_ms}
    if outputs.picture is not None:
        phases["preview"] = preview_ms
    record = replace(
        result.record,
        stage_ms=phases,
        total_ms=_since(start),
        warnings=(*scan.warnings, *result.record.warnings),
    )
    write_record(outputs.record, case, record)
    return record


def write_record(path: Path, case: Case, record: RunRecord) -> None:
    """Writes a record as JSON."""
    plain = {"case": case.name, "scan": str(case.scan), **record.to_plain()}
    with replacing(path) as stream:
        stream.write((json.dumps(plain, indent=1) + "\n").encode())


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
