"""What training minimises, one function a word of the recipes.

Logits are (batch, class, ...) or (batch, 1, ...) for a sigmoid, labels (batch, ...). All sums are
float32 whatever the network computed in. Every loss is a mean over samples of what one sample
gives, so that the shares of a batch, weighted by their samples, add up to the batch.

Dice has a voxel, or as many as the recipe says, added above and below its fraction: one as
``unet3d``'s paper has it, which in the other systems is ours. A sample without the class then costs
less the less of it is found, and nothing when none is. Ours as well: the weights of a cross-entropy
are not divided by their sum over a sample's voxels.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kits_trt.systems.recipe import BceDice, CrossEntropy, DeepDice, Dice, FocalDice, Loss

SMOOTH_VOX = 1.0


def loss_of(loss: Loss, heads: Sequence[Tensor], labels: Tensor, *, epoch: int) -> Tensor:
    """Return the loss of a batch.

    Args:
        loss: Which.
        heads: The logits of every head of the net, the final one last.
        labels: The true classes.
        epoch: Counted from 0.
    """
    return LOSSES[type(loss)](loss, [head.float() for head in heads], labels.long(), epoch)


def soft_dice(scores: Tensor, present: Tensor, *, smooth_vox: float = SMOOTH_VOX) -> Tensor:
    """Return 2 overlap / (found + true) of each sample and channel; both are (batch, class, ...).

    ``smooth_vox`` is added above and below: 1 where nothing is found and nothing is there.
    """
    axes = tuple(range(2, scores.ndim))
    overlap = (scores * present).sum(axes)
    return (2 * overlap + smooth_vox) / (scores.sum(axes) + present.sum(axes) + smooth_vox)


def supervision_weight(loss: DeepDice, epoch: int) -> float:
    """Return mu of an epoch, counted from 0."""
    return float(loss.mu * loss.factor ** (epoch // loss.every_epochs))


def _dice(loss: Dice, heads: Sequence[Tensor], labels: Tensor, _epoch: int) -> Tensor:
    return _foreground_dice_loss(heads[-1], labels, smooth_vox=loss.smooth_vox)


def _deep_dice(loss: DeepDice, heads: Sequence[Tensor], labels: Tensor, epoch: int) -> Tensor:
    *others, last = [_foreground_dice_loss(head, labels) for head in heads]
    if not others:
        return last
    return last + supervision_weight(loss, epoch) * torch.stack(others).sum()


def _cross_entropy(
    loss: CrossEntropy, heads: Sequence[Tensor], labels: Tensor, _epoch: int
) -> Tensor:
    weights = torch.tensor(loss.weights, device=labels.device)
    return functional.cross_entropy(heads[-1], labels, weight=weights, reduction="none").mean()


def _bce_dice(loss: BceDice, heads: Sequence[Tensor], labels: Tensor, _epoch: int) -> Tensor:
    logits, present = heads[-1], labels.unsqueeze(1).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, present)
    dice_loss = 1 - soft_dice(torch.sigmoid(logits), present).mean()
    return (1 - loss.dice_share) * entropy + loss.dice_share * dice_loss


def _focal_dice(loss: FocalDice, heads: Sequence[Tensor], labels: Tensor, _epoch: int) -> Tensor:
    weights = torch.tensor(loss.weights, device=labels.device)
    logs = torch.log_softmax(heads[-1], dim=1)
    log_true = logs.gather(1, labels.unsqueeze(1)).squeeze(1)
    focal = -(weights[labels] * (1 - log_true.exp()).pow(loss.gamma) * log_true).mean()
    present = _channels(labels, logs.shape[1])
    dices = soft_dice(logs.exp(), present, smooth_vox=loss.smooth_vox)
    return focal + 1 - ((weights / weights.sum()) * dices).sum(1).mean()


def _foreground_dice_loss(
    logits: Tensor, labels: Tensor, *, smooth_vox: float = SMOOTH_VOX
) -> Tensor:
    scores = torch.softmax(logits, dim=1)
    present = _channels(labels, logits.shape[1])
    return 1 - soft_dice(scores[:, 1:], present[:, 1:], smooth_vox=smooth_vox).mean()


def _channels(labels: Tensor, classes: int) -> Tensor:
    return functional.one_hot(labels, classes).movedim(-1, 1).float()


LOSSES: Mapping[type[Loss], Callable[..., Tensor]] = {
    Dice: _dice,
    DeepDice: _deep_dice,
    CrossEntropy: _cross_entropy,
    BceDice: _bce_dice,
    FocalDice: _focal_dice,
}
