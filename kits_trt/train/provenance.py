"""What a checkpoint says of where its weights come from: data, licence, recipes, tools."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

from kits_runtime.pipeline import file_sha256
from kits_runtime.record import versions
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.phantom.marker import read_marked
from kits_trt.systems.recipe import Recipe

KITS_LICENCE = "CC BY-NC-SA 4.0"
PHANTOM_LICENCE = "Apache-2.0"
UNKNOWN_LICENCE = "unknown: the licence of the training data is not known"

_PROCEDURAL = "phantom"
BEGUN_FROM = "Begun from weights that were trained on:"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """A data set: what kind it is, whose licence holds, and a hash of all it holds.

    Attributes:
        kind: ``phantom``, ``phantom around real anatomy``, ``kits`` or ``nnunet``.
        licence: Of weights that were trained on it.
        sha256: Of the names of the cases and the hashes of their files, in order.
    """

    kind: str
    licence: str
    sha256: str
    cases: tuple[str, ...]

    @property
    def real_anatomy(self) -> bool:
        """Whether segmentations of patients have a part in it: in all but procedural phantoms."""
        return self.kind != _PROCEDURAL


def data_facts(
    folder: Path,
    cases: Sequence[TrainingCase],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> DataFacts:
    """What is known of a data set; every file is read once for its hash."""
    digest = hashlib.sha256()
    for done, case in enumerate(cases, start=1):
        files = [path for path in (case.scan, case.labels) if path is not None]
        told = [case.name, *(file_sha256(path) for path in files)]
        digest.update(("\0".join(told) + "\n").encode())
        progress(done, len(cases))
    kind, licence = _kind_and_licence(folder, cases)
    return DataFacts(
        kind=kind,
        licence=licence,
        sha256=digest.hexdigest(),
        cases=tuple(case.name for case in cases),
    )


def joint_licence(licences: Iterable[str]) -> str:
    """The licence of weights in which data under several had a part: the strictest."""
    licences = set(licences)
    order = (UNKNOWN_LICENCE, KITS_LICENCE, PHANTOM_LICENCE)
    stated = sorted(licences - set(order))
    return next((known for known in order[:2] if known in licences), (stated or order[2:])[0])


def with_origin(facts: Mapping[str, object], earlier: Mapping[str, object]) -> dict[str, object]:
    """A checkpoint's facts, when weights with other facts had a part in it as well.

    The licence is the stricter one, real anatomy stays real, and what the earlier ones were
    trained on is told as well.
    """
    own, before = _data_of(facts), _data_of(earlier)
    said = _both_told(own.get("description"), before.get("description"))
    return {
        **facts,
        "licence": joint_licence(
            str(each.get("licence", UNKNOWN_LICENCE)) for each in (facts, earlier)
        ),
        "data": {
            **own,
            **({"description": said} if said else {}),
            "real_anatomy": has_real_anatomy(facts) or has_real_anatomy(earlier),
        },
    }


def _data_of(facts: Mapping[str, object]) -> Mapping[str, object]:
    """What a checkpoint's facts say of its data; nothing where that is no mapping."""
    data = facts.get("data")
    return data if isinstance(data, Mapping) else {}


def _both_told(own: object, earlier: object) -> str | None:
    """What is said of the data, and of that of earlier weights, unless one says both."""
    texts = [text for text in (own, earlier) if isinstance(text, str) and text]
    if len(texts) < 2:
        return texts[0] if texts else None
    first, second = texts
    if first in second or second in first:
        return max(texts, key=len)
    return f"{first} {BEGUN_FROM} {second}"


def has_real_anatomy(facts: Mapping[str, object]) -> bool:
    """Whether a checkpoint's facts say that patients' anatomies have a part in its weights.

    Where they do not say, their kind of data tells, or else their licence.
    """
    said = _data_of(facts)
    if isinstance(said.get("real_anatomy"), bool):
        return bool(said["real_anatomy"])
    if "kind" in said:
        return bool(said["kind"] != _PROCEDURAL)
    return facts.get("licence") == KITS_LICENCE


def described(data: DataFacts, *, teaching: int, cyst: Cyst) -> str:
    """A sentence on the data, for people."""
    what = {
        "phantom": "procedural phantoms of this project; no patient's image or label",
        "phantom around real anatomy": "phantoms of this project with anatomies of KiTS patients",
        "kits": "cases in the layout of the KiTS challenges",
        "nnunet": "cases in nnU-Net's raw layout",
    }[data.kind]
    cysts = {"background": "background", "kidney": "kidney", "class": "a class of their own"}
    return f"{teaching} {what}. Cysts count as {cysts[cyst]}."


def plain_recipe(recipe: Recipe) -> dict[str, object]:
    """A recipe as JSON takes it; each word under its name, ``kind``."""
    plain = _plain(recipe)
    assert isinstance(plain, dict)
    return plain


def commit_of_package() -> str | None:
    """The commit of the checkout that this package runs from; None where it is no checkout."""
    here = Path(__file__).resolve()
    try:
        told = subprocess.run(
            ["git", "-C", str(here.parent), "ls-files", "--error-unmatch", str(here)],
            capture_output=True,
            check=False,
        )
        if told.returncode != 0:
            return None
        command = ["git", "-C", str(here.parent), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None


def tool_versions() -> Mapping[str, str]:
    """The versions that made the weights."""
    return versions("torch", "safetensors", "nibabel")


def _kind_and_licence(folder: Path, cases: Sequence[TrainingCase]) -> tuple[str, str]:
    marked = read_marked(folder)
    anatomy = any(marked[case.name].anatomy for case in cases if case.name in marked)
    if cases and all(case.name in marked for case in cases):
        if anatomy:
            return "phantom around real anatomy", KITS_LICENCE
        return _PROCEDURAL, PHANTOM_LICENCE
    if (folder / "dataset.json").is_file():
        stated = _stated_licence(folder / "dataset.json")
        return "nnunet", joint_licence([stated, KITS_LICENCE]) if anatomy else stated
    return "kits", KITS_LICENCE


def _stated_licence(path: Path) -> str:
    """The licence that nnU-Net's description of a data set states, if it does."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return UNKNOWN_LICENCE
    stated = plain.get("licence", plain.get("license")) if isinstance(plain, dict) else None
    if not isinstance(stated, str) or not stated.strip():
        return UNKNOWN_LICENCE
    return f"{stated.strip()} (as the training data states)"


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        named = {name: _plain(getattr(value, name)) for name in asdict(value)}
        return {"kind": type(value).__name__, **named}
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _key(key: object) -> str:
    return "+".join(str(part) for part in key) if isinstance(key, tuple) else str(key)
