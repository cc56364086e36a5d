"""The words of a training recipe: how one net of a system is taught, and no code.

A recipe names the stage whose input its net reads. That input comes from the runtime's own look and
steps, with the truth in place of what earlier stages would have found. Steps up to the last
``Resample`` are done once and cached; the draw and what it is augmented by follow, in HU; the
remaining steps (clip, scale, mask and so on) come last, on each sample.

Axes are (z, y, x), running towards the patient's inferior, posterior and left.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kits_trt.systems.augmentation import Augment, Group

# --- what is drawn from a case


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """Patches of the net's window, each anywhere in what the stage looks at.

    With a ``foreground_share`` that share of them is centred on a voxel of the target, the others
    on one that is not (as far as the border allows); without it all places are alike. The crops of
    a case follow each other, so that a batch of ``per_case`` is made of one case.
    """

    per_case: int
    foreground_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRuns:
    """As many consecutive slices as the net's window has.

    They lie within the slices that hold the target and ``margin_slices`` more at either end. In
    plane they are whole or, with ``part_vox``, a part of that size: two of three lie around a voxel
    of the target, the others anywhere.
    """

    per_case: int
    margin_slices: int
    part_vox: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceStacks:
    """A slice and its neighbours, as the stage's windows take them.

    A slice without kidney and tumour is in the group background, with kidney alone in kidney, with
    tumour in tumour. ``shares`` says how a batch is filled: of the slices in these groups, this
    share. Groups that no case has give their share to the others. An epoch draws ``per_case``
    slices for each case, or (None) as many as there are in the named groups.
    """

    per_case: int | None
    shares: Mapping[tuple[Group, ...], float]


Draw = Crops | SliceRuns | SliceStacks


# --- what is minimised


@dataclass(frozen=True, slots=True, kw_only=True)
class Dice:
    """1 - 2 overlap / (found + true), per foreground class and sample, then averaged.

    ``smooth_vox`` is added above and below the fraction. With one voxel a sample without the class
    costs nearly the same whether ten voxels or a thousand are found in it, and nothing if none is.
    """

    smooth_vox: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepDice:
    """The last head's Dice loss plus mu times the sum of the others'.

    mu starts at ``mu`` and falls to ``factor`` of itself every ``every_epochs`` epochs.
    """

    mu: float
    factor: float
    every_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropy:
    """Cross-entropy in which each class has a weight."""

    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BceDice:
    """(1 - share) binary cross-entropy + share Dice loss, of one sigmoid channel."""

    dice_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FocalDice:
    """Focal loss of this ``gamma`` plus a Dice loss in which each class has a weight.

    With a ``gamma`` of 0 the focal loss is a weighted cross-entropy.

    ``smooth_vox`` as in ``Dice``.
    """

    gamma: float
    weights: tuple[float, ...]
    smooth_vox: float = 1.0


Loss = Dice | DeepDice | CrossEntropy | BceDice | FocalDice


# --- how it is minimised


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with momentum; the decay is added to the gradient."""

    learning_rate: float
    momentum: float
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam; ``weight_decay`` is added to the gradient (L2) or, ``decoupled``, taken off weights.

    Only kernels decay: biases, normalisation and slopes do not.
    """

    learning_rate: float
    weight_decay: float = 0.0
    decoupled: bool = False


Optimiser = Sgd | Adam


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same learning rate to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPlateau:
    """Times ``factor`` when the validation loss has not fallen for ``patience_epochs`` epochs."""

    factor: float
    patience_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCosine:
    """A linear rise over ``rise_steps`` steps, then a cosine to nothing at the last step."""

    rise_steps: int


Schedule = Constant | OnPlateau | WarmCosine


@dataclass(frozen=True, slots=True, kw_only=True)
class HardCases:
    """From the second epoch on, the ``share`` of cases with the highest loss comes more often."""

    share: float
    times: float


# --- which cases teach


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSplit:
    """This share of the cases, drawn by seed, teaches; the others validate."""

    train_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCases:
    """The first cases, in the order of their names, teach; the others validate.

    With fewer cases than ``count`` (of ``of``) the same share of them teaches.
    """

    count: int
    of: int


Split = RandomSplit | FirstCases


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one net is taught.

    ``target`` gives each label of a case (0 background, 1 kidney, 2 tumour, 3 cyst where kept) the
    class that the net is to say; labels it does not name are background. An epoch draws
    ``per_case`` samples a training case. Training ends after ``epochs``, or when the validation
    loss has not fallen for ``patience_epochs`` (None: it never ends early).
    """

    stage: str
    target: Mapping[int, int]
    draw: Draw
    augment: tuple[Augment, ...]
    loss: Loss
    optimiser: Optimiser
    schedule: Schedule
    batch_size: int
    epochs: int
    split: Split
    patience_epochs: int | None = None
    hard_cases: HardCases | None = None
