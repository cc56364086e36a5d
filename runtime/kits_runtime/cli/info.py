"""``kits-info``: tells what can run here, or what a bundle or a checkpoint is."""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits_runtime.cli.console import EXIT_OK, exit_code_of, version
from kits_runtime.facts import environment_facts, facts_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="kits-info",
        description="Tells what can run here, or what a bundle or a checkpoint is.",
    )
    parser.add_argument("path", type=Path, nargs="?", help="a bundle or a .safetensors checkpoint")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--debug", action="store_true", help="with tracebacks")
    parser.add_argument("--version", action="version", version=f"kits-info {version()}")
    options = parser.parse_args(argv)
    return exit_code_of(lambda: _info(options), name="kits-info", debug=options.debug)


def _info(options: argparse.Namespace) -> int:
    facts = environment_facts() if options.path is None else facts_of(options.path)
    text = json.dumps(facts, indent=1) if options.json else "\n".join(_lines(facts))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may hold any bytes
    sys.stdout.write(text + "\n")
    return EXIT_OK


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
