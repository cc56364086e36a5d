from collections import Counter

import numpy as np
import pytest
from stages import slices
from training_cases import lesson, patches, piece, recipe

from kits_trt.data.plans import Lesson, plan_epoch, plan_validation
from kits_trt.data.stage_pieces import GROUPS
from kits_trt.systems.recipe import Crops, HardCases, SliceRuns, SliceStacks

HALF_TARGET = Crops(per_case=4, foreground_share=0.5)
SHOWN = [0, 0, 0, 1, 1, 2]  # what the slices of a case show


def cases(count: int, shown: list[int] | None = None) -> list[list]:
    """Cases of one piece, whose slices of one voxel show this."""
    labels = np.array(SHOWN if shown is None else shown).reshape(-1, 1, 1)
    return [[piece(np.zeros(labels.shape), labels)] for _ in range(count)]


def stacks(
    shares: dict, *, per_case: int | None = 6, batch_size: int = 8, count: int = 10
) -> Lesson:
    taught = recipe(SliceStacks(per_case=per_case, shares=shares), batch_size=batch_size)
    return lesson(taught, slices((1, 1)), *cases(10))


def crops(count: int, draw: Crops | SliceRuns = HALF_TARGET, **more: object) -> Lesson:
    return lesson(recipe(draw, **more), patches(1, 1, 1), *cases(count))


def groups(taught: Lesson, keys: tuple) -> list[str]:
    found = []
    for key in keys:
        number, z = key.middle
        found.append(GROUPS[taught.cases[key.case].pieces[number].groups[z]])
    return found


THIRDS = {("background",): 1 / 3, ("kidney",): 1 / 3, ("tumour",): 1 / 3}


def test_a_plan_is_a_function_of_seed_and_epoch() -> None:
    taught = stacks(THIRDS)
    plan = plan_epoch(taught, seed=3, epoch=2)
    assert plan == plan_epoch(taught, seed=3, epoch=2)
    assert plan != plan_epoch(taught, seed=4, epoch=2)
    other = plan_epoch(taught, seed=3, epoch=3)
    assert [key.middle for key in plan] != [key.middle for key in other]
    assert [key.index for key in plan] == list(range(60))
    assert {(key.seed, key.epoch, key.augmented) for key in plan} == {(3, 2, True)}


def test_every_batch_has_the_shares() -> None:
    taught = stacks(THIRDS, batch_size=9)
    found = groups(taught, plan_epoch(taught, seed=0, epoch=0))
    for start in range(0, 54, 9):
        assert Counter(found[start : start + 9]) == {"background": 3, "kidney": 3, "tumour": 3}
    assert len(found) == 60


def test_shares_that_do_not_divide_a_batch_are_made_good_by_the_next() -> None:
    taught = stacks(THIRDS, batch_size=8)
    found = groups(taught, plan_epoch(taught, seed=0, epoch=0))
    assert Counter(found) == {"background": 20, "kidney": 20, "tumour": 20}
    for start in range(0, 56, 8):
        assert set(Counter(found[start : start + 8]).values()) <= {2, 3, 4}


def test_groups_may_share_a_part_of_the_batch() -> None:
    taught = stacks({("background", "kidney"): 0.25, ("tumour",): 0.75}, batch_size=4)
    found = Counter(groups(taught, plan_epoch(taught, seed=0, epoch=0)))
    assert found["tumour"] == 45
    assert found["background"] + found["kidney"] == 15
    assert min(found.values()) > 2  # 3 of 5 slices in both are background


def test_a_group_that_no_case_has_gives_its_share_to_the_others() -> None:
    taught = stacks(THIRDS)
    without = lesson(taught.recipe, slices((1, 1)), *cases(4, [0, 0, 1]))
    found = Counter(groups(without, plan_epoch(without, seed=0, epoch=0)))
    assert found == {"background": 12, "kidney": 12}
    nothing = stacks({("tumour",): 1.0})
    nothing = lesson(nothing.recipe, slices((1, 1)), *cases(4, [0, 0, 1]))
    assert plan_epoch(nothing, seed=0, epoch=0) == ()


