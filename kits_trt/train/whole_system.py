"""The score of a whole system, once all of its nets have weights."""

from kits_trt.nets import SegmentationNet, build_net
from kits_trt.train.system_scores import SystemScores, score_system
from kits_trt.train.wanted import Run


def scored_system(run: Run) -> SystemScores | None:
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


def facts_of(scores: SystemScores | None) -> dict[str, object]:
    """Return what the run's record says of the scores; nulls where there are none."""
    if scores is None:
        return {"system_dice": None, "system_scores": None, "fixed_mask_dice": None}
    return {
        "system_dice": scores.dice,
        "system_scores": scores.means,
        "fixed_mask_dice": scores.fixed_mask_dice,
        "system_cases": {case.case: dict(case.scores) for case in scores.cases},
    }
