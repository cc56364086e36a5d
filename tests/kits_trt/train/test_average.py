"""Weights between those of several checkpoints, and the score that counts as half."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn
from training_cases import write_case

from kits_runtime.errors import UsageError
from kits_trt.nets import build_net
from kits_trt.train.average import averaged, main, move_half
from kits_trt.train.checkpoint import read_trained_nets, write_trained_nets

NET, OTHER = "tumour-unet", "kidney-unet"


def test_a_mean_of_weights_has_its_shares() -> None:
    one = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(5)}
    other = {"weight": torch.tensor([3.0, -2.0]), "count": torch.tensor(9)}
    mean = averaged([one, other], [0.25, 0.75])
    assert mean["weight"].tolist() == [2.5, -1.0]
    assert int(mean["count"]) == 9
    assert one["weight"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("shares", [(0.5, 0.6), (1.5, -0.5), (0.0, 1.0)])
def test_shares_that_make_no_mean_are_refused(shares: tuple[float, float]) -> None:
    state = {"weight": torch.zeros(1)}
    with pytest.raises(UsageError, match="expected positive ones that add up to 1"):
        averaged([state, state], shares)


@pytest.mark.parametrize("score", [0.3, 0.8])
def test_the_score_that_is_asked_for_becomes_half(score: float) -> None:
    torch.manual_seed(0)
    net = build_net("msvnet", "small").eval()
    patches = torch.randn(2, 5, 64, 64)
    with torch.inference_mode():
        before = net(patches)[:, 1]
        move_half(net, score)
        after = net(patches)[:, 1]
    odds = before / (1 - before) * (1 - score) / score
    torch.testing.assert_close(after, odds / (1 + odds), atol=1e-5, rtol=0)
    clear = (before - score).abs() > 1e-4
    assert torch.equal((after >= 0.5)[clear], (before >= score)[clear])


def test_half_is_moved_of_nets_with_two_classes_alone() -> None:
    with pytest.raises(UsageError, match=r"found 0.3 for Conv2d, expected a share"):
        move_half(nn.Conv2d(1, 2, 1), 0.3)
    with pytest.raises(UsageError, match="found 1 for MsVNet"):
        move_half(build_net("msvnet", "small"), 1.0)


def test_the_command_leaves_a_checkpoint_that_tells_how_it_was_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_case(tmp_path / "data" / "case_00000")
    parts = []
    for seed in range(2):
        torch.manual_seed(seed)
        states = {name: build_net(name, "small").state_dict() for name in (NET, OTHER)}
        metrics = {NET: {"steps": 5.0, "validation loss": 0.1}, OTHER: {"steps": 4.0 + seed}}
        data = {"description": f"Set {seed}.", "real_anatomy": False}
        facts = {
            "system": "unet2d-pair",
            "preset": "small",
            "licence": "Apache-2.0",
            "metrics": metrics,
            "data": data,
        }
        parts.append(tmp_path / f"{seed}.safetensors")
        write_trained_nets(parts[-1], states, facts)
    shared = ["--net", NET, "--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]
    out = tmp_path / "out.safetensors"

    assert main([f"0.25={parts[0]}", f"0.75={parts[1]}", *shared, "-o", str(out)]) == 0

    (first, _), (last, _), (made, facts) = (read_trained_nets(path) for path in (*parts, out))
    for (name, value), one, other in zip(
        made[NET].named_parameters(), first[NET].parameters(), last[NET].parameters(), strict=True
    ):
        torch.testing.assert_close(value, 0.25 * one + 0.75 * other, msg=name)
    kept = last[OTHER].state_dict()
    assert all(torch.equal(kept[name], value) for name, value in made[OTHER].state_dict().items())
    with safe_open(out, framework="pt") as opened:
        told = json.loads(opened.metadata()["kits"])
    assert told["averaged"] == {NET: {"shares": [0.25, 0.75], "half_at": 0.5}}
    assert told["metrics"] == {NET: {"steps": 5.0}, OTHER: {"steps": 5.0}}
    assert told["data"]["description"] == "Set 1. Begun from weights that were trained on: Set 0."

    assert main([f"0.5={parts[0]}", f"0.6={parts[1]}", *shared, "-o", str(tmp_path / "no")]) == 2
    assert "add up to 1" in caplog.text
    assert not (tmp_path / "no").exists()
