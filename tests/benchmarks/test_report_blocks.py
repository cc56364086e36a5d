"""Numbers, axes and text of a report against answers by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits_bench.figures import Interval
from kits_bench.report.blocks import Table, duration, figure, listed, ratio, times
from kits_bench.report.drawing import Axis, linear_axis, log_axis
from kits_bench.report.markdown import plain


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"), (1, "1.00"), (9.996, "10.0"), (0.012345, "0.0123"), (123.4, "123"),
        (999.6, "1000"), (12345.6, "12346"), (-2.5, "-2.50"), (float("nan"), "nan"),
    ],
)  # fmt: skip
def test_a_figure_has_three_significant_digits(value: float, told: str) -> None:
    assert figure(value) == told


@given(st.floats(1e-6, 1e6))
def test_a_figure_is_within_half_a_percent(value: float) -> None:
    assert float(figure(value)) == pytest.approx(value, rel=5.1e-3)


def test_a_ratio_has_its_interval_unless_it_is_one_measurement() -> None:
    several = Interval(value=2.0, low=1.5, high=2.5)
    one = Interval(value=2.0, low=2.0, high=2.0)
    assert (ratio(several), ratio(one)) == ("2.00 x (1.50 to 2.50)", "2.00 x")
    assert times(several) == "2.00 times as long (95 % interval 1.50 to 2.50)"
    assert times(one) == "2.00 times as long"


def test_a_duration_becomes_seconds_at_one_second() -> None:
    assert [duration(ms) for ms in (8.704, 999.4, 999.6, 17520)] == [
        "8.70 ms",
        "999 ms",
        "1.00 s",
        "17.5 s",
    ]


def test_names_are_listed() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]


def test_a_row_fits_its_columns_or_says_why_it_does_not() -> None:
    Table(title="t", columns=("a", "b", "c"), rows=(("x", "unrun"),))
    with pytest.raises(ValueError, match="found 4 cells, expected 3"):
        Table(title="t", columns=("a", "b", "c"), rows=(("x", "1", "2", "3"),))


def test_a_logarithmic_axis_puts_the_geometric_mean_in_the_middle() -> None:
    axis = Axis(low=1, high=100, start=0, end=200, log=True)
    assert (axis.at(10), axis.ticks) == (100, (1, 10, 100))
    found = log_axis([0.3, 40], 0, 1)
    assert (found.low, found.high) == pytest.approx((0.1, 100))


@given(st.lists(st.floats(1e-3, 1e5), min_size=1))
def test_an_axis_holds_all_values_and_has_a_few_round_ticks(values: list[float]) -> None:
    axis = linear_axis(values, 0, 100)
    assert all(-1e-9 <= axis.at(value) <= 100 + 1e-6 for value in values)
    assert 3 <= len(axis.ticks) <= 7


def test_markdown_shows_names_as_they_are() -> None:
    assert plain("a|b <c> `d`\n_e_") == r"a\|b \<c\> \`d\` \_e\_"
