"""``kits-export``: from a checkpoint to a verified bundle, and to engines of it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kits_export.export import Build, Exported, ExportOptions, export_bundle
from kits_export.findings import table_lines, unverified
from kits_export.masks import cases_from
from kits_export.parity import Gates
from kits_export.place import check_place
from kits_export.targets import (
    TARGETS,
    EngineWishes,
    builder_for,
    capabilities_from_text,
    targets_from_text,
)
from kits_export.trained import TrainedSystem, trained_from_checkpoint, trained_from_states
from kits_runtime.cli.console import (
    EXIT_OK,
    ProgressLine,
    exit_code_of,
    interrupted_once,
    say,
    set_up_logging,
)
from kits_runtime.cli.telling import add_telling
from kits_runtime.engines.engine_cache import cache_folder
from kits_runtime.errors import BundleError, UsageError
from kits_trt.systems import SYSTEMS

NAME = "kits-export"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _export(options), name=NAME, debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Makes a bundle that provably computes what a checkpoint computes, or leaves "
        "nothing and says which link of the chain broke.",
    )
    _add_files(parser.add_argument_group("files"))
    _add_checks(parser.add_argument_group("checks"))
    _add_engines(parser.add_argument_group("engines"))
    add_telling(parser)
    return parser


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ckpt", type=Path, metavar="F", help="a checkpoint of kits-train (.safetensors)")
    add("-o", "--output", type=Path, required=True, metavar="BUNDLE", help=".kits file or folder")
    add("--overwrite", action="store_true", help="replace a bundle that is there already")
    add("--system", choices=sorted(SYSTEMS), help="of plain state dicts")
    add("--preset", choices=("paper", "small"), help="of plain state dicts")
    add(
        "--net",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="a net's plain state dict (.pt, loaded as weights alone); once for each net. Without "
        "FILE that of --ckpt",
    )
    add(
        "--precision",
        choices=("fp16", "fp32"),
        default="fp16",
        help="fp16: both files of each net (default)",
    )


def _add_checks(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--verify",
        type=Path,
        metavar="CASES",
        help="scans whose masks are compared: what kits-infer takes (default: built-in phantoms)",
    )
    add(
        "--max-disagree",
        type=_share,
        default=Gates().max_disagree,
        metavar="SHARE",
        help="of a class's voxels in a case (default: %(default)s)",
    )
    add(
        "--max-disagree-bf16",
        type=_share,
        metavar="SHARE",
        help="the same for OpenVINO in bf16, which is only told without this",
    )
    add(
        "--allow-unverified",
        action="store_true",
        help="let classes through that no case shows, or that the net is undecided about",
    )


def _add_engines(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--targets",
        type=targets_from_text,
        default=("onnx",),
        metavar="T,...",
        help=f"of {', '.join(TARGETS)}; engines go to the engine cache (default: onnx)",
    )
    add("--workspace", type=_mebibytes, metavar="MIB", help="most memory a builder may use")
    add("--timing-cache", type=Path, metavar="FILE", help="kept between builds of engines")
    add("--cache", type=Path, metavar="DIR", help="folder of engines (default: the user's cache)")
    add("--version-compatible", action="store_true", help="engines for later versions too")
    add(
        "--compute-capability",
        type=capabilities_from_text,
        default=(),
        metavar="CC,...",
        help="trt-rtx: GPUs to build for without having one, such as 86,89",
    )


def _export(options: argparse.Namespace) -> int:
    check_place(options.output, overwrite=options.overwrite)
    build = _builder(options)
    line = ProgressLine(sys.stderr, enabled=not (options.quiet or options.no_progress))
    try:
        exported = export_bundle(
            _trained(options),
            options.output,
            cases=cases_from(options.verify) if options.verify else (),
            options=ExportOptions(
                precision=options.precision,
                gates=Gates(
                    max_disagree=options.max_disagree,
                    max_disagree_bf16=options.max_disagree_bf16,
                    allow_unverified=options.allow_unverified,
                ),
                overwrite=options.overwrite,
            ),
            progress=line.show,
            build=build,
        )
    finally:
        line.clear()
    if not options.quiet:
        _tell(exported, options.output)
    return EXIT_OK


def _tell(exported: Exported, out: Path) -> None:
    for line in (*table_lines(exported.findings), *unverified(exported.findings)):
        say(line)
    manifest, gaps = exported.manifest, unverified(exported.findings)
    ending = f"verified but for {len(gaps)} masks" if gaps else "verified"
    say(f"{out}: {manifest.system} {manifest.preset}, {len(manifest.nets)} nets, {ending}")


def _builder(options: argparse.Namespace) -> Build | None:
    wishes = EngineWishes(
        precision=options.precision,
        workspace_mib=options.workspace,
        timing_cache=options.timing_cache,
        version_compatible=options.version_compatible,
        compute_capabilities=options.compute_capability,
        cache=options.cache or cache_folder(os.environ),
    )
    return builder_for(options.targets, wishes, tell=_silent if options.quiet else say)


def _trained(options: argparse.Namespace) -> TrainedSystem:
    if options.net:
        if options.system is None or options.preset is None:
            raise UsageError(
                "--net: found no --system or no --preset with it, expected both; a plain state "
                "dict does not say what it belongs to"
            )
        return trained_from_states(options.system, options.preset, _state_files(options))
    if options.ckpt is None:
        raise UsageError("found neither --ckpt nor --net, expected one of them; give a checkpoint")
    if options.ckpt.suffix in (".pt", ".pth"):
        raise UsageError(
            f"{options.ckpt}: found a file of torch alone, expected --system, --preset and --net "
            "with it; a plain state dict does not say what it belongs to"
        )
    trained = trained_from_checkpoint(options.ckpt)
    _check_system(trained, options)
    return trained


def _check_system(trained: TrainedSystem, options: argparse.Namespace) -> None:
    system = trained.system
    found, asked = (system.name, system.preset), (options.system, options.preset)
    if any(want not in (None, have) for have, want in zip(found, asked, strict=True)):
        raise BundleError(
            f"{options.ckpt}: found a checkpoint of {system.name} {system.preset}, expected "
            f"{options.system or system.name} {options.preset or system.preset}; give another "
            "checkpoint, or leave --system and --preset out"
        )


def _state_files(options: argparse.Namespace) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for text in options.net:
        name, given, path = text.partition("=")
        if name in files:
            raise UsageError(f"--net: found {name!r} twice, expected it once; leave one out")
        if not given and options.ckpt is None:
            raise UsageError(f"--net {text}: found no file, expected NAME=FILE, or --ckpt with it")
        files[name] = Path(path) if given else options.ckpt
    return files


def _silent(_text: str) -> None:
    pass


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return share


def _mebibytes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of MiB from 1")
    return int(text)
