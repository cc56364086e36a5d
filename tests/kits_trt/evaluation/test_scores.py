import json
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from kits_trt.evaluation.protocols import PROTOCOLS
from kits_trt.evaluation.scores import dice_of, score_case
from kits_trt.evaluation.surface import surface_dice

Labels = npt.NDArray[np.uint8]
SPACING_MM = (3.0, 0.7, 0.8)
KITS19, KITS23 = PROTOCOLS["kits19"], PROTOCOLS["kits23"]


def row(*labels: int) -> Labels:
    return np.array(labels, np.uint8).reshape(1, 1, -1)


def dice_scores(truth: Labels, prediction: Labels, protocol: str = "kits23") -> list[float]:
    scores = score_case(
        "a",
        truth,
        prediction=prediction,
        spacing_mm=SPACING_MM,
        protocol=PROTOCOLS[protocol],
    ).scores
    return [scores[name] for name in scores if not name.startswith("SD_")]


def test_kits23_has_the_challenge_s_scores_labels_and_tolerances() -> None:
    assert ",".join(KITS23.score_names) == (
        "Dice_kidney,Dice_masses,Dice_tumor,SD_kidney,SD_masses,SD_tumor"
    )
    assert [region.labels for region in KITS23.regions] == [(1, 2, 3), (2, 3), (2,)]
    rounded = [round(region.tolerance_mm or 0, 4) for region in KITS23.regions]
    assert rounded == [1.0331, 1.1329, 1.1498]


def test_kits19_has_two_dice_scores_and_their_mean() -> None:
    assert KITS19.score_names == ("Dice_kidney", "Dice_tumor", "Composite")
    assert [region.labels for region in KITS19.regions] == [(1, 2), (2,)]


def test_dice_of_kits23_regions_is_that_derived_by_hand() -> None:
    truth = row(0, 1, 1, 1, 2, 2, 3, 3, 0, 0)
    prediction = row(1, 1, 1, 2, 2, 3, 3, 0, 0, 0)
    # Kidney: 7 and 7 voxels, 6 common. Masses: 4 and 4, 3 common. Tumour: 2 and 2, 1 common.
    assert dice_scores(truth, prediction) == pytest.approx([12 / 14, 6 / 8, 2 / 4])


def test_dice_and_composite_of_kits19_are_those_derived_by_hand() -> None:
    truth = row(0, 1, 1, 1, 2, 2, 0)
    prediction = row(0, 0, 1, 1, 1, 2, 2)
    found = dice_scores(truth, prediction, "kits19")
    assert found == pytest.approx([8 / 10, 2 / 4, (8 / 10 + 2 / 4) / 2])


def test_a_region_empty_on_both_sides_scores_one_and_on_one_side_zero() -> None:
    kidney, tumour = row(1, 1, 0, 0), row(1, 1, 2, 0)
    both = score_case("a", kidney, prediction=kidney, spacing_mm=SPACING_MM, protocol=KITS23)
    assert set(both.scores.values()) == {1.0}
    assert both.empty_truth == both.empty_prediction == ("masses", "tumor")
    for truth, prediction in ((kidney, tumour), (tumour, kidney)):
        case = score_case("a", truth, prediction=prediction, spacing_mm=SPACING_MM, protocol=KITS23)
        assert [case.scores[name] for name in ("Dice_tumor", "SD_tumor", "SD_masses")] == [0, 0, 0]
    assert (case.empty_truth, case.empty_prediction) == ((), ("masses", "tumor"))


@pytest.mark.parametrize("protocol", ["kits19", "kits23"])
def test_a_case_without_any_foreground_scores_one_everywhere(protocol: str) -> None:
    nothing = np.zeros((3, 4, 5), np.uint8)
    case = score_case(
        "a", nothing, prediction=nothing, spacing_mm=SPACING_MM, protocol=PROTOCOLS[protocol]
    )
    assert set(case.scores.values()) == {1.0}
    assert case.mean == 1


def test_each_surface_score_uses_its_region_and_its_tolerance() -> None:
    random = np.random.default_rng(1)
    truth, prediction = (random.integers(0, 4, (5, 6, 7)).astype(np.uint8) for _ in range(2))
    spacing_mm = (1.04, 1.14, 1.05)  # steps that lie between the tolerances
    case = score_case("a", truth, prediction=prediction, spacing_mm=spacing_mm, protocol=KITS23)
    for name, labels, tolerance_mm in (
        ("SD_kidney", (1, 2, 3), 1.0331),
        ("SD_masses", (2, 3), 1.1329),
        ("SD_tumor", (2,), 1.1498),
    ):
        masks = [np.isin(values, labels) for values in (truth, prediction)]
        expected = surface_dice(*masks, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
        assert case.scores[name] == pytest.approx(expected)


def test_scores_are_the_same_wherever_the_foreground_lies() -> None:
    random = np.random.default_rng(2)
    truth, prediction = (random.integers(0, 4, (4, 5, 6)).astype(np.uint8) for _ in range(2))

    def scores(pads: list[tuple[int, int]]) -> str:
        padded = [np.pad(values, pads) for values in (truth, prediction)]
        case = score_case(
            "a", padded[0], prediction=padded[1], spacing_mm=SPACING_MM, protocol=KITS23
        )
        return json.dumps(dict(case.scores))

    assert scores([(0, 0), (0, 0), (0, 0)]) == scores([(2, 7), (0, 4), (9, 1)])


def test_scores_do_not_depend_on_memory_order_and_leave_the_labels_as_they_were() -> None:
    random = np.random.default_rng(3)
    truth, prediction = (random.integers(0, 4, (4, 5, 6)).astype(np.uint8) for _ in range(2))
    copies = truth.copy(), prediction.copy()
    plain = score_case("a", truth, prediction=prediction, spacing_mm=SPACING_MM, protocol=KITS23)
    other = score_case(
        "a",
        np.asfortranarray(truth),
        prediction=prediction[::-1].copy()[::-1],
        spacing_mm=SPACING_MM,
        protocol=KITS23,
    )
    assert dict(plain.scores) == dict(other.scores)
    assert (truth == copies[0]).all()
    assert (prediction == copies[1]).all()


def test_dice_counts_voxels_beyond_the_range_of_bytes() -> None:
    one, other = np.ones((7, 100, 1), np.bool_), np.zeros((7, 100, 1), np.bool_)
    other[:3] = True
    assert dice_of(one, other) == pytest.approx(2 * 300 / 1000)


def test_memory_follows_the_box_of_the_foreground_not_the_volume() -> None:
    truth, prediction = (np.zeros((60, 400, 400), np.uint8) for _ in range(2))
    truth[20:30, 100:140, 100:140] = 2
    prediction[21:31, 101:141, 100:140] = 2
    tracemalloc.start()
    try:
        case = score_case("a", truth, prediction=prediction, spacing_mm=SPACING_MM, protocol=KITS23)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert case.scores["Dice_tumor"] == pytest.approx(9 * 39 / (10 * 40))
    assert peak < 4 * truth.nbytes
