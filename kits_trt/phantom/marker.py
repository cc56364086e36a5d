"""The list of what is a phantom in a folder of cases, ``phantom.json``.

Whoever trains on a folder reads there which of its cases no patient stands behind, and which
have the kidneys and tumours of real segmentations, whose licence they keep.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_runtime.errors import ScanError
from kits_runtime.files import replacing

NAME = "phantom.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a phantom comes from: its seed, what made it, and whose anatomy it has.

    Attributes:
        seed: Of the whole set.
        version: Of the package.
        anatomy: Whether kidneys and tumours come from real segmentations.
    """

    seed: int
    version: str
    anatomy: bool


def mark_phantom(folder: Path, case: str, origin: Origin) -> None:
    """Add a case to the folder's list, or replace what the list says of it.

    Raises:
        ScanError: There is a file of that name that is no such list.
        KitsError: It cannot be written.
    """
    marked = {**read_marked(folder), case: origin}
    plain = {
        "format": _FORMAT,
        "cases": {
            name: {"seed": known.seed, "version": known.version, "anatomy": known.anatomy}
            for name, known in sorted(marked.items())
        },
    }
    with replacing(folder / NAME) as stream:
        stream.write((json.dumps(plain, indent=1) + "\n").encode())


def read_marked(folder: Path) -> Mapping[str, Origin]:
    """The phantoms of a folder by case; none where it has no list.

    Raises:
        ScanError: The list is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["format"] != _FORMAT:
            raise ValueError(f"format {plain['format']!r}")
        return {
            str(name): Origin(
                seed=int(known["seed"]), version=str(known["version"]), anatomy=known["anatomy"]
            )
            for name, known in plain["cases"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ScanError(
            f"{path}: found {type(error).__name__}: {' '.join(str(error).split())}, expected the "
            "list that kits-phantom writes; remove it, or make the cases again"
        ) from error
