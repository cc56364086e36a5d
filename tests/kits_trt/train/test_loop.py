"""The loop repeats exactly, goes on exactly, stops when it must, and learns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lessons import equal, tiny_lesson, tiny_net, tiny_trainee, weights_of

from kits_runtime.errors import (
    BundleError,
    KitsError,
    OutOfMemoryError,
    ScanError,
    UsageError,
)
from kits_trt.data.plans import plan_epoch
from kits_trt.data.samples import draw_sample
from kits_trt.nets import SegmentationNet
from kits_trt.systems.recipe import OnPlateau, Sgd
from kits_trt.train.compute import Compute, memory_told
from kits_trt.train.course import Budget, Course, Validation, course_from_plain
from kits_trt.train.loop import Around, train_net
from kits_trt.train.stage_scores import validate_stage
from kits_trt.train.state_file import read_state, require_same_settings, restore, write_state
from kits_trt.train.trainee import Trainee, batches_of

BUDGET = Budget(seed=7, steps=6, workers=2)


class Kept:
    """Remembers what a training was told to keep."""

    def __init__(self) -> None:
        self.courses: list[Course] = []
        self.found: list[Validation | None] = []

    def __call__(self, course: Course, found: Validation | None) -> None:
        self.courses.append(course)
        self.found.append(found)


def around(
    trainee: Trainee, kept: Kept, *, is_stopped: Callable[[], bool] = lambda: False
) -> Around:
    def validate(net: SegmentationNet) -> Validation:
        return validate_stage(trainee.compute.runner(net), trainee.lesson)

    return Around(validate=validate, keep=kept, is_stopped=is_stopped)


def run(trainee: Trainee, budget: Budget = BUDGET, course: Course | None = None) -> Kept:
    kept = Kept()
    train_net(trainee, budget, course or Course(net="tiny"), around(trainee, kept))
    return kept


def stopped_after(trainee: Trainee, steps: int, kept: Kept) -> Course:
    asked = iter([False] * (steps - 1) + [True])
    with pytest.raises(KeyboardInterrupt):
        train_net(
            trainee,
            BUDGET,
            Course(net="tiny"),
            around(trainee, kept, is_stopped=lambda: next(asked)),
        )
    return kept.courses[-1]


def test_six_steps_are_three_a_stop_and_three_more_from_the_file(tmp_path: Path) -> None:
    straight = tiny_trainee()
    told = run(straight)
    broken, kept = tiny_trainee(), Kept()
    course = stopped_after(broken, 3, kept)
    assert (course.step, course.epoch, course.batch) == (3, 1, 1)
    assert course.case_losses, "hard cases need the losses of the epoch before"
    write_state(tmp_path / "state.safetensors", broken, course, {"seed": 7})
    state = read_state(tmp_path / "state.safetensors")
    again = tiny_trainee(tiny_net(dropout=0.3))
    with torch.no_grad():
        for weights in again.net.parameters():
            weights.zero_()
    restore(again, state, where="state")
    rest = run(again, course=state.course)
    assert equal(weights_of(straight), weights_of(again))
    last, other = told.courses[-1], rest.courses[-1]
    assert replace(last, seconds=0.0) == replace(other, seconds=0.0)
    assert told.found[-1] == rest.found[-1]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_threads_that_draw_change_nothing(workers: int) -> None:
    first, second = tiny_trainee(), tiny_trainee()
    run(first)
    run(second, replace(BUDGET, workers=workers))
    assert equal(weights_of(first), weights_of(second))


def test_another_seed_trains_otherwise() -> None:
    first, second = tiny_trainee(), tiny_trainee()
    run(first)
    run(second, replace(BUDGET, seed=8))
    assert not equal(weights_of(first), weights_of(second))


def test_bright_voxels_are_learnt() -> None:
    taught = tiny_lesson()
    taught = replace(taught, recipe=replace(taught.recipe, epochs=60, hard_cases=None))
    taught = replace(
        taught,
        recipe=replace(
            taught.recipe, optimiser=replace(taught.recipe.optimiser, learning_rate=0.02)
        ),
    )
    trainee = tiny_trainee(tiny_net(dropout=0.0), taught)
    kept = run(trainee, Budget(seed=7, validate_every=30))
    dices = [found.mean_dice for found in kept.found if found is not None]
    assert len(dices) == 2
    assert dices[-1] > 0.95


def test_an_epoch_ends_where_its_plan_does_and_validation_follows() -> None:
    kept = run(tiny_trainee(), Budget(seed=7, validate_every=2))
    # Four epochs of two batches: validated after the second and the fourth.
    assert [(course.epoch, course.step) for course in kept.courses] == [(2, 4), (4, 8)]
    assert kept.courses[-1].is_over


def test_early_stopping_ends_when_the_loss_no_longer_falls() -> None:
    taught = tiny_lesson()
    still = replace(
        taught.recipe,
        optimiser=Sgd(learning_rate=0.0, momentum=0.0, weight_decay=0.0),
        schedule=OnPlateau(factor=0.1, patience_epochs=1),
        patience_epochs=2,
        epochs=50,
        hard_cases=None,
    )
    kept = run(tiny_trainee(tiny_net(normalised=False), replace(taught, recipe=still)), Budget())
    assert [course.epoch for course in kept.courses] == [1, 2, 3]
    assert kept.courses[-1].watch.cuts == 2


def test_a_loss_that_is_no_number_names_the_cases_and_keeps_the_weights() -> None:
    trainee = tiny_trainee()
    with torch.no_grad():
        next(trainee.net.parameters())[0] = torch.nan
    before, kept = weights_of(trainee), Kept()
    with pytest.raises(KitsError, match=r"step 1 of tiny on [abc].*a loss of nan") as caught:
        train_net(trainee, BUDGET, Course(net="tiny"), around(trainee, kept))
    assert caught.value.exit_code == 1
    assert kept.courses == []
    after = weights_of(trainee)
    kernels = [name for name in before if "running" not in name and "num" not in name]
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in kernels)


def test_torch_without_memory_gives_advice() -> None:
    with pytest.raises(OutOfMemoryError, match="smaller --batch-size") as caught, memory_told("x"):
        torch.empty(1 << 60)
    assert caught.value.exit_code == 7


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


def test_too_little_memory_in_a_step_names_its_cases() -> None:
    trainee = tiny_trainee()
    trainee.net.logits = out_of_memory  # type: ignore[method-assign, assignment]
    with pytest.raises(OutOfMemoryError, match=r"^step 1 of tiny on [abc](, [abc])*: found"):
        train_net(trainee, BUDGET, Course(net="tiny"), around(trainee, Kept()))


def test_too_little_memory_for_samples_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trainee = tiny_trainee()
    monkeypatch.setattr("kits_trt.train.loop.draw_sample", out_of_memory)
    with pytest.raises(OutOfMemoryError, match=r"^drawing samples of tiny: found"):
        train_net(trainee, BUDGET, Course(net="tiny"), around(trainee, Kept()))


def test_cases_without_what_is_drawn_are_bad_data() -> None:
    taught = tiny_lesson()
    nowhere = replace(taught, cases=tuple(replace(case, pieces=()) for case in taught.cases))
    trainee = tiny_trainee(taught=nowhere)
    with pytest.raises(ScanError, match="tiny: found no place to look at in 3 cases") as caught:
        train_net(trainee, BUDGET, Course(net="tiny"), around(trainee, Kept()))
    assert caught.value.exit_code == 3


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="must match"), memory_told("x"):
        torch.ones(2) + torch.ones(3)


def test_what_is_left_of_an_epoch_is_dropped_unless_it_is_all() -> None:
    keys = plan_epoch(tiny_lesson(), seed=0, epoch=0)
    assert [len(batch) for batch in batches_of(keys, 4)] == [4]
    assert [len(batch) for batch in batches_of(keys[:2], 4)] == [2]
    assert [key for batch in batches_of(keys, 3) for key in batch] == list(keys)


def test_bfloat16_steps_leave_weights_and_sums_in_float32() -> None:
    plain, mixed = tiny_trainee(tiny_net(dropout=0.0)), tiny_trainee(tiny_net(dropout=0.0))
    mixed.compute = Compute(amp=True)
    batch = batches_of(plan_epoch(plain.lesson, seed=7, epoch=0), 3)[0]
    samples = [draw_sample(plain.lesson, key) for key in batch]
    losses = [
        trainee.step(Course(net="tiny"), batch, samples, progress=0.0, is_stopped=False).loss
        for trainee in (plain, mixed)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)
    assert {weights.dtype for weights in mixed.net.parameters()} == {torch.float32}


def test_bfloat16_gradients_of_a_tiny_grid_repeat_whatever_memory_held_before() -> None:
    class Bottom(SegmentationNet):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv3d(256, 256, 3, padding=1)

        def final_logits(self, patches: torch.Tensor) -> torch.Tensor:
            return self.conv(patches)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    compute = Compute(amp=True)
    net, values = compute.placed(Bottom()), torch.randn(4, 256, 2, 4, 4)
    found = []
    for _ in range(4):
        dirt = [torch.full((1 << power,), torch.nan) for power in (22, 20, 18, 16, 14, 12)]
        del dirt
        net.zero_grad()
        with compute.autocast():
            logits = net.final_logits(values)
        logits.float().square().mean().backward()
        found.append(torch.cat([w.grad.flatten() for w in net.parameters() if w.grad is not None]))
    assert torch.isfinite(found[0]).all()
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_settled_norms_are_the_mean_over_the_settling_batches() -> None:
    trainee = tiny_trainee(tiny_net(dropout=0.0))
    trainee.settle()
    norm = trainee.net.layers[1]
    keys = plan_epoch(trainee.lesson, seed=7, epoch=2**30)
    means = []
    for batch in batches_of(keys, 3):
        values = np.stack([draw_sample(trainee.lesson, key).values for key in batch])
        with torch.no_grad():
            seen = trainee.net.layers[0](torch.from_numpy(values))
        means.append(seen.mean(dim=(0, 2, 3, 4)))
    expected = torch.stack(means).mean(dim=0)
    assert torch.allclose(norm.running_mean, expected, atol=1e-5)
    assert norm.momentum == 0.1


def test_a_course_survives_its_file() -> None:
    kept = Kept()
    course = stopped_after(tiny_trainee(), 3, kept)
    assert course_from_plain(course.to_plain()) == course
    assert course_from_plain(Course(net="tiny").to_plain()) == Course(net="tiny")


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "other"])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, tiny_trainee(), Course(net="tiny"), {})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "text":
        path.write_text("no tensors at all")
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"kits-training", b"kits-trainink"))
    with pytest.raises(BundleError, match="expected the state of a training in format 1"):
        read_state(path)


def test_a_state_of_another_net_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, tiny_trainee(tiny_net(normalised=False)), Course(net="tiny"), {})
    with pytest.raises(BundleError, match="found tensors that do not fit"):
        restore(tiny_trainee(), read_state(path), where="state")


def test_a_training_goes_on_only_as_it_was_begun() -> None:
    require_same_settings({"seed": 1}, {"seed": 1}, where="x")
    with pytest.raises(UsageError, match=r"x: found a training with seed 1, expected 2"):
        require_same_settings({"seed": 1}, {"seed": 2}, where="x")
