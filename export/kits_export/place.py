"""Where a bundle goes: it is made beside its place and moved there, or nothing is left."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kits_runtime.bundle import MANIFEST_NAME
from kits_runtime.errors import KitsError, UsageError


def check_place(out: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, before any work.

    Raises:
        UsageError: something is there that may not be replaced, or is no bundle.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise UsageError(
            f"{out}: a bundle or something else is there already, expected nothing. Give "
            "--overwrite, or another path with -o."
        )
    if out.is_symlink() or (out.is_dir() and not (out / MANIFEST_NAME).is_file()):
        raise UsageError(
            f"{out}: found something that is no bundle, expected one to overwrite. Choose another "
            "path with -o."
        )
    if out.is_dir() == (out.suffix == ".kits"):
        raise UsageError(
            f"{out}: found {'a folder' if out.is_dir() else 'a file'}, expected a bundle of the "
            "kind that this path names (.kits a file, else a folder). Choose another path with -o."
        )


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A path in a hidden folder beside ``out`` that becomes ``out`` when the block ends well.

    On any error, an interrupt included, neither the folder nor parents that were made for it stay.

    Raises:
        KitsError: the place cannot be written to.
    """
    made = [parent for parent in (out.parent, *out.parent.parents) if not parent.exists()]
    try:
        with _no_room(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            hidden = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
        try:
            yield hidden / out.name
            with _no_room(out):
                if out.is_dir():
                    out.replace(hidden / "old")
                (hidden / out.name).replace(out)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    finally:
        for parent in made:  # the deepest first; one that holds the bundle stays
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def _no_room(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KitsError(
            f"{out}: found '{error.strerror or error}', expected a place to write to. Choose "
            "another path with -o."
        ) from error
