"""Cache, checkpoints, record and loop: nothing half-written, and the loss falls."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kits_runtime.errors import BundleError, KitsError
from kits_trt.nets import build_net
from kits_trt.train import phantom_cache
from kits_trt.train.checkpoint import read_checkpoint, write_checkpoint
from kits_trt.train.grids import Sample
from kits_trt.train.minimal import TASKS, main
from kits_trt.train.minimal_loop import Stepper, Task, learning_rate
from kits_trt.train.phantom_cache import Case, ScanRecipe, cached_cases, read_case, write_case
from kits_trt.train.record import HEADER, Record

FACTS = {"net": "msvnet", "preset": "small", "seed": 0}
COARSE = ScanRecipe(
    seed=5, plane=(48, 48), pixel_mm=(8.0, 9.0), slice_mm=(10.0,), extent_mm=(150.0, 200.0)
)


def small_case() -> Case:
    rng = np.random.default_rng(0)
    labels = np.zeros((12, 128, 128), np.uint8)
    labels[2:10, 40:90, 40:90] = 1
    labels[4:8, 50:70, 50:70] = 2
    hu = np.array([-100, 200, 60], np.int16)[labels] + rng.integers(-9, 9, labels.shape)
    sample = Sample(hu=hu.astype(np.int16), labels=labels)
    return Case(index=3, whole=sample, kidneys=(sample,))


def test_cases_survive_the_cache_unchanged(tmp_path: Path) -> None:
    case = small_case()
    write_case(tmp_path / "00003", case)
    found = read_case(tmp_path / "00003", 3)
    assert len(found.kidneys) == 1
    np.testing.assert_array_equal(found.whole.hu, case.whole.hu)
    np.testing.assert_array_equal(found.kidneys[0].labels, case.kidneys[0].labels)


def test_an_interrupted_write_leaves_no_case_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def stop_at_the_third(path: Path, array: np.ndarray) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        path.write_bytes(array.tobytes())

    monkeypatch.setattr(phantom_cache.np, "save", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_case(tmp_path / "00003", small_case())
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_writers_leaves_the_firsts_case(tmp_path: Path) -> None:
    case = small_case()
    write_case(tmp_path / "00003", case)
    mark = tmp_path / "00003" / "first"
    mark.touch()
    write_case(tmp_path / "00003", case)
    assert mark.exists()
    assert [item.name for item in tmp_path.iterdir()] == ["00003"]


def test_cached_cases_are_rendered_once_and_repeat_exactly(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = cached_cases(
        tmp_path, COARSE, [4], workers=1, progress=lambda *counts: told.append(counts)
    )
    assert told == [(1, 1)]
    cached_cases(tmp_path, COARSE, [4], progress=lambda *counts: told.append(counts))
    assert told == [(1, 1)]
    again = phantom_cache.render_case(COARSE, 4)
    np.testing.assert_array_equal(first[0].whole.hu, again.whole.hu)
    np.testing.assert_array_equal(first[0].whole.labels, again.whole.labels)
    assert again.whole.hu.shape[1:] == (128, 128)
    assert (again.whole.labels > 0).sum() * 3.0 * 9.0**2 > 1000  # there are kidneys in it


def test_recipes_that_differ_have_different_keys() -> None:
    assert ScanRecipe(seed=1).key() != ScanRecipe(seed=2).key()
    assert ScanRecipe(seed=1).key() == ScanRecipe(seed=1).key()


def test_checkpoints_bring_back_weights_and_facts(tmp_path: Path) -> None:
    net = build_net("msvnet", "small")
    path = tmp_path / "net.safetensors"
    write_checkpoint(path, net, FACTS)
    found, facts = read_checkpoint(path)
    assert facts == FACTS
    assert not found.training
    for name, weights in net.state_dict().items():
        assert torch.equal(found.state_dict()[name], weights)
    assert [item.name for item in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_checkpoint_without_its_network_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"facts lack \['preset'\]"):
        write_checkpoint(tmp_path / "a", build_net("msvnet", "small"), {"net": "msvnet"})


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    net = build_net("msvnet", "small")
    write_checkpoint(path, net, FACTS)
    cut_short = tmp_path / "short.safetensors"
    cut_short.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BundleError, match=r"short\.safetensors: found .*expected a checkpoint"):
        read_checkpoint(cut_short)
    save_file(net.state_dict(), tmp_path / "foreign")
    with pytest.raises(BundleError, match="foreign: found 'kits', expected a checkpoint of one"):
        read_checkpoint(tmp_path / "foreign")
    weights = dict(net.state_dict())
    weights["renamed"] = weights.pop("head.bias")
    header = {"kits": '{"net": "msvnet", "preset": "small"}'}
    save_file(weights, tmp_path / "renamed", metadata=header)
    with pytest.raises(BundleError, match=r"Missing key.*head\.bias"):
        read_checkpoint(tmp_path / "renamed")
    with pytest.raises(BundleError, match="missing"):
        read_checkpoint(tmp_path / "missing")


def test_the_record_keeps_the_best_weights_and_a_row_a_validation(tmp_path: Path) -> None:
    record = Record(tmp_path, FACTS)
    net = build_net("msvnet", "small")
    for step, (loss, dices) in enumerate([(2.0, [0.2, 0.6]), (1.0, [0.9, 0.5]), (0.5, [0.1])]):
        with torch.no_grad():
            net.head.bias.fill_(float(step))
        record.add_step(step, loss=loss, rate=0.1)
        record.add_validation(net, dices)
    with record.metrics_path.open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == HEADER
    assert [(row[0], row[2], row[4], row[6]) for row in rows] == [
        ("1", "2", "0.4", "0.2"),
        ("2", "1", "0.7", "0.5"),
        ("3", "0.5", "0.1", "0.1"),
    ]
    assert record.best_dice == pytest.approx(0.7)
    best, facts = read_checkpoint(record.weights_path)
    assert best.head.bias.tolist() == [1.0, 1.0]
    assert facts["step"] == 2


def test_the_learning_rate_rises_for_30_steps_and_falls_as_a_cosine() -> None:
    assert learning_rate(2.0, 14, 0.0) == pytest.approx(1.0)
    assert learning_rate(2.0, 29, 0.0) == pytest.approx(2.0)
    assert learning_rate(2.0, 500, 0.5) == pytest.approx(1.0)
    assert learning_rate(2.0, 750, 0.75) == pytest.approx(1 - math.sqrt(0.5))
    assert learning_rate(2.0, 999, 1.0) == pytest.approx(0.0)


def still(task: Task, size: int) -> Task:
    """Return a task that draws the same few patches at every step."""
    return Task(
        net=task.net,
        learning_rate=task.learning_rate,
        batch_size=size,
        draw=lambda cases, _key, count: task.draw(cases, (0, 0), count),
        loss=task.loss,
        validate=task.validate,
    )


def test_twelve_steps_on_one_batch_lower_the_tumour_loss() -> None:
    torch.manual_seed(0)
    net = build_net("msvnet", "small")
    stepper = Stepper(net, still(TASKS["tumour"], 2), [small_case()], seed=0)
    losses = [stepper.step(step, 2e-3) for step in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_loss_that_is_no_number_stops_the_run_naming_the_step() -> None:
    task = still(TASKS["tumour"], 2)
    broken = Task(
        net=task.net,
        learning_rate=1.0,
        batch_size=2,
        draw=task.draw,
        loss=lambda logits, _labels, _epoch: logits[0].sum() * float("nan"),
        validate=task.validate,
    )
    stepper = Stepper(build_net("msvnet", "small"), broken, [small_case()], seed=0)
    with pytest.raises(KitsError, match="step 7: found a loss of nan"):
        stepper.step(7, 1e-3)


def test_one_command_trains_for_a_step_and_leaves_weights_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(root: Path, recipe: ScanRecipe, numbers: list[int], **_: object) -> list[Case]:
        assert numbers == [0, 1, 1_000_000]
        assert root == tmp_path / "run" / "cache"
        return [small_case() for _ in numbers]

    monkeypatch.setattr("kits_trt.train.minimal.cached_cases", drawn)
    folder = tmp_path / "run"
    arguments = ["tumour", "--out", str(folder), "--steps", "1", "--cases", "2", "--held-out", "1"]
    assert main([*arguments, "--threads", "1"]) == 0
    net, facts = read_checkpoint(folder / "msvnet.safetensors")
    assert facts["step"] == 1
    # The rate of the first step is far below 1e-3 and moves every weight by about that.
    torch.manual_seed(0)
    untrained = build_net("msvnet", "small")
    moved = (net.head.weight - untrained.head.weight).abs().max().item()
    assert 0 < moved < 1e-3
    assert (folder / "metrics.csv").read_text(encoding="utf-8").count("\n") == 2
