import copy
import dataclasses
import json
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_examples import VOCABULARY, full_manifest, full_plain

from kits_runtime.errors import ManifestError
from kits_runtime.manifest import manifest_from_json, manifest_to_json
from kits_runtime.manifest.codec import from_plain, shown, to_plain
from kits_runtime.manifest.schema import Card, Manifest, Patches, Provenance, Stage, Tight

Path = tuple[str | int, ...]

# Objects whose keys are names that the manifest chooses itself.
MAPS = {"nets", "files", "tools", "metrics"}
# Fields that may be null, by their own key.
NULLABLE = {"spacing_mm", "size_vox", "mean", "std", "only", "checkpoint_sha256", "commit"}
# Lists whose length the schema fixes; a resample's ``size_vox`` is one, a net's is not.
FIXED = {"size", "spacing_mm", "source", "target", "shape", "stride"}
FIXED |= {"coronal_window_vox", "axial_window_vox"}
# One of each type that JSON has.
OTHERS: tuple[object, ...] = (None, True, 3, 0.5, "?", [], {})

# Whole manifests take long to draw where other work shares the processor.
unhurried = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def written(path: Path) -> str:
    """A path as messages write it, as in ``stages[1].look.of``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def nodes(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every value in a JSON tree with its path, the root first."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from nodes(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from nodes(item, (*path, index))


def at(plain: object, path: Path) -> Any:
    for key in path:
        plain = plain[key]  # type: ignore[index]
    return plain


def has_fixed_length(path: Path) -> bool:
    return path[-1] in FIXED or (path[-1] == "size_vox" and "steps" in path)


def refusal(plain: object) -> str:
    """The message with which a manifest is refused, checked to be fit for a person."""
    with pytest.raises(ManifestError) as caught:
        manifest_from_json(json.dumps(plain))
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert message.isprintable()
    assert len(message) < 400
    assert message.endswith(".")
    return message


def names(message: str, path: Path) -> bool:
    return message.startswith(f"{written(path)}: ")


def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type as the schema's annotations describe it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([strategy_of(member) for member in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(strategy_of(args[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[strategy_of(member) for member in args])
    if origin is not None:
        return st.dictionaries(strategy_of(args[0]), strategy_of(args[1]), max_size=2)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        fields = {f.name: strategy_of(hints[f.name]) for f in dataclasses.fields(hint)}
        return st.builds(hint, **fields)
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(),
        # Adding 0.0 makes 0.0 of -0.0, which is not written as such.
        float: st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
        str: st.text(),
        types.NoneType: st.none(),
    }
    return scalars[hint]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def test_the_full_manifest_survives_the_round_trip_exactly() -> None:
    text = manifest_to_json(full_manifest())
    again = manifest_from_json(text)
    assert again == full_manifest()
    assert manifest_to_json(again) == text


def test_the_full_manifest_holds_the_whole_vocabulary() -> None:
    def classes(value: object) -> Iterator[type]:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield type(value)
            for field in dataclasses.fields(value):
                yield from classes(getattr(value, field.name))
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from classes(item)
        elif isinstance(value, tuple):
            for item in value:
                yield from classes(item)

    assert set(classes(full_manifest())) == set(VOCABULARY)


@pytest.mark.parametrize("cls", VOCABULARY, ids=lambda cls: cls.__name__)
@unhurried
@given(data=st.data())
def test_any_instance_survives_the_round_trip_through_json(cls: type, data: st.DataObject) -> None:
    value = data.draw(strategy_of(cls))
    text = json.dumps(to_plain(value), allow_nan=False)
    again = from_plain(cls, json.loads(text))
    assert again == value
    assert json.dumps(to_plain(again)) == text


def test_keys_stand_in_the_order_of_the_fields_with_kind_first() -> None:
    patches = Patches(shape=(1, 2, 3), stride=(1, 1, 1), join="mean")
    assert json.dumps(to_plain(patches)) == (
        '{"kind": "patches", "shape": [1, 2, 3], "stride": [1, 1, 1], "join": "mean"}'
    )


def test_equal_manifests_have_the_same_text() -> None:
    card = full_manifest().card
    same = dataclasses.replace(
        full_manifest(),
        nets=dict(reversed(list(full_manifest().nets.items()))),
        card=dataclasses.replace(card, metrics={"b": 0.0, "a": 1}),
    )
    other = dataclasses.replace(same, card=dataclasses.replace(card, metrics={"a": 1.0, "b": -0.0}))
    assert same == other
    assert manifest_to_json(same) == manifest_to_json(other)
    assert '"a": 1.0,\n   "b": 0.0' in manifest_to_json(same)


def test_order_of_keys_in_the_text_does_not_matter() -> None:
    def backwards(value: object) -> object:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return [backwards(item) for item in value] if isinstance(value, list) else value

    assert manifest_from_json(json.dumps(backwards(full_plain()))) == full_manifest()


def test_what_nobody_could_read_back_is_not_written() -> None:
    stage = dataclasses.replace(full_manifest().stages[0], name=7)  # type: ignore[arg-type]
    manifest = dataclasses.replace(full_manifest(), stages=(stage,))
    with pytest.raises(ManifestError, match=r"stages\[0\]\.name: found 7, expected a text"):
        manifest_to_json(manifest)


def test_every_missing_key_is_named() -> None:
    plain = full_plain()
    unnamed, tried = [], 0
    for path, value in list(nodes(plain)):
        if isinstance(value, dict) and (not path or path[-1] not in MAPS):
            for key in list(value):
                before = dict(value)
                del value[key]
                if not names(refusal(plain), (*path, key)):
                    unnamed.append((*path, key))
                value.clear()
                value.update(before)
                tried += 1
    assert unnamed == []
    assert tried > 200
    assert plain == full_plain()


def test_every_extra_key_is_named() -> None:
    plain = full_plain()
    unnamed, tried = [], 0
    for path, value in list(nodes(plain)):
        if isinstance(value, dict):
            value["extra"] = None
            if not names(refusal(plain), (*path, "extra")):
                unnamed.append(path)
            del value["extra"]
            tried += 1
    assert unnamed == []
    assert tried > 50


def same_type(found: object, other: object, path: Path) -> bool:
    """Whether ``other`` may stand where ``found`` stands, as far as its JSON type goes."""
    own_key = next((key for key in reversed(path) if isinstance(key, str)), None)
    if found is None:
        return other is None or (isinstance(other, int | float | str) and other is not True)
    if other is None:
        return own_key in NULLABLE and not isinstance(found, list)
    if isinstance(found, float):
        return isinstance(other, int | float) and other is not True
    if isinstance(found, list):
        return isinstance(other, list) and not has_fixed_length(path)
    return type(found) is type(other)


def test_every_value_of_a_wrong_type_is_named() -> None:
    plain = full_plain()
    unnamed, tried = [], 0
    for path, value in list(nodes(plain)):
        for other in OTHERS:
            if not path or same_type(value, other, path):
                continue
            at(plain, path[:-1])[path[-1]] = other
            if not names(refusal(plain), path):
                unnamed.append((path, other))
            at(plain, path[:-1])[path[-1]] = value
            tried += 1
    assert unnamed == []
    assert tried > 1500
    assert plain == full_plain()


def test_every_wrong_item_of_a_list_is_named() -> None:
    plain = full_plain()
    unnamed = []
    for path, value in list(nodes(plain)):
        if isinstance(value, list):
            own = re.escape(written(path))
            where = own if has_fixed_length(path) else rf"{own}\[{len(value)}\](\.kind)?"
            value.append({"kind": "?"})
            if not re.match(rf"{where}: ", refusal(plain)):
                unnamed.append(path)
            value.pop()
    assert unnamed == []


def test_a_list_of_fixed_length_may_not_be_shorter_or_longer() -> None:
    plain = full_plain()
    unnamed, tried = [], 0
    for path, value in list(nodes(plain)):
        if isinstance(value, list) and has_fixed_length(path):
            for items in (value[:-1], [*value, value[-1]]):
                at(plain, path[:-1])[path[-1]] = items
                if not names(refusal(plain), path):
                    unnamed.append((path, items))
                tried += 1
            at(plain, path[:-1])[path[-1]] = value
    assert unnamed == []
    assert tried > 30


def test_true_is_no_number_wherever_a_number_is_expected() -> None:
    plain = full_plain()
    tried = 0
    for path, value in list(nodes(plain)):
        if isinstance(value, int | float) and not isinstance(value, bool):
            at(plain, path[:-1])[path[-1]] = True
            message = refusal(plain)
            assert names(message, path)
            assert "found True, expected a" in message
            at(plain, path[:-1])[path[-1]] = value
            tried += 1
    assert tried > 80


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("stages", 0, "look", "kind"), "sphere", "found 'sphere', expected one of ['boxes', 'for"),
        (("stages", 0, "look", "kind"), ["whole"], "found ['whole'], expected one of"),
        (("stages", 2, "look", "centre", "kind"), "voxels", "found 'voxels', expected one of"),
        (("stages", 0, "windows", "join"), "sum", "found 'sum', expected one of ['keep_centre'"),
        (("stages", 0, "clean_on"), [], "found [], expected one of ['model', 'scan']"),
        (("nets", "finder", "in_channels"), 1.0, "found 1.0, expected a whole number"),
        (("stages", 0, "clean", 2, "per_slice"), 1, "found 1, expected true or false"),
        (("card", "licence"), 2, "found 2, expected a text"),
        (("card", "metrics", "dice_kidney"), "0.5", "found '0.5', expected a number"),
        (("stages", 0, "steps", 2, "target"), [0.0], "found [0.0], expected a list of 2"),
        (("overlay"), "whole", "found 'whole', expected a list"),
        (("nets"), [], "found [], expected an object"),
        (("stages", 0, "look"), "whole", "found 'whole', expected an object with a 'kind'"),
    ],
)
def test_a_wrong_value_is_shown_beside_what_was_expected(
    path: Path, value: object, message: str
) -> None:
    plain = full_plain()
    path = (path,) if isinstance(path, str) else path
    at(plain, path[:-1])[path[-1]] = value
    assert refusal(plain).startswith(f"{written(path)}: {message}")


def test_an_unknown_precision_is_named_by_its_key() -> None:
    plain = full_plain()
    files = plain["nets"]["finder"]["files"]
    files["fp64"] = files["fp32"]
    assert refusal(plain).startswith("nets.finder.files.fp64: found 'fp64', expected one of ['fp")


def test_a_class_that_stands_alone_checks_its_kind() -> None:
    with pytest.raises(ManifestError, match=r"here\.kind: found 'slab', expected 'tight'"):
        from_plain(Tight, {"kind": "slab", "margin_mm": 1.0}, where="here")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_know_are_refused(number: str) -> None:
    text = manifest_to_json(full_manifest()).replace("-79.0", number)
    with pytest.raises(ManifestError, match=f"found {number}, expected finite numbers"):
        manifest_from_json(text)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" + "0" * 399])
def test_a_number_too_large_for_a_float_is_refused_by_name(number: str) -> None:
    text = manifest_to_json(full_manifest()).replace("-79.0", number)
    with pytest.raises(ManifestError) as caught:
        manifest_from_json(text)
    assert str(caught.value).startswith("stages[0].look.above_hu: found ")
    assert "expected a finite number" in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("digits", [401, 5000, 500_000])
def test_a_whole_number_of_absurd_length_is_refused(digits: int) -> None:
    text = manifest_to_json(full_manifest()).replace('"bytes": 10', '"bytes": ' + "9" * digits)
    with pytest.raises(ManifestError, match=f"a whole number of {digits} digits, expected at most"):
        manifest_from_json(text)


def test_a_whole_number_in_the_place_of_a_float_becomes_one() -> None:
    text = manifest_to_json(full_manifest()).replace("-79.0", "-79")
    assert manifest_from_json(text) == full_manifest()
    assert manifest_to_json(manifest_from_json(text)) == manifest_to_json(full_manifest())


def test_immense_integers_are_refused_without_being_written_out() -> None:
    with pytest.raises(ManifestError, match="found int with too many digits to show, expected a t"):
        from_plain(Card, {**full_plain()["card"], "licence": 10**10_000})
    with pytest.raises(ManifestError, match="finite number"):
        from_plain(Tight, {"kind": "tight", "margin_mm": -(10**10_000)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest: found 'Expecting value' in line 1, column 1, expected JSON"),
        ("{", "manifest: found 'Expecting property name"),
        ('{"a": 1}\n,', "manifest: found 'Extra data' in line 2, column 1, expected JSON"),
        ("\ufeff{}", "manifest: found 'Unexpected UTF-8 BOM"),
        ('{"a": "\n"}', "manifest: found 'Invalid control character at' in line 1, column 8"),
        ("[]", "manifest: found [], expected an object"),
        ("null", "manifest: found None, expected an object"),
        ("3", "manifest: found 3, expected an object"),
        ('"{}"', "manifest: found '{}', expected an object"),
        ("{}", "card: missing key"),
        ('{"a": 1, "b": 2, "a": 1}', "manifest: found the key 'a' twice in one object"),
        ('{"x": [{"k\\n": 1, "k\\u000a": 2}]}', "manifest: found the key 'k\\n' twice"),
        ('{"schema": "1.0.0", "": 1}', "'': unknown key; expected one of ['card', 'labels'"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest_from_json(text)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


def test_a_key_that_stands_twice_anywhere_is_refused() -> None:
    text = manifest_to_json(full_manifest()).replace('"above_hu"', '"above_hu": 0, "above_hu"')
    with pytest.raises(ManifestError, match="found the key 'above_hu' twice"):
        manifest_from_json(text)


def test_twins_among_very_many_keys_are_found_without_comparing_all_pairs() -> None:
    keys = ",".join(f'"{i}":0' for i in range(200_000))
    with pytest.raises(ManifestError, match="found the key '199999' twice"):
        manifest_from_json("{" + keys + ',"199999":0}')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_a_bomb_of_nested_brackets_is_refused(opening: str, closing: str) -> None:
    for text in (opening * 200_000, opening * 200_000 + "1" + closing * 200_000):
        with pytest.raises(ManifestError, match="nested without end"):
            manifest_from_json(text)


def test_a_deep_value_in_a_wrong_place_is_refused_and_shown_in_short() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ManifestError, match=r"card.licence: found \[\[.*\.\.\..*expected a text"):
        from_plain(Manifest, {**full_plain(), "card": {**full_plain()["card"], "licence": deep}})
    with pytest.raises(ManifestError, match=r"stages\[0\].look: found \[\[.*expected an object"):
        from_plain(Stage, {**full_plain()["stages"][0], "look": deep}, where="stages[0]")


@pytest.mark.parametrize("key", ["a\nb", "a\u2028b", "\x1b[2J", "\ud800", "x" * 10_000, "a.b", ""])
def test_a_strange_key_is_quoted_on_one_short_line(key: str) -> None:
    plain = full_plain()
    plain["card"]["metrics"][key] = None
    message = refusal(plain)
    assert message.startswith(("card.metrics.'", "card.metrics: "))
    plain = full_plain()
    plain["stages"][0][key] = 1
    assert refusal(plain).startswith("stages[0].'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (0.1, "0.1"),
        ([1, None], "[1, None]"),
        ({"a": [{"b": [[]]}]}, "{'a': [{'b': [...]}]}"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("a\nb", r"'a\nb'"),
        ("a" * 61, "'" + "a" * 27 + "..." + "a" * 28 + "'"),
        (["a" * 40, "b" * 40], "['" + "a" * 40 + "', '" + "b" * 11 + "..."),
        ([10**10_000], "list with too many digits to show"),
    ],
)
def test_a_value_is_shown_in_one_short_line(value: object, text: str) -> None:
    assert shown(value) == text


@unhurried
@given(value=json_values | st.text() | st.integers().map(lambda n: n**99))
def test_no_value_is_shown_in_more_than_60_characters(value: object) -> None:
    assert len(shown(value)) <= 60
    assert shown(value).isprintable()


def test_a_text_that_no_file_can_hold_is_refused() -> None:
    plain = full_plain()
    plain["card"]["remarks"] = ["fine", "half \ud800"]
    assert refusal(plain).startswith(r"card.remarks[1]: found 'half \ud800', expected a text with")


def test_mappings_that_were_read_cannot_be_changed() -> None:
    manifest = manifest_from_json(manifest_to_json(full_manifest()))
    mappings: Sequence[Any] = (
        manifest.nets,
        manifest.nets["finder"].files,
        manifest.provenance.tools,
        manifest.card.metrics,
    )
    for mapping in mappings:
        with pytest.raises(TypeError):
            mapping["fp32"] = None


def test_reading_changes_nothing_in_what_it_was_given() -> None:
    plain = full_plain()
    before = copy.deepcopy(plain)
    manifest = from_plain(Manifest, plain)
    plain["nets"].clear()
    plain["card"]["metrics"]["dice_kidney"] = 9.0
    assert manifest == full_manifest()
    assert before == full_plain()


def outcome(read: Callable[[], object]) -> object:
    """What reading gave, or the message of its refusal."""
    try:
        return read()
    except ManifestError as error:
        return str(error)


@pytest.mark.parametrize("cls", VOCABULARY, ids=lambda cls: cls.__name__)
@unhurried
@given(plain=json_values)
def test_any_json_value_is_read_or_refused_by_name(cls: type, plain: object) -> None:
    made = outcome(lambda: from_plain(cls, plain))
    assert isinstance(made, cls) or str(made).isprintable()


@unhurried
@given(data=st.data(), other=json_values)
def test_any_json_value_in_any_place_is_read_or_refused(data: st.DataObject, other: object) -> None:
    plain = full_plain()
    path = data.draw(st.sampled_from([path for path, _ in nodes(plain) if path]))
    at(plain, path[:-1])[path[-1]] = other
    made = outcome(lambda: manifest_from_json(json.dumps(plain)))
    if isinstance(made, Manifest):
        assert manifest_from_json(manifest_to_json(made)) == made
    else:
        assert str(made).isprintable()


@given(text=st.text(max_size=40) | st.text('[]{}":,0.e-9', max_size=40))
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    with pytest.raises(ManifestError):
        manifest_from_json(text)


def test_provenance_may_say_that_it_knows_nothing() -> None:
    plain = {"checkpoint_sha256": None, "commit": None, "opset": 17, "tools": {}}
    nothing = Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={})
    assert from_plain(Provenance, plain) == nothing
