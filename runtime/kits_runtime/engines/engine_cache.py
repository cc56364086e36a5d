"""Built engines, kept between runs under a key that says exactly what each one serves.

An engine is a file and a record beside it that holds the key, the file's hash and how it was built.
The record is written last, so an engine without one does not count. Engines are loaded unchecked by
the library, so only this user, or the administrator, may be able to write to the folder.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kits_runtime.engines.engine_record import (
    ENGINE_SUFFIX,
    RECORD_SUFFIX,
    TRIED_SUFFIX,
    Built,
    EngineKey,
    Entry,
    read_entry,
    record_of,
    shown_differences,
    whole_engine,
)
from kits_runtime.errors import UsageError
from kits_runtime.files import remove_abandoned, replacing
from kits_runtime.locks import locked

logger = logging.getLogger(__name__)

MAX_BYTES = 8 << 30

_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCache:
    """A folder of engines of at most ``max_bytes``; the least recently used ones go first."""

    folder: Path
    max_bytes: int = MAX_BYTES

    def find(self, key: EngineKey, *, report: Callable[[str], None] | None = None) -> bytes | None:
        """The engine of a key, None where none is whole; ``report`` gets a line on damage."""
        path = self._path(key)
        entry = read_entry(path)
        if entry is None or entry.key != key:
            return None
        data = whole_engine(entry)
        if data is None:
            if report is not None:
                report(f"{path.name}: found a damaged engine, expected its record's hash")
            return None
        _touch(path)
        return data

    def get_or_build(
        self,
        key: EngineKey,
        build: Callable[[], Built],
        *,
        report: Callable[[str], None] = logger.warning,
    ) -> bytes:
        """The engine of a key, built and kept where there is none.

        Of several processes that want it, one builds and the others wait for it. ``report`` gets
        one line on why something is built, or waited for.

        Raises:
            UsageError: others may write to the folder, so nothing in it can be trusted.
            KitsError: the folder cannot be written, or what ``build`` raises.
        """
        self._require_own()
        lock = self.folder / f"{key.stem()}.lock"
        with locked(lock, on_wait=lambda: report(f"{key.net}: another process builds it; waiting")):
            found = self.find(key, report=report)
            if found is not None:
                return found
            report(f"{key.net}: building an engine; {self.why_not(key)}")
            names = [key.stem() + suffix for suffix in (ENGINE_SUFFIX, RECORD_SUFFIX)]
            remove_abandoned(self.folder, names)
            built = build()
            self._keep(key, built)
        self.evict(spare=key)
        return built.data

    def tried_on(self, key: EngineKey, machine: str) -> bool:
        """Whether the engine of a key has passed its trial on this machine."""
        try:
            return self._path(key).with_suffix(TRIED_SUFFIX).read_text() == machine
        except (OSError, ValueError):
            return False

    def note_trial(self, key: EngineKey, machine: str) -> None:
        """Keep that the engine of a key has passed its trial on this machine."""
        with replacing(self._path(key).with_suffix(TRIED_SUFFIX)) as stream:
            stream.write(machine.encode())

    def why_not(self, key: EngineKey) -> str:
        """Why no kept engine serves a key: the fields in which the nearest one differs."""
        missed = [
            entry.key.differences(key) for entry in self.entries() if entry.key.net == key.net
        ]
        if not missed:
            return "none of this net is kept"
        nearest = min(missed, key=len)
        if not nearest:
            return "the one that is kept is damaged"
        return "the nearest one differs in " + shown_differences(nearest)

    def entries(self) -> tuple[Entry, ...]:
        """All engines with a record that can be read, the most recently used first."""
        if not self.folder.is_dir():
            return ()
        paths = sorted(self.folder.glob("*" + ENGINE_SUFFIX))
        found = [entry for entry in map(read_entry, paths) if entry is not None]
        return tuple(sorted(found, key=lambda entry: -entry.used_s))

    def evict(self, *, spare: EngineKey | None = None) -> tuple[Path, ...]:
        """Remove the least recently used engines beyond the limit, and say which went."""
        gone = []
        with locked(self.folder / "evict.lock"):
            entries = self.entries()
            size = sum(entry.size for entry in entries)
            for entry in reversed(entries):
                if size <= self.max_bytes:
                    break
                if entry.key != spare:
                    _remove(entry.path)
                    gone.append(entry.path)
                    size -= entry.size
        return tuple(gone)

    def _keep(self, key: EngineKey, built: Built) -> None:
        path = self._path(key)
        _remove(path)
        with replacing(path) as stream:
            stream.write(built.data)
        with replacing(path.with_suffix(RECORD_SUFFIX)) as stream:
            stream.write(record_of(key, built))

    def _require_own(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.folder.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & _WRITABLE_BY_OTHERS:
            raise UsageError(
                f"{self.folder}: found a folder that other users may write to, expected one of "
                "your own, because engines run unchecked; chmod go-w it, or choose another"
            )

    def _path(self, key: EngineKey) -> Path:
        return self.folder / (key.stem() + ENGINE_SUFFIX)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where engines are kept: KITS_CACHE, else the user's cache folder as XDG has it."""
    if environment.get("KITS_CACHE"):
        return Path(environment["KITS_CACHE"]) / "engines"
    base = environment.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path(environment.get("HOME", "~")) / ".cache"
    return root.expanduser() / "kits-trt" / "engines"


def _files(path: Path) -> Iterator[Path]:
    """An engine's files, the record first: without it the engine no longer counts."""
    yield path.with_suffix(RECORD_SUFFIX)
    yield path.with_suffix(TRIED_SUFFIX)
    yield path


def _remove(path: Path) -> None:
    for file in _files(path):
        file.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    try:
        os.utime(path.with_suffix(RECORD_SUFFIX))
    except OSError:  # a folder that may only be read still serves
        logger.debug("%s: its last use cannot be noted", path)
