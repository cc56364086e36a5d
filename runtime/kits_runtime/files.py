"""Writes files and folders so that a reader sees the old content or the new one, never a part."""

import contextlib
import errno
import re
import secrets
import shutil
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


@contextlib.contextmanager
def replacing_folder(target: Path, *, keep: bool = False) -> Iterator[Path]:
    """A new folder beside the target that takes its place when the block ends well.

    On any error, an interrupt included, it vanishes and the target stays as it was. A folder that
    is there already is replaced; with ``keep`` it stays, and the new one vanishes.

    Raises:
        KitsError: the folder cannot be written.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        yield part
        _put_in_place(part, target, keep=keep)
    except OSError as error:
        raise KitsError(
            f"{target}: found '{error.strerror or error}' while writing; expected a writable "
            "folder with space left; choose another output"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, target: Path, *, keep: bool) -> None:
    """Renames a folder; an old one, which no rename replaces, steps aside first."""
    if target.is_dir() and not keep:
        aside = part.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):  # another writer moves it at this moment
            target.replace(aside)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        part.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise  # else another writer's folder stands there already, as whole as this one


def remove_abandoned(folder: Path, names: Collection[str]) -> None:
    """Removes what ``replacing`` left of files with these names in a process that was killed.

    Only for a folder in which nobody else writes them at the moment.
    """
    for path in folder.iterdir():
        match = _PART.fullmatch(path.name)
        if match is not None and match["name"] in names:
            path.unlink(missing_ok=True)
