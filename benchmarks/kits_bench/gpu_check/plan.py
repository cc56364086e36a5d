"""What a check measures, as values: settings, the backends in question, items and parts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

Interpreter = Literal["own", "trt86"]
Facts = dict[str, Any]

PACKAGES = ("kits_bench", "kits_export", "kits_trt", "kits_runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A backend in an interpreter; ``name`` is what tables call it."""

    name: str
    backend: str
    interpreter: Interpreter = "own"


CONTENDERS = (
    Contender(name="ort-cuda", backend="ort-cuda"),
    Contender(name="trt", backend="trt"),
    Contender(name="trt-rtx", backend="trt-rtx"),
    Contender(name="trt86", backend="trt", interpreter="trt86"),
)
STAND_IN = Contender(name="ort-cpu", backend="ort-cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one check runs with. Paths are not part of what its results depend on."""

    out: str
    cache: str
    gpu: str
    dry: bool = False
    systems: tuple[str, ...]
    headline: tuple[str, ...]
    cases: tuple[str, ...]
    parity_cases: tuple[str, ...]
    precisions: tuple[str, ...] = ("fp32", "fp16")
    repeats: int = 5
    compiled: bool = True
    trt86_python: str | None = None

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The backends in question; a dry run has one that needs no GPU before them."""
        return (STAND_IN, *CONTENDERS) if self.dry else CONTENDERS

    @property
    def folder(self) -> Path:
        """Where everything of this check lies."""
        return Path(self.out)

    def records(self, interpreter: Interpreter) -> Path:
        """Where records go: each interpreter has a folder, as if it were a machine."""
        name = self.gpu if interpreter == "own" else f"{self.gpu}-{interpreter}"
        return self.folder / "records" / name

    @property
    def configuration(self) -> Facts:
        """What results depend on, as JSON takes it."""
        plain = json.loads(json.dumps(asdict(self)))
        return {name: plain[name] for name in plain if name not in ("out", "cache")}


def settings_from_plain(plain: Mapping[str, Any]) -> Settings:
    """The settings that JSON brought."""
    values = {f.name: plain[f.name] for f in fields(Settings)}
    lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
    return Settings(**{**values, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing to measure in a process of its own; ``id`` is its name in the state file.

    An item that ``resumes`` leaves records or engines as it goes, and takes them as done when it
    runs again.
    """

    id: str
    task: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    interpreter: Interpreter = "own"
    limit_s: float = 450.0
    resumes: bool = False


def state_key(settings: Settings, told: Mapping[str, Any]) -> str:
    """A hash of the configuration and of what else results depend on: code, versions, GPU."""
    text = json.dumps([settings.configuration, told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_roots() -> tuple[str, ...]:
    """The folders from which this process has its packages, for another interpreter's path."""
    import importlib.util

    roots = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            roots.append(str(Path(spec.origin).resolve().parents[1]))
    return tuple(dict.fromkeys(roots))


def code_sha256() -> str:
    """A hash of the packages' sources, which also tells working trees without a commit apart."""
    digest = hashlib.sha256()
    for root in source_roots():
        for name in PACKAGES:
            for path in sorted((Path(root) / name).rglob("*")):
                if path.suffix in (".py", ".cu"):
                    digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
