"""Losses against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from kits_trt.train.minimal_losses import (
    deep_supervision_loss,
    deep_supervision_weight,
    dice_loss,
    focal_and_dice_loss,
    focal_loss,
    weighted_dice_loss,
)

LABELS = torch.tensor([[1, 1, 0, 0]])


def logits_of(foreground: list[float]) -> Tensor:
    """Return logits whose softmax gives these foreground scores to four voxels."""
    scores = torch.tensor([foreground])
    return torch.stack((torch.log(1 - scores), torch.log(scores)), dim=1)


# Scores .8 .6 .4 .2: overlap 1.4, scores sum 2, labels sum 2: Dice (2.8 + 1) / (4 + 1) = 0.76.
# Background: overlap .6 + .8 = 1.4 and the same sums: 0.76 as well.
SCORES = [0.8, 0.6, 0.4, 0.2]


def test_dice_leaves_the_background_out() -> None:
    assert dice_loss(logits_of(SCORES), LABELS).item() == pytest.approx(0.24, abs=1e-6)
    uneven = logits_of([0.9, 0.9, 0.9, 0.1])
    # Foreground overlap 1.8, sums 2.8 + 2: 4.6 / 5.8. (Background would be 3 / 4.2.)
    assert dice_loss(uneven, LABELS).item() == pytest.approx(1 - 4.6 / 5.8, abs=1e-6)


def test_dice_of_an_empty_patch_falls_with_the_false_scores() -> None:
    empty = torch.zeros(1, 4, dtype=torch.int64)
    # Scores sum 2: (0 + 1) / (2 + 1).
    assert dice_loss(logits_of(SCORES), empty).item() == pytest.approx(2 / 3, abs=1e-6)
    assert dice_loss(logits_of([1e-7] * 4), empty).item() == pytest.approx(0.0, abs=1e-5)


def test_dice_sums_over_the_batch_before_dividing() -> None:
    logits = torch.cat((logits_of(SCORES), logits_of(SCORES)))
    labels = torch.cat((LABELS, torch.zeros_like(LABELS)))
    # Overlap 1.4, scores sum 4, labels sum 2: 3.8 / 7.
    assert dice_loss(logits, labels).item() == pytest.approx(1 - 3.8 / 7, abs=1e-6)


def test_mu_falls_to_80_percent_after_every_15_epochs() -> None:
    found = [deep_supervision_weight(epoch) for epoch in (0, 14, 15, 29, 30, 45)]
    expected = [0.33, 0.33, 0.264, 0.264, 0.2112, 0.16896]
    assert found == pytest.approx(expected, abs=1e-12)


def test_deep_supervision_counts_three_heads_by_mu_and_the_last_in_full() -> None:
    good, bad = logits_of(SCORES), logits_of([0.9, 0.9, 0.9, 0.1])
    loss = deep_supervision_loss((bad, bad, good, good), LABELS, mu=0.33)
    expected = 0.33 * (2 * (1 - 4.6 / 5.8) + 0.24) + 0.24
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_focal_loss_weighs_classes_and_dims_what_is_already_right() -> None:
    loss = focal_loss(logits_of(SCORES), LABELS, class_weights=(0.25, 0.75))
    terms = [
        0.75 * 0.2**2 * -math.log(0.8),
        0.75 * 0.4**2 * -math.log(0.6),
        0.25 * 0.4**2 * -math.log(0.6),
        0.25 * 0.2**2 * -math.log(0.8),
    ]
    assert loss.item() == pytest.approx(sum(terms) / 4, abs=1e-7)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    found = focal_loss(logits, labels, class_weights=(1.0, 1.0, 1.0), gamma=0.0)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, labels))


def test_weighted_dice_is_the_weighted_mean_over_all_classes() -> None:
    uneven = logits_of([0.9, 0.9, 0.9, 0.1])
    loss = weighted_dice_loss(uneven, LABELS, class_weights=(1.0, 3.0))
    # Background: overlap 1.0, scores 1.2, labels 2: 3 / 4.2.
    expected = 1 - (0.25 * 3 / 4.2 + 0.75 * 4.6 / 5.8)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_tumour_loss_is_the_sum_of_its_two_parts() -> None:
    logits = logits_of(SCORES)
    parts = focal_loss(logits, LABELS, class_weights=(0.25, 0.75)) + weighted_dice_loss(
        logits, LABELS, class_weights=(0.25, 0.75)
    )
    torch.testing.assert_close(focal_and_dice_loss(logits, LABELS), parts)


def test_losses_of_half_precision_logits_are_summed_in_float32() -> None:
    # 70000 voxels of score 0.5: a half precision sum would overflow at 65504.
    logits = torch.zeros(1, 2, 70000, dtype=torch.float16)
    labels = torch.ones(1, 70000, dtype=torch.int64)
    expected = 1 - (70000 + 1) / (35000 + 70000 + 1)
    assert dice_loss(logits, labels).item() == pytest.approx(expected, abs=1e-6)
