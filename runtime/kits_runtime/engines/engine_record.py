"""One kept engine: its key, and the record beside it that says what it serves.

An engine without a record that can be read does not count.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENGINE_SUFFIX = ".engine"
RECORD_SUFFIX = ".json"
TRIED_SUFFIX = ".tried"

_FORMAT = 1
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """What an engine serves; any field that differs means another engine."""

    net: str
    onnx_sha256: str
    flavour: str
    library: str
    gpu: str
    compute_capability: str
    driver: str
    profile: str
    precision: str
    options: str

    def stem(self) -> str:
        """The name of its files, without suffix."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{self.net}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def differences(self, wanted: "EngineKey") -> dict[str, tuple[str, str]]:
        """The fields in which an engine of this key misses ``wanted``: (its own, the wanted)."""
        own, other = dataclasses.asdict(self), dataclasses.asdict(wanted)
        return {name: (own[name], other[name]) for name in own if own[name] != other[name]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine to keep, and facts of its building for the record, as plain values for JSON."""

    data: bytes
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One kept engine: where it is, its record, and when it was last used (seconds since 1970)."""

    path: Path
    key: EngineKey
    sha256: str
    size: int
    facts: Mapping[str, object]
    used_s: float


def read_entry(path: Path) -> Entry | None:
    """The record of the engine at a path; None where either file is missing or makes no sense."""
    record = path.with_suffix(RECORD_SUFFIX)
    try:
        if record.stat().st_size > _MAX_RECORD_BYTES:
            return None
        content = json.loads(record.read_bytes())
        if content["format"] != _FORMAT:
            return None
        return Entry(
            path=path,
            key=_key_from_plain(content["key"]),
            sha256=str(content["sha256"]),
            size=path.stat().st_size,
            facts=dict(content["facts"]),
            used_s=record.stat().st_mtime,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def shown_differences(differences: Mapping[str, tuple[str, str]]) -> str:
    """Differing fields as a message has them."""
    return ", ".join(
        f"{name} (found {own}, expected {wanted})" for name, (own, wanted) in differences.items()
    )


def whole_engine(entry: Entry) -> bytes | None:
    """The engine itself, None where its file is not what the record says."""
    try:
        data = entry.path.read_bytes()
    except OSError:
        return None
    return data if hashlib.sha256(data).hexdigest() == entry.sha256 else None


def record_of(key: EngineKey, built: Built) -> bytes:
    """What is written beside a new engine."""
    record = {
        "format": _FORMAT,
        "key": dataclasses.asdict(key),
        "sha256": hashlib.sha256(built.data).hexdigest(),
        "bytes": len(built.data),
        "facts": dict(built.facts),
    }
    return json.dumps(record, indent=1).encode()


def _key_from_plain(plain: Mapping[str, Any]) -> EngineKey:
    if not all(isinstance(value, str) for value in plain.values()):
        raise TypeError("a key has texts alone")
    return EngineKey(**plain)
