"""Figures against answers by hand."""

import numpy as np
import pytest

from kits_bench.figures import least_squares, percentiles, ratio_of_medians, ratio_of_totals


def test_percentiles_lie_between_the_ordered_values() -> None:
    assert percentiles([10, 20, 30, 40, 50]) == {"p50": 30.0, "p90": 46.0, "p99": 49.6}


def test_a_ratio_of_constant_times_has_no_width() -> None:
    found = ratio_of_medians([6.0, 6.0, 6.0], [2.0, 2.0, 2.0])
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)


def test_a_ratio_of_one_round_is_that_round() -> None:
    found = ratio_of_medians([5.0], [2.0])
    assert (found.value, found.low, found.high) == (2.5, 2.5, 2.5)


def test_rounds_are_drawn_in_pairs() -> None:
    # Both sides are slow together: each pair has the ratio 2, so every draw has.
    found = ratio_of_medians([2.0, 20.0, 6.0], [1.0, 10.0, 3.0])
    assert (found.low, found.high) == (2.0, 2.0)


def test_the_interval_of_two_rounds_reaches_from_one_to_the_other() -> None:
    # A quarter of the draws is twice the first round (1), a quarter twice the second (3), half has
    # the median of both (2): the outer 2.5 % on each side are the rounds themselves.
    found = ratio_of_medians([1.0, 3.0], [1.0, 1.0])
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


def test_totals_weigh_long_cases_more() -> None:
    found = ratio_of_totals([10.0, 2.0], [5.0, 2.0])
    assert found.value == pytest.approx(12 / 7)
    assert (found.low, found.high) == (1.0, 2.0)


def test_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inhomogeneous|rounds"):
        ratio_of_medians([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="found 0 and 0 rounds"):
        ratio_of_medians([], [])


def test_a_line_through_points_on_a_line_is_that_line() -> None:
    line = least_squares([29, 100, 300], [3 * n + 40 for n in (29, 100, 300)])
    assert line.slope == pytest.approx(3)
    assert line.intercept == pytest.approx(40)
    assert line.r2 == pytest.approx(1)


def test_a_line_has_the_least_squared_error() -> None:
    # By hand: means 2 and 3, slope (-1 * -2 + 0 + 1 * 1) / 2 = 1.5, intercept 0.
    line = least_squares([1, 2, 3], [1, 4, 4])
    assert (line.slope, line.intercept) == pytest.approx((1.5, 0.0))
    assert line.r2 == pytest.approx(1 - 1.5 / 6)
    rng = np.random.default_rng(0)
    x, y = rng.random(20), rng.random(20)
    line = least_squares(x.tolist(), y.tolist())
    assert (line.slope, line.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))


def test_points_above_each_other_have_no_line() -> None:
    with pytest.raises(ValueError, match="all equal"):
        least_squares([5, 5], [1, 2])
