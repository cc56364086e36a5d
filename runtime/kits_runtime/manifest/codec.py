"""Reads frozen dataclasses from plain JSON values, strictly, and writes them back exactly.

Every field must be there and nothing else; a value of the wrong type is an error that names the
field by its path (``stages[1].look.of``). A class with a ``kind`` is written with that key first
and told by it when several classes may stand in one place.
"""

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kits_runtime.errors import ManifestError

T = TypeVar("T")

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_SHOWN = 60


def from_plain(cls: type[T], plain: object, *, where: str = "") -> T:
    """The instance of dataclass ``cls`` that ``plain`` (parsed JSON) describes.

    Raises:
        ManifestError: names the field, what was found and what was expected.
    """
    made = _dataclass_from(cls, plain, where)
    assert isinstance(made, cls)
    return made


def to_plain(value: object) -> object:
    """The JSON form of a dataclass, such that ``from_plain`` gives back an equal instance.

    Mappings are written in the order of their keys, so that equal ones look the same.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = getattr(value, "kind", None)
        return plain if kind is None else {"kind": kind, **plain}
    if isinstance(value, Mapping):
        return {key: to_plain(value[key]) for key in sorted(value)}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


def shown(found: object) -> str:
    """A value as a message shows it: on one line, short, however large or deep it is."""
    form = reprlib.Repr()
    form.maxlevel, form.maxstring, form.maxother = 3, _MOST_SHOWN, _MOST_SHOWN
    try:
        text = form.repr(found)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        text = f"{type(found).__name__} with too many digits to show"
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def at(where: str, key: str) -> str:
    """The path of a key in ``where``; a key that could confuse a reader stands in quotes."""
    name = key if _PLAIN_KEY.fullmatch(key) else shown(key)
    return f"{where}.{name}" if where else name


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: hint for name, hint in get_type_hints(cls).items() if name in names}


def _dataclass_from(cls: type, plain: object, where: str) -> object:
    if not isinstance(plain, Mapping):
        raise _wrong(where, plain, "an object")
    hints = _hints(cls)
    kind = getattr(cls, "kind", None)
    expected = {*hints, "kind"} if kind else set(hints)
    for key in plain:
        if key not in expected:
            raise ManifestError(
                f"{at(where, str(key))}: unknown key; expected one of {sorted(expected)}. "
                "Remove it, or use a release that knows it."
            )
    for key in sorted(expected):
        if key not in plain:
            raise ManifestError(f"{at(where, key)}: missing key. Add it; all keys are required.")
    if kind and plain["kind"] != kind:
        raise _wrong(at(where, "kind"), plain["kind"], repr(kind))
    return cls(**{name: _value(hint, plain[name], at(where, name)) for name, hint in hints.items()})


def _value(hint: Any, plain: object, where: str) -> object:  # noqa: ANN401 - hints are runtime objects
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(hint), plain, where)
    if origin is Literal:
        if plain not in get_args(hint):
            raise _wrong(where, plain, f"one of {list(get_args(hint))}")
        return plain
    if origin is tuple:
        return _tuple(get_args(hint), plain, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(get_args(hint), plain, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass_from(hint, plain, where)
    return _scalar(hint, plain, where)


def _one_of(members: Sequence[Any], plain: object, where: str) -> object:
    if plain is None and types.NoneType in members:
        return None
    kinds = {member.kind: member for member in members if hasattr(member, "kind")}
    if not kinds:
        (member,) = (member for member in members if member is not types.NoneType)
        return _value(member, plain, where)
    if not isinstance(plain, Mapping):
        raise _wrong(where, plain, "an object with a 'kind'")
    if "kind" not in plain:
        raise ManifestError(f"{at(where, 'kind')}: missing key. Add one of {sorted(kinds)}.")
    kind = plain["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise _wrong(at(where, "kind"), kind, f"one of {sorted(kinds)}")
    return _dataclass_from(kinds[kind], plain, where)


def _tuple(members: Sequence[Any], plain: object, where: str) -> tuple[object, ...]:
    if not isinstance(plain, list):
        raise _wrong(where, plain, "a list")
    if len(members) == 2 and members[1] is Ellipsis:
        members = [members[0]] * len(plain)
    if len(plain) != len(members):
        raise _wrong(where, plain, f"a list of {len(members)}")
    pairs = zip(members, plain, strict=True)
    return tuple(_value(member, item, f"{where}[{i}]") for i, (member, item) in enumerate(pairs))


def _mapping(members: Sequence[Any], plain: object, where: str) -> Mapping[object, object]:
    if not isinstance(plain, Mapping):
        raise _wrong(where, plain, "an object")
    key_hint, value_hint = members
    return types.MappingProxyType(
        {
            _value(key_hint, key, path): _value(value_hint, item, path)
            for key, item, path in ((k, v, at(where, str(k))) for k, v in plain.items())
        }
    )


def _scalar(hint: type, plain: object, where: str) -> object:
    if hint is float:
        return _float(plain, where)
    if type(plain) is not hint:
        names = {bool: "true or false", int: "a whole number", str: "a text"}
        raise _wrong(where, plain, names[hint])
    if isinstance(plain, str) and not _is_unicode(plain):
        raise _wrong(where, plain, "a text without halves of surrogate pairs")
    return plain


def _float(plain: object, where: str) -> float:
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise _wrong(where, plain, "a number")
    try:
        value = float(plain)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _wrong(where, plain, "a finite number")
    return value + 0.0  # makes 0.0 of -0.0, which equals it but is written differently


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _wrong(where: str, found: object, expected: str) -> ManifestError:
    return ManifestError(
        f"{where or 'manifest'}: found {shown(found)}, expected {expected}. Correct the manifest."
    )
