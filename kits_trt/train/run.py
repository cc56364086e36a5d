"""One run of ``kits-train``: the nets of a system one after the other, then the whole system."""

import time
from collections.abc import Sequence
from dataclasses import replace

from kits_trt.data.cache import cached_pieces
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.plans import Lesson, lesson_from_system
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.nets import SegmentationNet, build_net
from kits_trt.train.beginning import begun_run
from kits_trt.train.compute import Compute, seed_torch
from kits_trt.train.course import Budget, Course, Validation
from kits_trt.train.loop import Around, steps_per_epoch, train_net
from kits_trt.train.optimise import is_patience_over
from kits_trt.train.provenance import (
    plain_recipe,
)
from kits_trt.train.ranks import Ranks
from kits_trt.train.run_folder import STATE, RunFolder
from kits_trt.train.split import SplitCases
from kits_trt.train.stage_scores import validate_stage
from kits_trt.train.state_file import (
    require_same_settings,
    restore,
)
from kits_trt.train.stopping import stop_asked_for
from kits_trt.train.teller import Teller
from kits_trt.train.trainee import Trainee
from kits_trt.train.wanted import Run, Wanted
from kits_trt.train.whole_system import facts_of, scored_system


def run_training(wanted: Wanted, *, compute: Compute, ranks: Ranks, teller: Teller) -> RunFolder:
    """Train what is wanted and validate the system; return the folder with all results.

    Raises:
        UsageError: There is a run already, or it was begun in another way.
        BundleError: A checkpoint is damaged or of another system.
        ScanError: A case cannot be used.
        KeyboardInterrupt: It was stopped and has been saved.
    """
    run = begun_run(wanted, compute=compute, ranks=ranks, teller=teller)
    begun = time.monotonic()
    for net in wanted.nets:
        if _is_left(run, net):
            _train(run, net)
        else:
            teller.say(f"{net}: was trained to its end before, left as it is")
    if ranks.is_first:
        scores = scored_system(run)
        run.folder.write_record(
            state="finished", seconds=round(time.monotonic() - begun, 1), **facts_of(scores)
        )
        if scores is not None:
            run.folder.system_metrics = {**scores.means, "fixed mask": scores.fixed_mask_dice}
            run.folder.write_checkpoints()
            run.teller.say(
                f"{wanted.system.name}: Dice of kidney with tumour {scores.dice:.4f}, "
                f"of the best fixed mask {scores.fixed_mask_dice:.4f}"
            )
    return run.folder


def _is_left(run: Run, net: str) -> bool:
    """Whether a net may have steps to do: it has no end yet, or the state is of it."""
    is_of_state = run.state is not None and run.state.course.net == net
    return is_of_state or net not in run.folder.finished


def _settings(run: Run, net: str) -> dict[str, object]:
    """What must be the same for the training of a net to go on exactly."""
    wanted = run.wanted
    recipe = {k: v for k, v in plain_recipe(wanted.system.recipes[net]).items() if k != "epochs"}
    return {
        "system": wanted.system.name,
        "preset": wanted.system.preset,
        "labels": list(wanted.system.labels),
        "seed": wanted.budget.seed,
        "data": wanted.data.sha256,
        "cyst": wanted.data.cyst,
        "recipe": recipe,
        "amp": run.compute.amp,
        "processes": run.ranks.world,
    }


def _train(run: Run, net: str) -> None:
    split = run.wanted.data.split(run.wanted.system, net, seed=run.wanted.budget.seed)
    lesson = _lesson(run, net, split.teaching)
    held_out = _lesson(run, net, split.validating)
    trainee, course = _trainee(run, net, lesson)
    settings = _settings(run, net)
    _record_split(run, net, split)

    def keep(now: Course, found: Validation | None) -> None:
        if run.ranks.is_first:
            run.folder.keep(trainee, now, found, settings=settings)
            if found is not None:
                run.teller.validated(now, found)

    with stop_asked_for() as is_stopped:

        def seen(done: int, total: int) -> None:
            run.teller.validating(net, done, total)
            if is_stopped():
                raise KeyboardInterrupt

        def validate(of: SegmentationNet) -> Validation:
            return validate_stage(run.compute.runner(of), held_out, progress=seen)

        around = Around(
            validate=validate, keep=keep, progress=run.teller.stepped, is_stopped=is_stopped
        )
        train_net(trainee, run.wanted.budget, course, around)


def _lesson(run: Run, net: str, cases: Sequence[TrainingCase]) -> Lesson:
    """The net's lesson on some cases; what the cache lacks is made by the first process."""
    wanted = run.wanted

    def pieces() -> tuple[CasePieces, ...]:
        return cached_pieces(
            wanted.cache,
            wanted.system,
            net,
            cases,
            cyst=wanted.data.cyst,
            workers=max(1, wanted.budget.workers),
            progress=run.teller.preparing,
        )

    if run.ranks.world > 1:
        run.ranks.told_by_first(lambda: len(pieces()))
    return lesson_from_system(wanted.system, net, pieces())


def _trainee(run: Run, net: str, lesson: Lesson) -> tuple[Trainee, Course]:
    """The net and where its course stands: from the state, or at the beginning."""
    wanted, budget = run.wanted, run.wanted.budget
    place = list(wanted.system.nets).index(net)
    seed_torch(budget.seed, place)
    fresh = build_net(net, wanted.system.preset, classes=wanted.system.nets[net].out_channels)
    if net in run.start:
        fresh.load_state_dict(run.start[net].state_dict())
    trainee = Trainee(fresh, lesson, compute=run.compute, seed=budget.seed, ranks=run.ranks)
    if run.state is None or run.state.course.net != net:
        return trainee, Course(net=net)
    where = str(wanted.out / STATE)
    require_same_settings(run.state.settings, _settings(run, net), where=where)
    restore(trainee, run.state, where=where)
    return trainee, _reopened(run.state.course, lesson, budget)


def _reopened(course: Course, lesson: Lesson, budget: Budget) -> Course:
    """A finished course goes on where more steps or epochs are asked for than it had."""
    if not course.is_over or is_patience_over(course.watch, lesson.recipe, epochs=course.epoch):
        return course
    steps = lesson.recipe.epochs * steps_per_epoch(lesson, seed=budget.seed)
    wanted = min(steps, budget.steps) if budget.steps else steps
    is_late = budget.minutes is not None and course.seconds >= 60 * budget.minutes
    return course if course.step >= wanted or is_late else replace(course, is_over=False)


def _record_split(run: Run, net: str, split: SplitCases) -> None:
    if not run.ranks.is_first:
        return
    told = run.folder.record.get("splits")
    splits = dict(told) if isinstance(told, dict) else {}
    splits[net] = {
        "teaching": [case.name for case in split.teaching],
        "validating": [case.name for case in split.validating],
    }
    run.folder.write_record(splits=splits)
