"""Writes a constraints file from pip's installation reports; `make pins` calls it.

usage: python scripts/write_constraints.py OUT REPORT...

A report is what ``pip install --dry-run --ignore-installed --report FILE`` leaves: the whole
resolution, without installing it. Several reports may be joined, because some extras cannot be
installed together (onnxruntime and onnxruntime-gpu), as long as they agree on every version.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

OWN_NAME = "kits-trt"


def normal_name(name: str) -> str:
    """Returns a distribution's name in lower case, with single dashes between its words."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_from_report(report: str) -> dict[str, str]:
    """Returns name -> public version of all that one report would install, except ourselves.

    The local part of a version (``2.13.0+cpu``) names a build, which the reader's pip may not
    offer; it is dropped.
    """
    metadata = [entry["metadata"] for entry in json.loads(report)["install"]]
    pins = {normal_name(entry["name"]): entry["version"].partition("+")[0] for entry in metadata}
    pins.pop(OWN_NAME, None)
    return pins


def join_pins(all_pins: Iterable[dict[str, str]]) -> dict[str, str]:
    """Returns the union of several pins.

    Raises:
        ValueError: Two of them give one distribution different versions.
    """
    joined: dict[str, str] = {}
    for pins in all_pins:
        for name, version in pins.items():
            if joined.setdefault(name, version) != version:
                raise ValueError(
                    f"{name}: found {joined[name]} and {version}, expected one version in all "
                    "reports; make the reports in one go, or narrow the range in pyproject.toml"
                )
    return joined


def main(arguments: list[str]) -> int:
    """Writes the file named first from the reports named after it; returns the exit code."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out, *reports = (Path(argument) for argument in arguments)
    try:
        pins = join_pins(pins_from_report(report.read_text()) for report in reports)
    except ValueError as error:
        print(f"write_constraints: {error}", file=sys.stderr)
        return 1
    head = "# Exact pins of all that our environments install. Renewed by `make pins`.\n"
    out.write_text(head + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)))
    print(f"{out}: {len(pins)} pins")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
