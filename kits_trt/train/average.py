"""Averages one net's weights over checkpoints that one training made of the other's.

``python -m kits_trt.train.average --net NET 0.3=a.safetensors 0.7=b.safetensors --data DIR -o OUT``

A net that goes on learning from other scans forgets some of what it knew; between its old and its
new weights lie nets that know both (Wortsman et al., CVPR 2022). Norms are settled anew on DIR.
With ``--half-at 0.3`` the last layer's bias moves so that a score of 0.3 becomes 0.5, where two
classes part. OUT has the other nets and the facts of the last checkpoint.
"""

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kits_runtime.errors import KitsError, UsageError
from kits_trt.data.cache import cached_pieces
from kits_trt.data.datasets import find_training_cases
from kits_trt.data.plans import Lesson, lesson_from_system
from kits_trt.nets import SegmentationNet
from kits_trt.train.checkpoint import (
    Facts,
    read_trained_nets,
    system_of,
    write_trained_nets,
)
from kits_trt.train.compute import Compute
from kits_trt.train.provenance import with_origin
from kits_trt.train.ranks import Ranks
from kits_trt.train.trainee import Trainee

logger = logging.getLogger(__name__)

State = Mapping[str, Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m kits_trt.train.average")
    add = parser.add_argument
    add("parts", nargs="+", type=_part, metavar="SHARE=CKPT", help="shares that add up to 1")
    add("--net", required=True, help="whose weights are averaged")
    add("--data", type=Path, required=True, metavar="DIR", help="cases that settle the norms")
    add("--cache", type=Path, required=True, metavar="DIR", help="prepared cases")
    add("--half-at", type=float, default=0.5, metavar="SCORE", help="(default: 0.5)")
    add("-o", "--out", type=Path, required=True, help="the checkpoint, a .safetensors file")
    options = parser.parse_args(argv)
    try:
        _run(options)
    except KitsError as error:
        logger.error("%s", error)
        return error.exit_code
    logger.info("%s", options.out)
    return 0


def averaged(states: Sequence[State], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of each weight; whole numbers are those of the last state.

    Raises:
        UsageError: The shares are not positive or do not add up to 1.
    """
    if min(shares) <= 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise UsageError(f"shares: found {list(shares)}, expected positive ones that add up to 1")
    mean = dict(states[-1])
    for name, value in mean.items():
        if value.is_floating_point():
            each = [share * state[name] for share, state in zip(shares, states, strict=True)]
            mean[name] = torch.stack(each).sum(0)
    return mean


def move_half(net: nn.Module, score: float) -> None:
    """Moves the last bias of a net with two classes so that ``score`` becomes 0.5.

    Raises:
        UsageError: The score is no share, or the net's last layer has not two classes.
    """
    head = getattr(net, "head", None)
    bias = getattr(head, "bias", None)
    if not 0 < score < 1 or not isinstance(bias, Tensor) or len(bias) != 2:
        raise UsageError(
            f"--half-at: found {score:g} for {type(net).__name__}, expected a share between 0 and "
            "1, and a net whose last layer tells two classes"
        )
    with torch.no_grad():
        bias[1] += math.log((1 - score) / score)


def _run(options: argparse.Namespace) -> None:
    shares = [share for share, _ in options.parts]
    read = [read_trained_nets(path) for _, path in options.parts]
    for (nets, _), (_, path) in zip(read, options.parts, strict=True):
        if options.net not in nets:
            raise UsageError(
                f"{path}: found {sorted(nets)}, expected {options.net} among them; name another "
                "--net or checkpoint"
            )
    nets, facts = read[-1]
    net = nets[options.net]
    states = [each[options.net].state_dict() for each, _ in read]
    net.load_state_dict(averaged(states, shares))
    _settle(net, _lesson(facts, options), facts)
    if options.half_at != 0.5:
        move_half(net, options.half_at)
    told: Facts = facts
    for _, earlier in read[:-1]:
        told = with_origin(told, earlier)
    how = {"shares": shares, "half_at": options.half_at}
    own = {key: value for key, value in told.items() if key not in ("format", "nets")}
    own["metrics"] = _still_true(own.get("metrics"), options.net)
    states_of = {name: each.state_dict() for name, each in nets.items()}
    write_trained_nets(options.out, states_of, {**own, "averaged": {options.net: how}})


def _still_true(metrics: object, net: str) -> dict[str, object]:
    """The metrics of the other nets, and this one's steps: no validation saw its weights."""
    told = dict(metrics) if isinstance(metrics, Mapping) else {}
    told.pop("system", None)
    own = told.get(net)
    if isinstance(own, Mapping):
        told[net] = {name: value for name, value in own.items() if name == "steps"}
    return told


def _lesson(facts: Facts, options: argparse.Namespace) -> Lesson:
    system = system_of(facts, where=str(options.parts[-1][1]))
    cases = find_training_cases(options.data)
    pieces = cached_pieces(
        options.cache,
        system,
        options.net,
        cases,
        cyst="kidney",
        workers=1,
        progress=lambda *_: None,
    )
    return lesson_from_system(system, options.net, pieces)


def _settle(net: SegmentationNet, lesson: Lesson, facts: Facts) -> None:
    seed = facts.get("seed")
    trainee = Trainee(
        net,
        lesson,
        compute=Compute(),
        seed=seed if isinstance(seed, int) else 0,
        ranks=Ranks(),
    )
    trainee.settle()
    net.eval()


def _part(text: str) -> tuple[float, Path]:
    share, _, path = text.partition("=")
    try:
        return float(share), Path(path)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r}; expected a share and a checkpoint, such as 0.3=last.safetensors"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
