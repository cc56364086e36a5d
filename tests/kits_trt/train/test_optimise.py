"""Optimisers against torch's own arithmetic by hand, schedules against numbers worked out."""

import math

import pytest
import torch
from torch import nn

from kits_trt.systems.recipe import (
    Adam,
    Constant,
    Crops,
    Dice,
    OnPlateau,
    Optimiser,
    RandomSplit,
    Recipe,
    Schedule,
    Sgd,
    WarmCosine,
)
from kits_trt.train.optimise import (
    Watch,
    is_patience_over,
    learning_rate,
    load_optimiser,
    make_optimiser,
    optimiser_tensors,
    set_rate,
    watched,
)


def recipe(
    optimiser: Optimiser | None = None,
    schedule: Schedule | None = None,
    patience: int | None = None,
) -> Recipe:
    return Recipe(
        stage="kidney",
        target={1: 1},
        draw=Crops(per_case=1, foreground_share=None),
        augment=(),
        loss=Dice(),
        optimiser=optimiser or Adam(learning_rate=0.1),
        schedule=schedule or Constant(),
        batch_size=1,
        epochs=10,
        split=RandomSplit(train_share=0.8),
        patience_epochs=patience,
    )


class Tiny(nn.Module):
    """A kernel, a bias and a slope, all 2."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.full((1, 1), 2.0))
        self.bias = nn.Parameter(torch.full((1,), 2.0))


def stepped(words: Optimiser, gradients: list[float]) -> tuple[float, float]:
    net = Tiny()
    optimiser = make_optimiser(net, words)
    for gradient in gradients:
        net.kernel.grad = torch.full((1, 1), gradient)
        net.bias.grad = torch.full((1,), gradient)
        optimiser.step()
    return net.kernel.item(), net.bias.item()


def test_sgd_adds_decay_to_the_gradient_and_keeps_momentum() -> None:
    words = Sgd(learning_rate=0.1, momentum=0.5, weight_decay=0.25)
    # Gradient 1 + 0.25 * 2 = 1.5: 2 - 0.15 = 1.85. Then 0.5 * 1.5 + 1 + 0.25 * 1.85 = 2.2125.
    assert stepped(words, [1.0, 1.0]) == pytest.approx((1.62875, 1.62875), abs=1e-6)


def test_adam_adds_decay_to_the_gradient_of_kernels_alone() -> None:
    # The first step of Adam is the sign of the gradient: with it 0 only decay can move a weight.
    kernel, bias = stepped(Adam(learning_rate=0.1, weight_decay=0.5), [0.0])
    assert (kernel, bias) == pytest.approx((1.9, 2.0), abs=1e-6)


def test_decoupled_adam_shrinks_kernels_by_rate_times_decay() -> None:
    words = Adam(learning_rate=0.1, weight_decay=0.5, decoupled=True)
    kernel, bias = stepped(words, [0.0])
    assert (kernel, bias) == pytest.approx((2.0 * (1 - 0.05), 2.0), abs=1e-6)


@pytest.mark.parametrize(
    "words",
    [
        Sgd(learning_rate=0.1, momentum=0.9, weight_decay=0.01),
        Adam(learning_rate=0.1, weight_decay=0.1),
        Adam(learning_rate=0.1, weight_decay=0.1, decoupled=True),
    ],
    ids=["sgd", "adam", "decoupled"],
)
def test_an_optimiser_goes_on_from_its_tensors_as_if_it_had_never_stopped(words: Optimiser) -> None:
    straight, broken = Tiny(), Tiny()
    first, second = make_optimiser(straight, words), make_optimiser(broken, words)
    for step in range(4):
        if step == 2:
            kept = {name: tensor.clone() for name, tensor in optimiser_tensors(second).items()}
            second = make_optimiser(broken, words)
            load_optimiser(second, kept)
        for net, optimiser in ((straight, first), (broken, second)):
            for weights in net.parameters():
                weights.grad = torch.full_like(weights, 1.0 + step)
            optimiser.step()
    assert straight.kernel.item() == broken.kernel.item()
    assert straight.bias.item() == broken.bias.item()
    assert straight.kernel.item() != 2.0


def test_state_that_comes_back_lies_in_memory_as_the_weights_do() -> None:
    net = nn.Conv2d(3, 4, 3)
    net.weight.data = net.weight.data.contiguous(memory_format=torch.channels_last)
    optimiser = make_optimiser(net, Adam(learning_rate=0.1))
    torch.manual_seed(0)
    net.weight.grad, net.bias.grad = torch.randn_like(net.weight), torch.zeros(4)
    optimiser.step()
    kept = {name: tensor.contiguous() for name, tensor in optimiser_tensors(optimiser).items()}
    again = make_optimiser(net, Adam(learning_rate=0.1))
    load_optimiser(again, kept)
    state = again.state[net.weight]["exp_avg"]
    assert state.stride() == net.weight.stride()
    assert torch.equal(state, optimiser.state[net.weight]["exp_avg"])


def test_a_rate_is_set_for_every_parameter() -> None:
    optimiser = make_optimiser(Tiny(), Adam(learning_rate=0.1))
    set_rate(optimiser, 0.025)
    assert [group["lr"] for group in optimiser.param_groups] == [0.025, 0.025]


def test_a_warm_cosine_rises_in_a_line_and_ends_at_nothing() -> None:
    words = recipe(schedule=WarmCosine(rise_steps=4))
    found = [
        learning_rate(words, step=step, progress=progress, watch=Watch())
        for step, progress in ((0, 0.0), (1, 0.0), (3, 0.0), (50, 0.5), (99, 1.0))
    ]
    assert found == pytest.approx([0.025, 0.05, 0.1, 0.05, 0.0], abs=1e-12)


def test_a_constant_rate_stays() -> None:
    found = learning_rate(recipe(), step=10**6, progress=0.99, watch=Watch(cuts=3))
    assert found == 0.1


def test_a_plateau_cuts_the_rate_and_waits_again() -> None:
    schedule = OnPlateau(factor=0.5, patience_epochs=2)
    watch, rates = Watch(), []
    for epochs, loss in enumerate([1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.5, 0.6], start=1):
        watch = watched(watch, loss, epochs=epochs, schedule=schedule)
        words = recipe(schedule=schedule)
        rates.append(learning_rate(words, step=0, progress=0.0, watch=watch))
    # Lowest after epoch 2; an equal loss is no fall: cut after 4, again after 6; then it falls.
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025])
    assert (watch.lowest, watch.lowest_epoch) == (0.5, 7)


def test_other_schedules_only_remember_the_lowest_loss() -> None:
    watch = watched(Watch(), 0.4, epochs=1, schedule=Constant())
    assert watched(watch, 0.5, epochs=90, schedule=Constant()) == watch
    assert watch == Watch(lowest=0.4, lowest_epoch=1)


def test_patience_ends_after_as_many_epochs_without_a_fall() -> None:
    watch = Watch(lowest=0.4, lowest_epoch=3)
    found = [is_patience_over(watch, recipe(patience=2), epochs=epochs) for epochs in (3, 4, 5)]
    assert found == [False, False, True]
    assert not is_patience_over(watch, recipe(), epochs=10**6)
    assert not math.isfinite(Watch().lowest)
