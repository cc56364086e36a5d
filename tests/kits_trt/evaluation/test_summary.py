import statistics

import numpy as np
import pytest

from kits_runtime.errors import UsageError
from kits_trt.evaluation.gates import Gate, GateError, check_gates, gate_from_text
from kits_trt.evaluation.protocols import PROTOCOLS
from kits_trt.evaluation.scores import CaseScores
from kits_trt.evaluation.summary import mean_intervals, summarise

KITS19 = PROTOCOLS["kits19"]


def case(name: str, kidney: float, tumour: float, *, empty: tuple[str, ...] = ()) -> CaseScores:
    scores = {"Dice_kidney": kidney, "Dice_tumor": tumour, "Composite": (kidney + tumour) / 2}
    return CaseScores(case=name, scores=scores, empty_truth=empty, empty_prediction=("tumor",))


CASES = [
    case("a", 0.9, 0.8),
    case("b", 1.0, 0.0, empty=("tumor",)),
    case("c", 0.75, 0.25),
    case("d", 1.0, 1.0),
]


def test_means_medians_and_ends_are_those_derived_by_hand() -> None:
    score = summarise(CASES, KITS19).scores["Dice_tumor"]
    assert (score.mean, score.median) == pytest.approx((0.5125, 0.525))
    assert (score.lowest, score.highest) == (0.0, 1.0)


def test_the_worst_case_comes_first_and_equal_ones_by_name() -> None:
    summary = summarise([*CASES, case("0", 0.125, 0.75)], KITS19)
    assert [each.case for each in summary.worst_first] == ["0", "b", "c", "a", "d"]


def test_empty_regions_are_counted_on_each_side_and_on_both() -> None:
    count = summarise(CASES, KITS19).empty
    assert (count["tumor"].truth, count["tumor"].prediction, count["tumor"].both) == (1, 4, 1)
    assert (count["kidney"].truth, count["kidney"].prediction, count["kidney"].both) == (0, 0, 0)


def test_one_case_has_an_interval_of_no_width() -> None:
    assert summarise(CASES[:1], KITS19).scores["Dice_tumor"].interval == (0.8, 0.8)


def test_intervals_of_many_cases_are_those_of_the_normal_distribution() -> None:
    values = np.random.default_rng(5).normal(0.7, 0.1, (400, 1))
    ((low, high),) = mean_intervals(values)
    error = statistics.stdev(values[:, 0].tolist()) / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 10)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 10)


def test_an_interval_of_two_cases_reaches_from_one_to_the_other() -> None:
    # A quarter of the draws takes the first case twice, a quarter the second.
    assert mean_intervals(np.array([[0.2], [0.6]])) == [(0.2, 0.6)]


def test_intervals_repeat_and_columns_do_not_disturb_each_other() -> None:
    table = np.random.default_rng(6).random((7, 3))
    assert mean_intervals(table) == mean_intervals(table)
    assert mean_intervals(table)[1] == mean_intervals(table[:, 1:2])[0]


def test_a_gate_takes_its_name_in_either_case() -> None:
    expected = Gate(score="Dice_tumor", least=0.75)
    assert gate_from_text("dice_tumor=0.75", KITS19) == expected
    assert gate_from_text("Dice_tumor= .75", KITS19) == expected


@pytest.mark.parametrize(
    "text", ["dice_tumor", "dice_tumor=", "dice_tumor=x", "dice_tumor=75", "=1", "sd_tumor=0.5"]
)
def test_a_gate_that_cannot_be_is_refused_with_the_names_that_can(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        gate_from_text(text, KITS19)
    assert repr(text) in str(refusal.value)
    assert "dice_kidney, dice_tumor, composite" in str(refusal.value)


def test_not_a_number_is_no_gate() -> None:
    with pytest.raises(UsageError):
        gate_from_text("dice_tumor=nan", KITS19)


def test_a_mean_that_equals_its_gate_passes() -> None:
    check_gates([Gate(score="Dice_tumor", least=0.5)], {"Dice_tumor": 0.5})


def test_every_gate_that_is_not_met_is_named_with_what_was_found_and_expected() -> None:
    gates = [Gate(score=name, least=least) for name, least in (("A", 0.5), ("B", 0.9), ("C", 1))]
    with pytest.raises(GateError) as refusal:
        check_gates(gates, {"A": 0.4999, "B": 0.9, "C": 0.25})
    assert "a 0.4999 (expected at least 0.5), c 0.2500 (expected at least 1)" in str(refusal.value)
    assert refusal.value.exit_code == 6
