"""One result a scan, medians of many, groups and intervals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kits_bench.accuracy import (
    Result,
    accuracy_of,
    codes_of,
    kept_result,
    median_interval,
    size_of,
    thickness_of,
    worst_first,
)

PLAIN = Result(
    case="a",
    phase="arterial",
    thickness_mm=5.0,
    tumour_cm=3.0,
    dice_kidney=0.9,
    dice_tumour=0.5,
    empty=False,
    warnings=(),
    total_ms=1000,
)


def test_medians_are_those_of_all_and_of_each_group() -> None:
    results = [
        replace(PLAIN, case="a", dice_kidney=0.9, dice_tumour=0.5),
        replace(PLAIN, case="b", dice_kidney=0.8, dice_tumour=0.1, phase="excretory"),
        replace(PLAIN, case="c", dice_kidney=0.6, dice_tumour=1.0, tumour_cm=0, empty=True),
    ]
    found = accuracy_of(results)
    assert found["all"]["dice_kidney"]["median"] == 0.8
    assert found["all"]["dice_kidney"]["lowest"] == 0.6
    # A scan without a tumour says nothing about finding one.
    assert found["all"]["dice_tumour"]["median"] == pytest.approx(0.3)
    assert found["groups"]["phase"]["excretory"]["dice_tumour"]["median"] == 0.1
    assert found["groups"]["phase"]["arterial"]["cases"] == 2
    assert found["groups"]["tumour size"]["no tumour"]["dice_tumour"] is None
    assert found["empty_results"] == 1
    assert (found["tumour_free"], found["tumour_free_with_a_tumour_found"]) == (1, 0)


@pytest.mark.parametrize(
    ("cm", "name"),
    [
        (0, "no tumour"),
        (2.0, "tumour up to 2 cm"),
        (2.1, "2 to 4 cm"),
        (7.0, "4 to 7 cm"),
        (7.1, "tumour above 7 cm"),
    ],
)
def test_tumours_are_grouped_by_their_diameter(cm: float, name: str) -> None:
    assert size_of(replace(PLAIN, tumour_cm=cm)) == name


@pytest.mark.parametrize(
    ("mm", "name"),
    [(1.5, "slices up to 1.5 mm"), (1.6, "above 1.5 to 3 mm"), (3.1, "slices above 3 mm")],
)
def test_scans_are_grouped_by_thickness(mm: float, name: str) -> None:
    assert thickness_of(replace(PLAIN, thickness_mm=mm)) == name


def test_the_interval_of_a_median_is_that_of_the_binomial_distribution() -> None:
    # Of 101 ranks the median's 95 % interval runs, by the binomial distribution, from 40 to 60.
    low, high = median_interval([float(value) for value in range(101)])
    assert low == pytest.approx(40, abs=1)
    assert high == pytest.approx(60, abs=1)


def test_the_interval_of_equal_values_is_that_value() -> None:
    assert median_interval([0.7] * 9) == (0.7, 0.7)


def test_codes_are_what_stands_before_the_first_colon_and_has_no_blank() -> None:
    warnings = ("cut-off: the mask", "neither sform nor qform: axes", "cut-off: again", "plain")
    assert codes_of(warnings) == ("cut-off",)


def test_a_result_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "a.json"
    given = replace(PLAIN, warnings=("cut-off",))
    assert kept_result(path, lambda: given) == given
    assert kept_result(path, lambda: PLAIN) == given


def test_the_worst_comes_first() -> None:
    values = np.random.default_rng(0).random(9)
    results = [replace(PLAIN, case=str(i), dice_kidney=v) for i, v in enumerate(values)]
    assert [r.case for r in worst_first(results)] == [str(i) for i in np.argsort(values)]
