"""How a run begins: its facts, and what its folder holds already."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from kits_runtime.errors import BundleError, UsageError
from kits_trt.nets import SegmentationNet
from kits_trt.systems import System
from kits_trt.train.checkpoint import read_trained_nets, system_of
from kits_trt.train.compute import Compute
from kits_trt.train.provenance import (
    commit_of_package,
    described,
    joint_licence,
    plain_recipe,
    tool_versions,
    with_origin,
)
from kits_trt.train.ranks import Ranks
from kits_trt.train.run_folder import BEST, LAST, RECORD, STATE, RunFolder, copied_state
from kits_trt.train.state_file import (
    read_state,
)
from kits_trt.train.teller import Teller
from kits_trt.train.wanted import Run, Wanted


def begun_run(wanted: Wanted, *, compute: Compute, ranks: Ranks, teller: Teller) -> Run:
    """Return the run with what its folder holds already; its record says that it trains.

    Raises:
        UsageError: There is a run already, or none to go on with.
        BundleError: A checkpoint is damaged or of another system.
    """
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
    if started is not None:
        _take_over(run, *started)
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
    folder.last_metrics = _metrics_in(facts, last)
    finished = facts.get("finished")
    folder.finished = {net for net in last if not isinstance(finished, list) or net in finished}
    if (folder.path / BEST).is_file():
        best, facts = read_trained_nets(folder.path / BEST)
        folder.best = {name: copied_state(net) for name, net in best.items()}
        folder.metrics = _metrics_in(facts, best)
    if (folder.path / STATE).is_file():
        run.state = read_state(folder.path / STATE)
    steps = dict.fromkeys(folder.finished, 2**62)
    if run.state is not None:
        steps[run.state.course.net] = run.state.course.step
    folder.read_rows(steps)


def _take_over(run: Run, nets: Mapping[str, SegmentationNet], facts: Mapping[str, object]) -> None:
    """Leave nets that are not to be trained as the checkpoint that training begins from has them.

    They are not finished: whoever asks for them later trains them.
    """
    folder = run.folder
    others = [net for net in nets if net not in run.wanted.nets and net not in folder.last]
    told = _metrics_in(facts, others)
    for net in others:
        folder.last[net] = folder.best[net] = copied_state(nets[net])
    folder.last_metrics |= told
    folder.metrics |= told


def _metrics_in(facts: Mapping[str, object], nets: Collection[str]) -> dict[str, dict[str, float]]:
    """What a checkpoint's header says that validations of these nets found."""
    metrics = facts.get("metrics")
    if not isinstance(metrics, dict):
        return {}
    return {net: dict(found) for net, found in metrics.items() if net in nets}


def _require_system(facts: Mapping[str, object], system: System, *, where: str) -> None:
    found = system_of(facts, where=where)
    names = (found.name, found.preset, found.labels)
    if names != (system.name, system.preset, system.labels):
        raise BundleError(
            f"{where}: found a checkpoint of {found.name} {found.preset} with labels "
            f"{list(found.labels)}, expected {system.name} {system.preset} with "
            f"{list(system.labels)}; name that system and preset, or give another checkpoint"
        )
