"""Two processes together do what one does that accumulates the same two shares."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lessons import tiny_lesson, tiny_net, tiny_trainee
from safetensors.torch import load_file

from kits_runtime.errors import UsageError
from kits_trt.data.plans import plan_epoch
from kits_trt.data.samples import draw_sample
from kits_trt.systems.recipe import Dice
from kits_trt.train.course import Course
from kits_trt.train.losses import loss_of
from kits_trt.train.ranks import Ranks
from kits_trt.train.trainee import batches_of

WORKER = """
import os, sys, time
from pathlib import Path
from safetensors.torch import save_file
from lessons import tiny_lesson, tiny_net, tiny_trainee
from kits_trt.data.plans import plan_epoch
from kits_trt.data.samples import draw_sample
from kits_trt.train.course import Course
from kits_trt.train.trainee import batches_of
from kits_trt.train.ranks import joined_ranks

with joined_ranks(os.environ, cuda=False) as ranks:
    trainee = tiny_trainee(tiny_net(dropout=0.0), ranks=ranks)
    lesson = trainee.lesson
    batch = batches_of(plan_epoch(lesson, seed=7, epoch=0), 3)[0]
    samples = [draw_sample(lesson, key) for key in ranks.share(batch)]
    stops = ranks.rank == 1
    told = trainee.step(Course(net="tiny"), batch, samples, progress=0.0, is_stopped=stops)
    assert told.is_stopped
    trainee.settle()
    heard = ranks.told_by_first(lambda: "from 0")
    assert heard == "from 0"
    state = {f"grad.{n}": p.grad for n, p in trainee.net.named_parameters()}
    state |= {f"after.{n}": v.clone() for n, v in trainee.net.state_dict().items()}
    import torch
    state["losses"] = torch.tensor([told.loss, *told.sample_losses])
    save_file(state, f"{sys.argv[1]}/{ranks.rank}.safetensors")
    if ranks.is_first:
        time.sleep(1.0)
        Path(sys.argv[1], "results").touch()
assert Path(sys.argv[1], "results").exists(), "nobody leaves before the first process is done"
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def two_processes(out: Path) -> list[dict[str, torch.Tensor]]:
    paths = os.pathsep.join(path for path in sys.path if path)
    shared = {
        **os.environ,
        "PYTHONPATH": paths,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(out)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return [load_file(out / f"{rank}.safetensors") for rank in range(2)]


def test_two_processes_have_the_gradients_of_one_that_accumulates_both_shares(
    tmp_path: Path,
) -> None:
    first, second = two_processes(tmp_path)
    lesson = tiny_lesson()
    batch = batches_of(plan_epoch(lesson, seed=7, epoch=0), 3)[0]
    shares = [batch[0::2], batch[1::2]]
    assert [len(share) for share in shares] == [2, 1]
    alone = tiny_trainee(tiny_net(dropout=0.0))
    alone.net.train()
    total = 0.0
    for share in shares:  # batch normalisation sees a share at a time, as it does in each process
        samples = [draw_sample(lesson, key) for key in share]
        heads = alone.net.logits(alone.compute.patches([s.values for s in samples]))
        labels = alone.compute.labels([s.labels for s in samples])
        loss = loss_of(Dice(), heads, labels, epoch=0) * (len(share) / len(batch))
        loss.backward()
        total += float(loss.detach())
    for name, weights in alone.net.named_parameters():
        assert weights.grad is not None
        assert torch.equal(first[f"grad.{name}"], second[f"grad.{name}"])
        assert torch.allclose(first[f"grad.{name}"], weights.grad, rtol=1e-5, atol=1e-7), name
    assert first["losses"][0].item() == pytest.approx(total, rel=1e-6)
    assert torch.equal(first["losses"], second["losses"])
    assert first["losses"][1:].mean().item() == pytest.approx(total, rel=1e-5)
    after = [name for name in first if name.startswith("after.")]
    assert any("running_mean" in name for name in after)
    assert all(torch.equal(first[name], second[name]) for name in after)


def test_a_batch_with_less_than_a_sample_a_process_is_refused() -> None:
    assert Ranks(rank=1, world=2).share([0, 1, 2]) == [1]
    with pytest.raises(UsageError, match="found 1 samples in a batch for 2 processes"):
        Ranks(rank=0, world=2).share([0])


def test_one_process_takes_a_step_alone() -> None:
    trainee = tiny_trainee()
    batch = batches_of(plan_epoch(trainee.lesson, seed=7, epoch=0), 3)[0]
    samples = [draw_sample(trainee.lesson, key) for key in batch]
    told = trainee.step(Course(net="tiny"), batch, samples, progress=0.0, is_stopped=False)
    assert not told.is_stopped
    assert len(told.sample_losses) == 3
