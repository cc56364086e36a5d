"""How far the training of one net has come, as plain numbers that go into a file and come back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from kits_trt.systems.recipe import Recipe
from kits_trt.train.optimise import Watch, is_patience_over, watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a net is trained, and how often validated; what ends first, ends it.

    Attributes:
        seed: Of weights, samples and dropout.
        steps: The most steps; None: as many as the recipe's epochs have.
        minutes: The most minutes, validation included. The schedule follows the clock where that is
            ahead of the steps, so that such a training repeats only roughly.
        validate_every: Epochs.
        workers: Threads that draw samples beside the net.
    """

    seed: int = 0
    steps: int | None = None
    minutes: float | None = None
    validate_every: int = 1
    workers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What a validation found: the loss, and the mean Dice of each class but the background."""

    loss: float
    dice: tuple[float, ...]

    @property
    def mean_dice(self) -> float:
        """The mean over classes, by which the best weights are chosen."""
        return sum(self.dice) / len(self.dice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a training stands between two steps.

    Attributes:
        net: Whose training.
        epoch: Whole epochs done.
        batch: Batches done of the next one.
        step: Steps done in all.
        seconds: Time spent.
        losses: Sum of the batches' losses since the last validation, and their number.
        case_sums: By case, the sum of its samples' losses in this epoch, and their number.
        case_losses: By case, its mean loss in the epoch before.
        watch: What validation losses mean for the learning rate and the end.
        best_dice: The best mean validation Dice; below 0 before the first.
        last_loss: The mean loss of the batches before the last validation.
        rate: The learning rate of the last step.
        is_due: Whether a validation comes before anything else.
        is_over: Whether no step is left to do.
    """

    net: str
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    losses: tuple[float, int] = (0.0, 0)
    case_sums: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    case_losses: Mapping[str, float] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    best_dice: float = -1.0
    last_loss: float | None = None
    rate: float = 0.0
    is_due: bool = False
    is_over: bool = False

    @property
    def mean_loss(self) -> float | None:
        """The mean loss of the batches since the last validation; None where there is none."""
        total, count = self.losses
        return total / count if count else None

    def to_plain(self) -> dict[str, object]:
        """The course as JSON takes it."""
        plain = asdict(self)
        plain["watch"]["lowest"] = None if self.watch.lowest == float("inf") else self.watch.lowest
        return plain


def course_from_plain(plain: Mapping[str, object]) -> Course:
    """The course that ``to_plain`` told.

    Raises:
        TypeError, ValueError, KeyError: It is no course.
    """
    given = dict(plain)
    watch = dict(_mapping(given.pop("watch")))
    if watch["lowest"] is None:
        del watch["lowest"]
    sums = {name: _pair(value) for name, value in _mapping(given.pop("case_sums")).items()}
    losses = _pair(given.pop("losses"))
    return Course(losses=losses, case_sums=sums, watch=Watch(**watch), **given)  # type: ignore[arg-type]


def after_step(
    course: Course, loss: float, *, cases: Sequence[str], sample_losses: Sequence[float]
) -> Course:
    """The course after one more batch; losses of single samples may be left out."""
    sums = dict(course.case_sums)
    for case, own in zip(cases, sample_losses, strict=False):
        total, count = sums.get(case, (0.0, 0))
        sums[case] = (total + own, count + 1)
    total, count = course.losses
    return replace(
        course,
        batch=course.batch + 1,
        step=course.step + 1,
        losses=(total + loss, count + 1),
        case_sums=sums,
    )


def after_epoch(course: Course) -> Course:
    """The course at the beginning of the next epoch."""
    means = {case: total / count for case, (total, count) in course.case_sums.items()}
    return replace(
        course,
        epoch=course.epoch + 1,
        batch=0,
        case_sums={},
        case_losses={**course.case_losses, **means},
    )


def after_validation(course: Course, found: Validation, recipe: Recipe) -> Course:
    """The course after a validation; it may end there."""
    watch = watched(course.watch, found.loss, epochs=course.epoch, schedule=recipe.schedule)
    return replace(
        course,
        losses=(0.0, 0),
        watch=watch,
        last_loss=course.mean_loss,
        best_dice=max(course.best_dice, found.mean_dice),
        is_due=False,
        is_over=course.is_over or is_patience_over(watch, recipe, epochs=course.epoch),
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"found {type(value).__name__}, expected an object")
    return value


def _pair(value: object) -> tuple[float, int]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"found {type(value).__name__}, expected two numbers")
    total, count = value
    return float(total), int(count)
