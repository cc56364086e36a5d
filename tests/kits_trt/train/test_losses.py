"""Losses against numbers worked out by hand, and against torch and MONAI where they have them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from kits_trt.systems.recipe import BceDice, CrossEntropy, DeepDice, Dice, FocalDice, Loss
from kits_trt.train.losses import LOSSES, loss_of, supervision_weight

LABELS = torch.tensor([[1, 1, 0, 0]])
DEEP = DeepDice(mu=0.33, factor=0.8, every_epochs=15)
EVERY: tuple[Loss, ...] = (
    Dice(),
    DEEP,
    CrossEntropy(weights=(0.2, 0.3, 0.5)),
    FocalDice(gamma=2.0, weights=(0.1, 0.4, 0.5)),
)


def logits_of(foreground: list[float]) -> Tensor:
    """Return logits whose softmax gives these foreground scores to four voxels."""
    scores = torch.tensor([foreground])
    return torch.stack((torch.log(1 - scores), torch.log(scores)), dim=1)


def value(loss: Loss, logits: Tensor, labels: Tensor = LABELS) -> float:
    return float(loss_of(loss, [logits], labels, epoch=0))


# Scores .8 .6 .4 .2: overlap 1.4, scores sum 2, labels sum 2: Dice (2.8 + 1) / (4 + 1) = 0.76.
# Background: overlap .6 + .8 = 1.4 and the same sums: 0.76 as well.
SCORES = [0.8, 0.6, 0.4, 0.2]
UNEVEN = [0.9, 0.9, 0.9, 0.1]  # Dice 4.6 / 5.8; of the background 3 / 4.2


def test_dice_leaves_the_background_out() -> None:
    assert value(Dice(), logits_of(SCORES)) == pytest.approx(0.24, abs=1e-6)
    assert value(Dice(), logits_of(UNEVEN)) == pytest.approx(1 - 4.6 / 5.8, abs=1e-6)


def test_dice_of_an_empty_sample_falls_with_the_false_scores() -> None:
    empty = torch.zeros(1, 4, dtype=torch.int64)
    assert value(Dice(), logits_of(SCORES), empty) == pytest.approx(2 / 3, abs=1e-6)
    assert value(Dice(), logits_of([1e-7] * 4), empty) == pytest.approx(0.0, abs=1e-5)


def test_dice_is_a_mean_over_samples() -> None:
    logits = torch.cat((logits_of(SCORES), logits_of(SCORES)))
    labels = torch.cat((LABELS, torch.zeros_like(LABELS)))
    assert value(Dice(), logits, labels) == pytest.approx((0.24 + 2 / 3) / 2, abs=1e-6)


def test_dice_is_that_of_monai_with_one_voxel_of_smoothing() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 3, 4, 5, 6), torch.randint(0, 3, (3, 4, 5, 6))
    theirs = DiceLoss(
        include_background=False, softmax=True, to_onehot_y=True, smooth_nr=1, smooth_dr=1
    )
    expected = theirs(logits, labels.unsqueeze(1))
    assert value(Dice(), logits, labels) == pytest.approx(float(expected), rel=1e-6)


def test_mu_falls_to_80_percent_after_every_15_epochs() -> None:
    found = [supervision_weight(DEEP, epoch) for epoch in (0, 14, 15, 29, 30, 45)]
    expected = [0.33, 0.33, 0.264, 0.264, 0.2112, 0.16896]
    assert found == pytest.approx(expected, abs=1e-12)


def test_deep_supervision_counts_the_last_head_in_full_and_the_others_by_mu() -> None:
    good, bad = logits_of(SCORES), logits_of(UNEVEN)
    found = loss_of(DEEP, [bad, bad, bad, good], LABELS, epoch=15)
    expected = 0.24 + 0.264 * 3 * (1 - 4.6 / 5.8)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert value(DEEP, good) == pytest.approx(0.24, abs=1e-6)


def test_cross_entropy_multiplies_each_voxel_by_the_weight_of_its_class() -> None:
    found = value(CrossEntropy(weights=(1.0, 3.0)), logits_of(SCORES))
    terms = [3 * math.log(0.8), 3 * math.log(0.6), math.log(0.6), math.log(0.8)]
    assert found == pytest.approx(-sum(terms) / 4, abs=1e-6)


def test_cross_entropy_with_equal_weights_is_torchs() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(2, 3, 5, 6), torch.randint(0, 3, (2, 5, 6))
    expected = functional.cross_entropy(logits, labels)
    found = value(CrossEntropy(weights=(1.0, 1.0, 1.0)), logits, labels)
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_bce_and_dice_share_one_sigmoid_channel() -> None:
    logits = torch.logit(torch.tensor([[SCORES]]))
    entropy = -(2 * math.log(0.8) + 2 * math.log(0.6)) / 4
    found = value(BceDice(dice_share=0.25), logits)
    assert found == pytest.approx(0.75 * entropy + 0.25 * 0.24, abs=1e-6)


def test_focal_and_dice_weigh_each_class() -> None:
    found = value(FocalDice(gamma=2.0, weights=(0.25, 0.75)), logits_of(UNEVEN))
    # Voxels of the true class at .9 and .9 (weight .75), .1 and .9 (weight .25).
    focal = -(
        1.5 * 0.1**2 * math.log(0.9) + 0.25 * 0.9**2 * math.log(0.1) + 0.25 * 0.1**2 * math.log(0.9)
    )
    dice = 0.25 * 3 / 4.2 + 0.75 * 4.6 / 5.8
    assert found == pytest.approx(focal / 4 + 1 - dice, abs=1e-6)


def test_a_focal_loss_without_focus_is_cross_entropy() -> None:
    weights = (0.3, 0.7)
    difference = value(FocalDice(gamma=0.0, weights=weights), logits_of(SCORES)) - value(
        CrossEntropy(weights=weights), logits_of(SCORES)
    )
    assert difference == pytest.approx(0.24, abs=1e-6)


def test_sums_are_float32_when_the_net_computes_in_half() -> None:
    voxels = 70_000  # beyond the largest number of float16
    logits = torch.zeros(1, 2, voxels, dtype=torch.float16)
    labels = torch.ones(1, voxels, dtype=torch.int64)
    found = loss_of(Dice(), [logits], labels, epoch=0)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("loss", EVERY, ids=lambda loss: type(loss).__name__)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), first=st.integers(1, 3))
def test_the_shares_of_a_batch_add_up_to_the_batch(loss: Loss, seed: int, first: int) -> None:
    maker = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 5, 4, generator=maker)
    labels = torch.randint(0, 3, (4, 5, 4), generator=maker)
    shares = value(loss, logits[:first], labels[:first]) * first
    shares += value(loss, logits[first:], labels[first:]) * (4 - first)
    assert shares / 4 == pytest.approx(value(loss, logits, labels), rel=1e-5)


def test_every_loss_of_the_recipes_has_a_row() -> None:
    assert {type(loss) for loss in EVERY} | {BceDice} == set(LOSSES)


def test_voxels_added_to_dice_tell_a_little_too_much_from_far_too_much() -> None:
    nothing = torch.zeros(1, 2000, dtype=torch.long)

    def lost(found: int, smooth_vox: float) -> float:
        scores = torch.full((1, 2000), 1e-6)
        scores[:, :found] = 1 - 1e-6
        logits = torch.stack((torch.log(1 - scores), torch.log(scores)), dim=1)
        return value(Dice(smooth_vox=smooth_vox), logits, nothing)

    assert lost(100, 1.0) == pytest.approx(1 - 1 / 101, abs=1e-3)
    assert lost(100, 100.0) == pytest.approx(1 / 2, abs=1e-3)
    assert lost(1000, 100.0) - lost(100, 100.0) > 0.4
    assert lost(1000, 1.0) - lost(100, 1.0) < 0.01


def test_focal_dice_adds_as_many_voxels_as_it_says() -> None:
    # Scores .8 .6 .4 .2: (2.8 + 6) / (4 + 6) for either class instead of (2.8 + 1) / (4 + 1).
    few, many = (
        value(FocalDice(gamma=2.0, weights=(0.25, 0.75), smooth_vox=vox), logits_of(SCORES))
        for vox in (1.0, 6.0)
    )

    assert few - many == pytest.approx(0.88 - 0.76, abs=1e-5)
