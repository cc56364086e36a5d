"""Losses of the two networks, on logits (batch, class, ...) and labels (batch, ...).

All sums are float32 whatever the network computed in. Dice sums run over the whole batch, so that
a patch without foreground does not decide the loss by its smoothing alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SMOOTH = 1.0  # voxels; keeps the ratio defined, and small beside any organ


def soft_dice(scores: Tensor, labels: Tensor, class_index: int) -> Tensor:
    """Return the soft Dice of one class: 2 overlap / (scores + labels), 1 where both are empty."""
    predicted = scores[:, class_index]
    present = (labels == class_index).to(predicted.dtype)
    overlap = (predicted * present).sum()
    return (2 * overlap + _SMOOTH) / (predicted.sum() + present.sum() + _SMOOTH)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - the mean soft Dice of all classes but the background."""
    scores = torch.softmax(logits.float(), dim=1)
    dices = [soft_dice(scores, labels, index) for index in range(1, scores.shape[1])]
    return 1 - torch.stack(dices).mean()


def deep_supervision_weight(
    epoch: int, *, start: float = 0.33, factor: float = 0.8, every: int = 15
) -> float:
    """Return mu of an epoch (from 0): ``start``, times ``factor`` after every ``every`` epochs."""
    return float(start * factor ** (epoch // every))


def deep_supervision_loss(logits: Sequence[Tensor], labels: Tensor, *, mu: float) -> Tensor:
    """Return mu (L1 + L2 + L3) + L4: Dice losses of all heads, the last in full."""
    *coarse, last = [dice_loss(head, labels) for head in logits]
    return mu * torch.stack(coarse).sum() + last


def focal_loss(
    logits: Tensor, labels: Tensor, *, class_weights: Sequence[float], gamma: float = 2.0
) -> Tensor:
    """Return the mean over voxels of -w (1 - p)^gamma log p, p the score of the true class."""
    logs = torch.log_softmax(logits.float(), dim=1)
    log_true = logs.gather(1, labels.unsqueeze(1)).squeeze(1)
    weights = torch.tensor(class_weights, dtype=logs.dtype)[labels]
    return -(weights * (1 - log_true.exp()).pow(gamma) * log_true).mean()


def weighted_dice_loss(logits: Tensor, labels: Tensor, *, class_weights: Sequence[float]) -> Tensor:
    """Return 1 - the weighted mean of all classes' soft Dice, background included."""
    scores = torch.softmax(logits.float(), dim=1)
    total = float(sum(class_weights))
    dices = [
        soft_dice(scores, labels, index) * (weight / total)
        for index, weight in enumerate(class_weights)
    ]
    return 1 - torch.stack(dices).sum()


def focal_and_dice_loss(
    logits: Tensor, labels: Tensor, *, class_weights: Sequence[float] = (0.25, 0.75)
) -> Tensor:
    """Return focal loss + weighted Dice loss, both with the same class weights.

    The weights are ours: the paper names the two losses and not their numbers.
    """
    focal = focal_loss(logits, labels, class_weights=class_weights)
    return focal + weighted_dice_loss(logits, labels, class_weights=class_weights)
