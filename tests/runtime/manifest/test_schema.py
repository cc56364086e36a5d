import dataclasses
import inspect
import re
import types
from typing import Any, get_args, get_type_hints

import pytest
from manifest_examples import VOCABULARY, full_manifest

from kits_runtime.manifest import SCHEMA_VERSION, schema
from kits_runtime.manifest.schema import Manifest

every_class = pytest.mark.parametrize("cls", VOCABULARY, ids=lambda cls: cls.__name__)
UNIONS = {
    name: get_args(value)
    for name, value in vars(schema).items()
    if isinstance(value, types.UnionType)
}


def sample(cls: type) -> Any:
    """An instance whose values do not matter."""
    return cls(**dict.fromkeys((field.name for field in dataclasses.fields(cls)), 0))


def test_the_vocabulary_is_the_one_that_is_documented() -> None:
    assert {name: sorted(cls.kind for cls in classes) for name, classes in UNIONS.items()} == {
        "AxisSize": ["full", "millimetres", "tight", "voxels"],
        "Centre": ["middle_of_box", "middle_of_projections"],
        "Look": ["boxes", "foreground", "part", "whole"],
        "MaskStep": [
            "centre_in_mask",
            "centre_on_brighter_side",
            "dim_outside_mask",
            "multiply_by_mask",
        ],
        "Step": [
            "centre_in_mask",
            "centre_on_brighter_side",
            "clip",
            "clip_mean_sigma",
            "dim_outside_mask",
            "multiply_by_mask",
            "resample",
            "scale",
            "z_score",
        ],
        "Windows": ["patches", "slices"],
        "Decide": ["argmax", "threshold"],
        "Clean": [
            "drop_small",
            "eigenvalue_ratio",
            "fill_holes",
            "keep_largest",
            "keep_surest",
            "overlap",
        ],
    }


def test_a_kind_is_the_name_of_its_class_in_snake_case() -> None:
    for cls in VOCABULARY:
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        assert getattr(cls, "kind", snake) == snake


def test_classes_without_a_kind_stand_alone_in_their_place() -> None:
    without = {cls.__name__ for cls in VOCABULARY if not hasattr(cls, "kind")}
    assert without == {"Card", "Manifest", "Net", "NetFile", "ParityLink", "Provenance", "Stage"}
    assert not [cls for classes in UNIONS.values() for cls in classes if cls.__name__ in without]


@every_class
def test_no_field_can_be_assigned(cls: type) -> None:
    value = sample(cls)
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(value, field.name)


@every_class
def test_no_attribute_can_be_added(cls: type) -> None:
    assert not hasattr(sample(cls), "__dict__")
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        sample(cls).novelty = 1


@every_class
def test_every_field_is_required_and_given_by_name(cls: type) -> None:
    parameters = list(inspect.signature(cls).parameters.values())
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)


@every_class
def test_every_class_says_what_it_means(cls: type) -> None:
    assert not (cls.__doc__ or "").startswith(f"{cls.__name__}(")


def test_no_field_can_hold_a_list_or_a_dict_that_could_be_changed() -> None:
    hints = [str(hint) for cls in VOCABULARY for hint in get_type_hints(cls).values()]
    assert not [hint for hint in hints if re.search(r"\b(list|dict|set)\[", hint)]


def test_lengths_and_intensities_carry_their_unit() -> None:
    named = {field.name for cls in VOCABULARY for field in dataclasses.fields(cls)}
    assert {"spacing_mm", "length_mm", "margin_mm", "above_hu", "lower_hu", "upper_hu"} <= named
    assert {"target_hu", "size_vox", "coronal_window_vox", "axial_window_vox"} <= named


def test_equal_values_make_equal_manifests() -> None:
    other = dataclasses.replace(full_manifest(), preset="paper")
    assert full_manifest() == full_manifest()
    assert other != full_manifest()
    assert isinstance(other, Manifest)


def test_the_schema_has_a_semantic_version() -> None:
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", SCHEMA_VERSION)
