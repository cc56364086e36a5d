"""What a run leaves in its folder while it trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kits_trt.nets import build_net
from kits_trt.train.checkpoint import read_trained_nets
from kits_trt.train.course import Course, Validation
from kits_trt.train.run_folder import BEST, LAST, RunFolder
from kits_trt.train.state_file import Settings
from kits_trt.train.trainee import Trainee

NET = "kidney-unet"


def steps_of(path: Path) -> float | None:
    """At which step the weights in a checkpoint were validated, as its header says."""
    metrics = cast(dict[str, dict[str, float]], read_trained_nets(path)[1]["metrics"])
    return metrics[NET]["steps"] if NET in metrics else None


def test_each_checkpoint_tells_what_was_found_of_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kits_trt.train.run_folder.write_state", lambda *_: None)
    facts = {"system": "unet2d-pair", "preset": "small"}
    folder = RunFolder(path=tmp_path, facts=facts)
    trainee = cast(Trainee, SimpleNamespace(net=build_net(NET, "small")))

    def keep(step: int, dice: float | None, **more: Any) -> None:
        found = None if dice is None else Validation(loss=1.0, dice=(dice,))
        course = Course(net=NET, step=step, **more)
        folder.keep(trainee, course, found, settings=cast(Settings, None))

    keep(10, 0.8)
    assert (steps_of(tmp_path / LAST), steps_of(tmp_path / BEST)) == (10, 10)
    keep(20, 0.6, best_dice=0.8)
    assert (steps_of(tmp_path / LAST), steps_of(tmp_path / BEST)) == (20, 10)
    keep(25, None, best_dice=0.8)
    assert (steps_of(tmp_path / LAST), steps_of(tmp_path / BEST)) == (None, 10)
