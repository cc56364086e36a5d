"""``kits-infer``: segments scans with a bundle."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kits_runtime.cases import Case, find_cases
from kits_runtime.cli.console import (
    EXIT_OK,
    EXIT_SOME_FAILED,
    ProgressLine,
    error_line,
    exit_code_of,
    say,
    set_up_logging,
    version,
)
from kits_runtime.engines import EngineOptions
from kits_runtime.errors import BackendUnavailableError, KitsError, UsageError
from kits_runtime.pipeline import Outputs, outputs_of, segment_file
from kits_runtime.record import RunRecord
from kits_runtime.segmenter import Segmenter

BACKENDS = ("auto", "openvino", "ort-cpu", "ort-cuda", "trt", "trt-rtx")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    return exit_code_of(lambda: _infer(options), name="kits-infer", debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kits-infer",
        description="Segments kidneys and kidney tumours in CT scans. Research use only.",
    )
    add = parser.add_argument
    add(
        "-i",
        "--input",
        type=Path,
        required=True,
        metavar="IN",
        help="a .nii or .nii.gz file, a folder of them, a KiTS folder, or a .txt list of files",
    )
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for <case>.nii.gz and <case>.json; made if missing",
    )
    add("--bundle", type=Path, help="folder or .kits file (default: the one in the package)")
    add("--backend", choices=BACKENDS, default="auto", help="what runs the nets (default: auto)")
    add("--device", type=_device, default="auto", help="auto, cpu, or cuda[:N] (default: auto)")
    add("--threads", type=_threads, default=None, help="processors to use (default: all)")
    add("--preview", action="store_true", help="also write <case>.png")
    add("--overwrite", action="store_true", help="replace results that are there already")
    add("--no-progress", action="store_true", help="no progress line")
    add("-q", "--quiet", action="store_true", help="only errors on stderr")
    add("-v", "--verbose", action="store_true", help="say more on stderr")
    add("--debug", action="store_true", help="say everything, with tracebacks")
    add("--version", action="version", version=f"kits-infer {version()}")
    return parser


def _infer(options: argparse.Namespace) -> int:
    _check_device(options.device)
    cases = find_cases(options.input)
    jobs = [(c, outputs_of(c, options.output, with_picture=options.preview)) for c in cases]
    _refuse_to_overwrite(jobs, allowed=options.overwrite)
    engine_options = EngineOptions(threads=options.threads) if options.threads else EngineOptions()
    with Segmenter.from_bundle(
        options.bundle, backend=options.backend, options=engine_options
    ) as segmenter:
        backend = segmenter.backend
        if not options.quiet:
            say(f"backend {backend.name} ({backend.precision}): {backend.reason}")
        options.output.mkdir(parents=True, exist_ok=True)
        failed = [not _segmented(segmenter, job, options) for job in jobs]
    if len(jobs) > 1 and any(failed):
        say(f"kits-infer: {sum(failed)} of {len(jobs)} cases failed")
        return EXIT_SOME_FAILED
    return EXIT_OK


def _segmented(
    segmenter: Segmenter, job: tuple[Case, Outputs], options: argparse.Namespace
) -> bool:
    """Whether one case succeeded; the failure of an only case is the command's own."""
    case, outputs = job
    line = ProgressLine(sys.stderr, enabled=not (options.quiet or options.no_progress))
    try:
        record = segment_file(
            segmenter,
            case,
            outputs,
            progress=lambda stage, share: line.show(f"{case.name}: {stage} {share:4.0%}"),
        )
    except KitsError as error:
        line.clear()
        if options.input.is_file() and options.input.suffix != ".txt":
            raise
        say(f"{case.name}: failed: {error_line(error)}")
        return False
    line.clear()
    if not options.quiet:
        say(_summary(case, outputs, record))
    return True


def _summary(case: Case, outputs: Outputs, record: RunRecord) -> str:
    sizes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in record.volumes_ml.items())
    lines = [f"{case.name}: {sizes}, {record.total_ms / 1000:.2f} s, {outputs.mask}"]
    lines += [f"{case.name}: warning: {warning}" for warning in record.warnings]
    return "\n".join(lines)


def _refuse_to_overwrite(jobs: Sequence[tuple[Case, Outputs]], *, allowed: bool) -> None:
    if allowed:
        return
    for _, outputs in jobs:
        if outputs.mask.exists():
            raise UsageError(
                f"{outputs.mask}: a result is there already, expected none. "
                "Give --overwrite to replace it, or another folder with -o."
            )


def _check_device(device: str) -> None:
    if device.startswith("cuda"):
        raise BackendUnavailableError(
            f"--device {device}: this release runs on the CPU only. Give --device auto or cpu."
        )


def _device(text: str) -> str:
    known = text in ("auto", "cpu", "cuda") or (text[:5] == "cuda:" and text[5:].isdigit())
    if not known:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected auto, cpu, or cuda[:N]")
    return text


def _threads(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number of 1 or more")
    return int(text)
