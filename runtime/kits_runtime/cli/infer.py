"""``kits-infer``: segments scans with a bundle."""

import argparse
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kits_runtime.cases import find_cases
from kits_runtime.cli.console import (
    EXIT_OK,
    EXIT_SOME_FAILED,
    exit_code_of,
    interrupted_once,
    set_up_logging,
    version,
)
from kits_runtime.cli.report import Reporter, write_summary
from kits_runtime.cli.telling import add_telling
from kits_runtime.cohort import CaseOutcome, run_cohort
from kits_runtime.device.plan import DEFAULT_LIMIT
from kits_runtime.engines import BACKENDS, Device, EngineOptions
from kits_runtime.engines.engine_cache import cache_folder
from kits_runtime.errors import KitsError, UsageError
from kits_runtime.files import remove_abandoned
from kits_runtime.pipeline import Job, is_up_to_date, job_for
from kits_runtime.segmenter import GpuUse, Segmenter

logger = logging.getLogger(__name__)

_SUMMARY = "summary.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _infer(options), name="kits-infer", debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kits-infer",
        description="Segments kidneys and kidney tumours in CT scans. Research use only.",
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="IN",
        help="a .nii or .nii.gz file, a folder of them, a KiTS folder, or a .txt list of files",
    )
    files.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for <case>.nii.gz and <case>.json, and summary.csv for several cases",
    )
    files.add_argument("--bundle", type=Path, help="folder or .kits file (default: the package's)")
    files.add_argument("--preview", action="store_true", help="also write <case>.png")
    present = files.add_mutually_exclusive_group()
    present.add_argument("--overwrite", action="store_true", help="replace results already there")
    present.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip cases whose result is there and came from the same scan, bundle and backend",
    )
    running = parser.add_argument_group("running")
    names = ("auto", *(row.name for row in BACKENDS))
    running.add_argument("--backend", choices=names, default="auto", help="what runs the nets")
    running.add_argument("--device", type=_device, default="auto", help="auto, cpu, or cuda[:N]")
    running.add_argument("--threads", type=_threads, help="processors to use (default: all)")
    running.add_argument(
        "--max-gpu-mem",
        type=_mebibytes,
        default=DEFAULT_LIMIT >> 20,
        metavar="MIB",
        help="memory of the GPU that arrays may take, in MiB (default: 2048)",
    )
    telling = add_telling(parser)
    telling.add_argument("--log-json", type=Path, metavar="FILE", help="add JSON lines to a file")
    return parser


def _infer(options: argparse.Namespace) -> int:
    cases = find_cases(options.input)
    jobs = [job_for(case, options.output, with_picture=options.preview) for case in cases]
    if not (options.overwrite or options.skip_existing):
        _refuse_to_overwrite(jobs)
    reporter = Reporter(
        sys.stderr,
        cases=len(jobs),
        quiet=options.quiet,
        progress=not options.no_progress,
        log=options.log_json,
    )
    reporter.event(
        "start", {"version": version(), "cases": len(jobs), "output": str(options.output)}
    )
    try:
        reporter.opening("the bundle")
        with (
            Segmenter.from_bundle(
                options.bundle,
                backend=options.backend,
                options=EngineOptions(
                    threads=options.threads,
                    engine_cache=cache_folder(os.environ),
                    device=_gpu_index(options.device),
                ),
                gpu=GpuUse(
                    device=_device_kind(options.device), max_bytes=options.max_gpu_mem << 20
                ),
            ) as segmenter,
            _locked(options.output),
        ):
            backend = segmenter.backend
            rejected = "".join(f"; not {name}: {why}" for name, why in backend.rejected)
            reporter.say(
                f"backend {backend.name} ({backend.precision}): {backend.reason}{rejected}"
            )
            remove_abandoned(options.output, _result_names(jobs))
            outcomes = _run(segmenter, jobs, reporter, options)
    finally:
        reporter.end()
    return _exit_code(outcomes, options.input)


def _run(
    segmenter: Segmenter, jobs: Sequence[Job], reporter: Reporter, options: argparse.Namespace
) -> Sequence[CaseOutcome]:
    """Runs all cases; a summary of those that ended is left even when the run is interrupted."""
    ended: list[CaseOutcome] = []

    def finished(outcome: CaseOutcome) -> None:
        ended.append(outcome)
        reporter.finished(outcome)

    def is_done(job: Job) -> bool:
        return bool(options.skip_existing) and is_up_to_date(job, segmenter)

    reporter.begin([stage.name for stage in segmenter.bundle.manifest.stages])
    try:
        return run_cohort(
            segmenter, jobs, progress=reporter.progress, finished=finished, is_done=is_done
        )
    finally:
        reporter.event("end", {"ended": len(ended), "cases": len(jobs)})
        if len(jobs) > 1:
            labels = segmenter.bundle.manifest.labels
            place = {job: index for index, job in enumerate(jobs)}
            ended.sort(key=lambda outcome: place[outcome.job])
            write_summary(options.output / _SUMMARY, ended, labels)


def _result_names(jobs: Sequence[Job]) -> set[str]:
    files = [
        file for job in jobs for file in (job.mask, job.record, job.record.with_suffix(".png"))
    ]
    return {_SUMMARY, *(file.name for file in files)}


def _exit_code(outcomes: Sequence[CaseOutcome], source: Path) -> int:
    """0, or 8 for a batch of which some failed; the failure of an only case is the command's."""
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(outcomes) == 1 and failed:
        raise failed[0]
    if failed:
        sys.stderr.write(f"kits-infer: {len(failed)} of {len(outcomes)} cases failed\n")
        return EXIT_SOME_FAILED
    return EXIT_OK


def _refuse_to_overwrite(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if job.mask.exists():
            raise UsageError(
                f"{job.mask}: a result is there already, expected none. Give --overwrite or "
                "--skip-existing, or another folder with -o."
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the output folder and holds it, so that no second run writes into it meanwhile."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _no_output(folder, error.strerror or str(error)) from error
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _no_output(folder, "not writable")
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _no_output(folder: Path, found: str) -> KitsError:
    return KitsError(
        f"{folder}: found '{found}', expected a folder to write to. Choose another with -o."
    )


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise KitsError(
            f"{folder}: another kits-infer writes there, expected none. "
            "Wait for it, or choose another folder with -o."
        ) from error
    except OSError as error:  # some network file systems lock no folder
        logger.info("%s: cannot be locked (%s): see to it that no other run writes", folder, error)


def _device_kind(device: str) -> Device:
    if device.startswith("cuda"):
        return "cuda"
    return "cpu" if device == "cpu" else "auto"


def _gpu_index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _device(text: str) -> str:
    known = text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())
    if not known:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected auto, cpu, or cuda[:N]")
    return text


def _mebibytes(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of MiB, 1 or more")
    return int(text)


def _threads(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of 1 or more")
    return int(text)
