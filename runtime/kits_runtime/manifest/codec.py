"""Reads frozen dataclasses from plain JSON values, strictly, and writes them back exactly.

Every field must be there and nothing else; a value of the wrong type is an error that names the
field by its path (``stages[1].look.of``). A class with a ``kind`` is written with that key first
and told by it when several classes may stand in one place.
"""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kits_runtime.errors import ManifestError

T = TypeVar("T")


def from_plain(cls: type[T], plain: object, *, where: str = "") -> T:
    """The instance of dataclass ``cls`` that ``plain`` (parsed JSON) describes.

    Raises:
        ManifestError: names the field, what was found and what was expected.
    """
    made = _dataclass_from(cls, plain, where)
    assert isinstance(made, cls)
    return made


def to_plain(value: object) -> object:
    """The JSON form of a dataclass, such that ``from_plain`` gives back an equal instance."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = getattr(value, "kind", None)
        return plain if kind is None else {"kind": kind, **plain}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    return value


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
                f"{_at(where, str(key))}: unknown key; expected one of {sorted(expected)}. "
                "Remove it, or use a release that knows it."
            )
    for key in sorted(expected):
        if key not in plain:
            raise ManifestError(f"{_at(where, key)}: missing key. Add it; all keys are required.")
    if kind and plain["kind"] != kind:
        raise _wrong(_at(where, "kind"), plain["kind"], repr(kind))
    return cls(
        **{name: _value(hint, plain[name], _at(where, name)) for name, hint in hints.items()}
    )


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
        raise ManifestError(f"{_at(where, 'kind')}: missing key. Add one of {sorted(kinds)}.")
    kind = plain["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise _wrong(_at(where, "kind"), kind, f"one of {sorted(kinds)}")
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
            _value(key_hint, key, where): _value(value_hint, item, _at(where, str(key)))
            for key, item in plain.items()
        }
    )


def _scalar(hint: type, plain: object, where: str) -> object:
    if hint is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        if not math.isfinite(plain):
            raise _wrong(where, plain, "a finite number")
        return float(plain)
    if type(plain) is not hint:
        raise _wrong(
            where,
            plain,
            {bool: "true or false", int: "a whole number", str: "a text"}.get(hint, "a number"),
        )
    return plain


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _wrong(where: str, found: object, expected: str) -> ManifestError:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ManifestError(
        f"{where or 'manifest'}: found {shown}, expected {expected}. Correct the manifest."
    )