def test_without_a_number_each_slice_of_the_named_groups_comes_once() -> None:
    taught = stacks({("kidney", "tumour"): 1.0}, per_case=None)
    plan = plan_epoch(taught, seed=0, epoch=0)
    assert len(plan) == 30
    assert {(key.case, key.middle) for key in plan} == {
        (case, (0, z)) for case in range(10) for z in (3, 4, 5)
    }


def test_slices_that_the_stage_is_not_asked_about_are_not_drawn() -> None:
    taught = recipe(SliceStacks(per_case=20, shares={("background",): 1.0}))
    kept = np.array([0, 1, 1, 1, 1, 1], np.bool_)
    labels = np.array(SHOWN).reshape(-1, 1, 1)
    one = lesson(taught, slices((1, 1)), [piece(np.zeros((6, 1, 1)), labels, kept=kept)])
    assert Counter(key.middle for key in plan_epoch(one, seed=0, epoch=0)) == {
        (0, 1): 10,
        (0, 2): 10,
    }


@pytest.mark.parametrize("share", [0.5, 0.25, 1.0, 0.3])
def test_the_due_share_of_crops_is_centred_on_the_target(share: float) -> None:
    taught = crops(250, Crops(per_case=4, foreground_share=share))
    plan = plan_epoch(taught, seed=0, epoch=0)
    assert len(plan) == 1000
    # Exact where it divides a case's four; else a deviation of 10 is more than three sigma.
    assert sum(bool(key.centred) for key in plan) == pytest.approx(
        1000 * share, abs=0 if share != 0.3 else 25
    )
    assert {
        key.centred
        for key in plan_epoch(crops(3, Crops(per_case=4, foreground_share=None)), seed=0, epoch=0)
    } == {None}


def test_the_crops_of_a_case_follow_each_other() -> None:
    plan = plan_epoch(crops(20), seed=0, epoch=0)
    drawn = [key.case for key in plan]
    assert [drawn[i : i + 4] for i in range(0, 80, 4)] == [[case] * 4 for case in drawn[::4]]
    assert sorted(drawn[::4]) == list(range(20)) != drawn[::4]


def test_hard_cases_come_as_often_as_the_recipe_says() -> None:
    taught = crops(
        10, SliceRuns(per_case=7, margin_slices=0), hard_cases=HardCases(share=0.4, times=2.0)
    )
    losses = {name: float(i) for i, name in enumerate("abcdefghij")}

    easy = Counter(key.case for key in plan_epoch(taught, seed=0, epoch=0))
    hard = Counter(key.case for key in plan_epoch(taught, seed=0, epoch=1, case_losses=losses))

    assert easy == dict.fromkeys(range(10), 7)
    # 70 runs over six easy cases of weight 1 and four hard ones of weight 2.
    assert hard == {**dict.fromkeys(range(6), 5), **dict.fromkeys(range(6, 10), 10)}


def test_hard_cases_have_more_of_every_group() -> None:
    shares = {("kidney",): 0.5, ("tumour",): 0.5}
    taught = recipe(
        SliceStacks(per_case=12, shares=shares), hard_cases=HardCases(share=0.5, times=3.0)
    )
    two = lesson(taught, slices((1, 1)), *cases(2))
    plan = plan_epoch(two, seed=0, epoch=1, case_losses={"a": 0.9, "b": 0.1})
    found = Counter(zip((key.case for key in plan), groups(two, plan), strict=True))
    assert found == {(0, "kidney"): 9, (0, "tumour"): 9, (1, "kidney"): 3, (1, "tumour"): 3}


def test_a_case_without_a_piece_is_never_drawn() -> None:
    taught = lesson(recipe(HALF_TARGET), patches(1, 1, 1), *cases(2), [])
    assert Counter(key.case for key in plan_epoch(taught, seed=0, epoch=0)) == {0: 4, 1: 4}


def test_validation_is_always_the_same_and_changes_nothing() -> None:
    taught = crops(5, hard_cases=HardCases(share=0.4, times=2.0))
    plan = plan_validation(taught, seed=1)
    assert plan == plan_validation(taught, seed=1)
    assert not any(key.augmented for key in plan)
    assert Counter(key.case for key in plan) == dict.fromkeys(range(5), 4)
