"""Writes files so that a reader sees the old content or the new one, never a part."""

import contextlib
import re
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from kits_runtime.errors import KitsError

_PART = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part", re.DOTALL)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A new file beside the target that takes its place when the block ends well.

    On any error, an interrupt included, it vanishes and the target stays as it was.

    Raises:
        KitsError: the file cannot be written.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
        part.replace(target)
    except OSError as error:
        raise KitsError(
            f"{target}: found '{error.strerror or error}' while writing; expected a writable "
            "folder with space left; choose another output"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error that led here says more
            part.unlink(missing_ok=True)


def remove_abandoned(folder: Path, names: Collection[str]) -> None:
    """Removes what ``replacing`` left of files with these names in a process that was killed.

    Only for a folder in which nobody else writes them at the moment.
    """
    for path in folder.iterdir():
        match = _PART.fullmatch(path.name)
        if match is not None and match["name"] in names:
            path.unlink(missing_ok=True)
