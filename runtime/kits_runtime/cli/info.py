"""``kits-info``: tells what can run here, or what a bundle, an engine or a checkpoint is."""

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits_runtime.bundle import open_bundle
from kits_runtime.cli.console import EXIT_OK, exit_code_of, interrupted_once, set_up_logging
from kits_runtime.cli.telling import add_telling
from kits_runtime.engine_facts import cache_facts, engine_facts, gpu_facts, holds_engines
from kits_runtime.engines.engine_cache import cache_folder
from kits_runtime.engines.engine_record import ENGINE_SUFFIX
from kits_runtime.facts import environment_facts, facts_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="kits-info",
        description="Tells what can run here, or what a bundle, an engine or a checkpoint is.",
    )
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        help="a bundle, a .safetensors checkpoint, a kept .engine or the folder of engines",
    )
    parser.add_argument(
        "--bundle", type=Path, help="also say whether engines are of this bundle's nets"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        help="the folder of engines (default: KITS_CACHE, else in the user's cache folder)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_telling(parser)
    options = parser.parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _info(options), name="kits-info", debug=options.debug)


def _info(options: argparse.Namespace) -> int:
    facts = _facts(options)
    text = json.dumps(facts, indent=1) if options.json else "\n".join(_lines(facts))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may hold any bytes
    sys.stdout.write(text + "\n")
    return EXIT_OK


def _facts(options: argparse.Namespace) -> Mapping[str, object]:
    path: Path | None = options.path
    nets = None if options.bundle is None else _net_hashes(options.bundle)
    if path is None:
        folder = options.cache or cache_folder(os.environ)
        kept = cache_facts(folder, nets=nets)
        return {**environment_facts(), "gpu": gpu_facts(), "engine_cache": kept}
    if path.suffix == ENGINE_SUFFIX and not path.is_dir():
        return engine_facts(path, nets=nets)
    if holds_engines(path):
        return cache_facts(path, nets=nets, verify=True)
    return facts_of(path)


def _net_hashes(path: Path) -> set[str]:
    nets = open_bundle(path).manifest.nets.values()
    return {file.sha256 for net in nets for file in net.files.values()}


def _lines(facts: Mapping[str, object], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            lines.append(f"{indent}{name}")
            for item in value:
                lines.append(f"{indent}  {json.dumps(item, ensure_ascii=False)}")
        else:
            lines.append(f"{indent}{name}: {_shown(value)}")
    return lines


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "-"
    if isinstance(value, Mapping):
        return "-"
    return str(value)
