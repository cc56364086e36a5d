"""Splits as recipes word them, and what checkpoints say of their data."""

import json
from pathlib import Path

import pytest
from training_cases import write_case

from kits_runtime.errors import ScanError
from kits_trt.data.datasets import TrainingCase, find_training_cases
from kits_trt.phantom.cli import main as make_phantoms
from kits_trt.phantom.marker import read_marked
from kits_trt.systems import SYSTEMS
from kits_trt.systems.recipe import FirstCases, RandomSplit
from kits_trt.train.provenance import (
    BEGUN_FROM,
    KITS_LICENCE,
    PHANTOM_LICENCE,
    UNKNOWN_LICENCE,
    data_facts,
    joint_licence,
    plain_recipe,
    with_origin,
)
from kits_trt.train.split import split_cases


def cases(count: int) -> list[TrainingCase]:
    return [
        TrainingCase(name=f"case_{n:05d}", scan=Path("a"), labels=Path("b"), classes={0: 0})
        for n in range(count)
    ]


def test_the_first_cases_teach_or_their_share_of_fewer() -> None:
    published = FirstCases(count=195, of=210)
    found = split_cases(cases(210), published, seed=5)
    assert [len(found.teaching), len(found.validating)] == [195, 15]
    assert found.teaching == tuple(cases(210)[:195])
    found = split_cases(cases(28), published, seed=5)
    assert found.validating == tuple(cases(28)[26:])


def test_a_random_split_depends_on_the_seed_alone_and_covers_all() -> None:
    words = RandomSplit(train_share=0.8)
    one, same, other = (split_cases(cases(50), words, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one.teaching) == 40
    names = {case.name for case in (*one.teaching, *one.validating)}
    assert len(names) == 50


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_neither_part_is_ever_empty(share: float) -> None:
    found = split_cases(cases(2), RandomSplit(train_share=share), seed=0)
    assert (len(found.teaching), len(found.validating)) == (1, 1)
    with pytest.raises(ScanError, match="found 1 case"):
        split_cases(cases(1), RandomSplit(train_share=share), seed=0)


def test_phantoms_are_listed_with_where_they_come_from(tmp_path: Path) -> None:
    small = ("--size", "8,32,32", "--spacing", "20,12,12", "-q")
    assert make_phantoms([str(tmp_path / "a"), "--cases", "2", "--seed", "4", *small]) == 0
    marked = read_marked(tmp_path / "a")
    assert sorted(marked) == ["case_00000", "case_00001"]
    assert {(one.seed, one.anatomy) for one in marked.values()} == {(4, False)}
    facts = data_facts(tmp_path / "a", find_training_cases(tmp_path / "a"))
    assert (facts.kind, facts.licence) == ("phantom", PHANTOM_LICENCE)
    (tmp_path / "a" / "phantom.json").unlink()  # nobody knows where these maps come from now
    anatomy = ["--anatomy", str(tmp_path / "a"), "--cases", "1", "-q"]
    assert make_phantoms([str(tmp_path / "b"), *anatomy]) == 0
    assert read_marked(tmp_path / "b")["case_00000"].anatomy
    facts = data_facts(tmp_path / "b", find_training_cases(tmp_path / "b"))
    assert facts.licence == KITS_LICENCE


def test_one_case_that_is_no_phantom_makes_the_folder_kits(tmp_path: Path) -> None:
    small = ("--size", "8,32,32", "--spacing", "20,12,12", "-q")
    assert make_phantoms([str(tmp_path), "--cases", "1", *small]) == 0
    write_case(tmp_path / "case_00007")
    found = find_training_cases(tmp_path)
    assert data_facts(tmp_path, found).licence == KITS_LICENCE
    write_case(tmp_path / "case_00007")
    first = data_facts(tmp_path, found)
    (tmp_path / "case_00007" / "segmentation.nii.gz").write_bytes(b"other")
    assert data_facts(tmp_path, found).sha256 != first.sha256


def test_a_damaged_list_of_phantoms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(ScanError, match="expected the list that kits-phantom writes"):
        read_marked(tmp_path)


def test_the_strictest_licence_holds() -> None:
    assert joint_licence([PHANTOM_LICENCE, PHANTOM_LICENCE]) == PHANTOM_LICENCE
    assert joint_licence([PHANTOM_LICENCE, KITS_LICENCE]) == KITS_LICENCE
    assert joint_licence([UNKNOWN_LICENCE, KITS_LICENCE]) == UNKNOWN_LICENCE
    assert joint_licence([PHANTOM_LICENCE, "CC0 (as the training data states)"]).startswith("CC0")


def test_facts_tell_what_earlier_weights_were_trained_on_and_only_once() -> None:
    old = {"licence": PHANTOM_LICENCE, "data": {"description": "Old.", "real_anatomy": False}}
    new = {"licence": PHANTOM_LICENCE, "data": {"description": "New.", "kind": "phantom"}}
    both = with_origin(new, old)
    expected = f"New. {BEGUN_FROM} Old."
    assert both["data"] == {"description": expected, "kind": "phantom", "real_anatomy": False}
    assert with_origin(new, both)["data"] == both["data"], "going on says nothing new"
    assert with_origin(new, {"licence": PHANTOM_LICENCE})["data"]["description"] == "New."


@pytest.mark.parametrize("name", SYSTEMS)
def test_recipes_go_into_the_header_in_full(name: str) -> None:
    for recipe in SYSTEMS[name]("paper").recipes.values():
        plain = json.loads(json.dumps(plain_recipe(recipe)))
        assert plain["kind"] == "Recipe"
        assert plain["batch_size"] == recipe.batch_size
        assert plain["loss"]["kind"] == type(recipe.loss).__name__
        assert plain["optimiser"]["learning_rate"] == recipe.optimiser.learning_rate
        assert [one["change"]["kind"] for one in plain["augment"]] == [
            type(one.change).__name__ for one in recipe.augment
        ]
