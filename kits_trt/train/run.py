"""One run of ``kits-train``: the nets of a system one after the other, then the whole system."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kits_runtime.errors import BundleError, UsageError
from kits_trt.data.cache import cached_pieces
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.data.plans import Lesson, lesson_from_system
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.nets import SegmentationNet, build_net
from kits_trt.systems import System
from kits_trt.train.checkpoint import read_trained_nets, system_of
from kits_trt.train.compute import Compute, seed_torch
from kits_trt.train.course import Budget, Course, Validation
from kits_trt.train.loop import Around, Trainee, steps_per_epoch, train_net
from kits_trt.train.optimise import is_patience_over
from kits_trt.train.provenance import (
    DataFacts,
    commit_of_package,
    described,
    joint_licence,
    plain_recipe,
    tool_versions,
    with_origin,
)
from kits_trt.train.ranks import Ranks
from kits_trt.train.run_folder import BEST, LAST, RECORD, STATE, RunFolder, copied_state
from kits_trt.train.split import SplitCases, split_cases
from kits_trt.train.stage_scores import validate_stage
from kits_trt.train.state_file import (
    TrainingState,
    read_state,
    require_same_settings,
    restore,
)
from kits_trt.train.stopping import stop_asked_for
from kits_trt.train.system_scores import SystemScores, score_system
from kits_trt.train.teller import Teller


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Cases and what is known of them; cases to validate on where a set of its own has them."""

    cases: tuple[TrainingCase, ...]
    facts: DataFacts
    validating: tuple[TrainingCase, ...] = ()
    validating_facts: DataFacts | None = None
    cyst: Cyst = "background"

    @property
    def sha256(self) -> str:
        """A hash of all that takes part."""
        other = self.validating_facts
        return self.facts.sha256 + (f"+{other.sha256}" if other else "")

    def split(self, system: System, net: str, *, seed: int) -> SplitCases:
        """The cases that teach a net and those that validate it."""
        if self.validating:
            return SplitCases(teaching=self.cases, validating=self.validating)
        return split_cases(self.cases, system.recipes[net].split, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a run is asked for.

    Attributes:
        system: Its recipes are as they shall be followed.
        data: What to learn from.
        out: The run's folder.
        cache: The folder of prepared cases.
        budget: How long each net is trained.
        nets: Those to train; the others are left as they are.
        resume: Whether to go on with what is in the folder.
        start: A checkpoint whose weights training begins from.
    """

    system: System
    data: Data
    out: Path
    cache: Path
    budget: Budget
    nets: tuple[str, ...]
    resume: bool = False
    start: Path | None = None


@dataclass(slots=True, kw_only=True)
class Run:
    """What the trainings of one run share."""

    wanted: Wanted
    compute: Compute
    ranks: Ranks
    teller: Teller
    folder: RunFolder
    start: Mapping[str, SegmentationNet] = field(default_factory=dict)
    state: TrainingState | None = None


def run_training(wanted: Wanted, *, compute: Compute, ranks: Ranks, teller: Teller) -> RunFolder:
    """Train what is wanted and validate the system; return the folder with all results.

    Raises:
        UsageError: There is a run already, or it was begun in another way.
        BundleError: A checkpoint is damaged or of another system.
        ScanError: A case cannot be used.
        KeyboardInterrupt: It was stopped and has been saved.
    """
    run = _begun(wanted, compute=compute, ranks=ranks, teller=teller)
    begun = time.monotonic()
    for net in wanted.nets:
        if _is_left(run, net):
            _train(run, net)
    if ranks.is_first:
        scores = _scored_system(run)
        run.folder.write_record(
            state="finished", seconds=round(time.monotonic() - begun, 1), **_told(scores)
        )
        if scores is not None:
            run.folder.metrics["system"] = {**scores.means, "fixed mask": scores.fixed_mask_dice}
            run.folder.write_checkpoints()
            run.teller.say(
                f"{wanted.system.name}: Dice of kidney with tumour {scores.dice:.4f}, "
                f"of the best fixed mask {scores.fixed_mask_dice:.4f}"
            )
    return run.folder


def _begun(wanted: Wanted, *, compute: Compute, ranks: Ranks, teller: Teller) -> Run:
    started = read_trained_nets(wanted.start) if wanted.start else None
    if started is not None:
        _require_system(started[1], wanted.system, where=str(wanted.start))
    licences = [wanted.data.facts.licence]
    if wanted.data.validating_facts is not None:
        licences.append(wanted.data.validating_facts.licence)
    facts = _facts(wanted, joint_licence(licences))
    if started is not None:
        facts = with_origin(facts, started[1])
    folder = RunFolder(path=wanted.out, facts=facts)
    run = Run(
        wanted=wanted,
        compute=compute,
        ranks=ranks,
        teller=teller,
        folder=folder,
        start=started[0] if started else {},
    )
    _take_up(run)
    if ranks.is_first:
        folder.write_record(
            state="training",
            **dict(folder.facts),
            splits=_earlier_splits(folder.path / RECORD),
            options={
                "device": compute.device,
                "amp": compute.amp,
                "processes": ranks.world,
                "steps": wanted.budget.steps,
                "minutes": wanted.budget.minutes,
                "validate_every": wanted.budget.validate_every,
            },
        )
    return run


def _earlier_splits(path: Path) -> dict[str, object]:
    """The splits of nets that were trained before in this folder."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    splits = told.get("splits") if isinstance(told, dict) else None
    return dict(splits) if isinstance(splits, dict) else {}


def _facts(wanted: Wanted, licence: str) -> dict[str, object]:
    system, data = wanted.system, wanted.data
    return {
        "system": system.name,
        "preset": system.preset,
        "labels": list(system.labels),
        "seed": wanted.budget.seed,
        "commit": commit_of_package(),
        "versions": dict(tool_versions()),
        "licence": licence,
        "data": {
            "description": described(data.facts, teaching=len(data.cases), cyst=data.cyst),
            "kind": data.facts.kind,
            "sha256": data.sha256,
            "cases": list(data.facts.cases),
            "validation_cases": [case.name for case in data.validating],
            "cyst": data.cyst,
            "real_anatomy": any(
                each.real_anatomy for each in (data.facts, data.validating_facts) if each
            ),
        },
        "recipes": {net: plain_recipe(recipe) for net, recipe in system.recipes.items()},
    }


def _take_up(run: Run) -> None:
    """Read what the folder holds already, if the run may go on with it."""
    folder, wanted = run.folder, run.wanted
    if not (folder.path / LAST).is_file():
        if wanted.resume:
            raise UsageError(
                f"{folder.path}: found no {LAST}, expected a run to go on with; leave --resume out"
            )
        return
    last, facts = read_trained_nets(folder.path / LAST)
    _require_system(facts, wanted.system, where=str(folder.path / LAST))
    if not wanted.resume and any(net in last for net in wanted.nets):
        raise UsageError(
            f"{folder.path}: found a run with {', '.join(last)} already; expected none; add "
            "--resume to go on with it, or choose another --out"
        )
    folder.facts = with_origin(folder.facts, facts)
    folder.last = {name: copied_state(net) for name, net in last.items()}
    if (folder.path / BEST).is_file():
        best, facts = read_trained_nets(folder.path / BEST)
        folder.best = {name: copied_state(net) for name, net in best.items()}
        metrics = facts.get("metrics")
        if isinstance(metrics, dict):
            folder.metrics = {net: dict(found) for net, found in metrics.items() if net in best}
    if (folder.path / STATE).is_file():
        run.state = read_state(folder.path / STATE)
    steps = dict.fromkeys(last, 2**62)
    if run.state is not None:
        steps[run.state.course.net] = run.state.course.step
    folder.read_rows(steps)


def _require_system(facts: Mapping[str, object], system: System, *, where: str) -> None:
    found = system_of(facts, where=where)
    names = (found.name, found.preset, found.labels)
    if names != (system.name, system.preset, system.labels):
        raise BundleError(
            f"{where}: found a checkpoint of {found.name} {found.preset} with labels "
            f"{list(found.labels)}, expected {system.name} {system.preset} with "
            f"{list(system.labels)}; name that system and preset, or give another checkpoint"
        )


def _is_left(run: Run, net: str) -> bool:
    """Whether a net has steps to do: it is new, or the one that the state is of."""
    return net not in run.folder.last or (run.state is not None and run.state.course.net == net)


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


def _scored_system(run: Run) -> SystemScores | None:
    """The whole system with its best weights; None where a net is missing or no case is left."""
    wanted, folder = run.wanted, run.folder
    if set(folder.best) != set(wanted.system.nets):
        missing = [net for net in wanted.system.nets if net not in folder.best]
        run.teller.say(f"not scored as a whole: {', '.join(missing)} has no weights yet")
        return None
    splits = [
        wanted.data.split(wanted.system, net, seed=wanted.budget.seed) for net in wanted.system.nets
    ]
    taught = {case.name for split in splits for case in split.teaching}
    held_out = splits[0].validating
    if not wanted.data.validating:
        held_out = tuple(case for case in held_out if case.name not in taught)
    if not held_out:
        run.teller.say(
            "not scored as a whole: the nets' splits leave no case that taught none of them; "
            "give --validation-data"
        )
        return None
    return score_system(
        wanted.system,
        {net: run.compute.runner(_best_net(run, net)) for net in wanted.system.nets},
        held_out,
        teaching=splits[0].teaching,
        cyst=wanted.data.cyst,
        progress=run.teller.scoring,
    )


def _best_net(run: Run, net: str) -> SegmentationNet:
    system = run.wanted.system
    built = build_net(net, system.preset, classes=system.nets[net].out_channels)
    built.load_state_dict(dict(run.folder.best[net]))
    return run.compute.placed(built)


def _told(scores: SystemScores | None) -> dict[str, object]:
    if scores is None:
        return {"system_dice": None, "system_scores": None, "fixed_mask_dice": None}
    return {
        "system_dice": scores.dice,
        "system_scores": scores.means,
        "fixed_mask_dice": scores.fixed_mask_dice,
        "system_cases": {case.case: dict(case.scores) for case in scores.cases},
    }
