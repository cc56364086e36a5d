import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stages import unhurried

from kits_runtime.decide import background_scores, labels_from_scores, surely
from kits_runtime.manifest.schema import Argmax, Decide, Threshold


def scores_of(*channels: list[float]) -> np.ndarray:
    return np.array(channels, np.float32)


def test_the_highest_channel_gives_the_label_and_ties_go_to_the_earlier_one() -> None:
    scores = scores_of(
        [0.5, 0.2, 0.4, 0.1, 0.3], [0.3, 0.5, 0.4, 0.45, 0.3], [0.2, 0.3, 0.2, 0.45, 0.4]
    )

    labels = labels_from_scores(scores, Argmax(labels=(0, 2, 1)))

    assert labels.dtype == np.uint8
    assert labels.tolist() == [0, 2, 0, 2, 1]


def test_the_last_channel_to_reach_the_threshold_gives_the_label() -> None:
    scores = scores_of([0.6, 0.5, 0.4, 0.9, 0.0], [0.1, 0.2, 0.3, 0.5, 0.7])

    labels = labels_from_scores(scores, Threshold(at_least=0.5, labels=(1, 2)))

    assert labels.dtype == np.uint8
    assert labels.tolist() == [1, 1, 0, 2, 2]


@unhurried
@given(seed=st.integers(0, 2**30), classes=st.integers(2, 5))
def test_labels_are_those_of_numpy_s_argmax(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (classes, 3, 4, 5)).astype(np.float32)  # with many ties
    names = (0, *rng.permutation(np.arange(1, classes)).tolist())

    labels = labels_from_scores(scores, Argmax(labels=names))

    np.testing.assert_array_equal(labels, np.array(names, np.uint8)[scores.argmax(axis=0)])


def test_labels_for_sure_are_those_where_any_class_has_such_a_score() -> None:
    scores = scores_of([0.9, 0.1, 0.2, 0.0], [0.05, 0.8, 0.3, 0.1], [0.05, 0.1, 0.5, 0.9])

    of_three = labels_from_scores(scores, surely(Argmax(labels=(0, 2, 1)), 0.8))
    of_two = labels_from_scores(scores[1:], surely(Threshold(at_least=0.2, labels=(2, 1)), 0.8))

    assert of_three.tolist() == of_two.tolist() == [0, 1, 0, 1]


def test_scores_are_not_changed() -> None:
    scores = np.random.default_rng(0).random((3, 4, 4, 4), np.float32)
    before = scores.copy()

    labels_from_scores(scores, Argmax(labels=(0, 1, 2)))
    labels_from_scores(scores, Threshold(at_least=0.5, labels=(1, 2, 3)))

    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    "decide",
    [
        Argmax(labels=(0, 1)),
        Argmax(labels=(0, 1, 2)),
        Threshold(at_least=0.5, labels=(1,)),
        Threshold(at_least=0.0, labels=(1, 2)),
        Threshold(at_least=-3.0, labels=(1,)),
    ],
)
def test_background_scores_are_background(decide: Decide) -> None:
    scores = background_scores((len(decide.labels), 2, 3), decide)

    assert scores.dtype == np.float32
    assert not labels_from_scores(scores, decide).any()


def test_background_is_certain_where_scores_are_probabilities() -> None:
    assert background_scores((3,), Argmax(labels=(0, 1, 2))).tolist() == [1, 0, 0]
    assert background_scores((2,), Threshold(at_least=0.5, labels=(1, 2))).tolist() == [0, 0]
