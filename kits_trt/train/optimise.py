"""Optimisers and learning rates of the recipes, and their state as plain numbers and tensors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kits_trt.systems.recipe import (
    Adam,
    Constant,
    OnPlateau,
    Optimiser,
    Recipe,
    Schedule,
    Sgd,
    WarmCosine,
)


def make_optimiser(net: nn.Module, optimiser: Optimiser) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over all parameters of a net."""
    return _OPTIMISERS[type(optimiser)](net, optimiser)


def _sgd(net: nn.Module, words: Sgd) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        net.parameters(),
        lr=words.learning_rate,
        momentum=words.momentum,
        weight_decay=words.weight_decay,
    )


def _adam(net: nn.Module, words: Adam) -> torch.optim.Optimizer:
    kernels = [weights for weights in net.parameters() if weights.ndim > 1]
    others = [weights for weights in net.parameters() if weights.ndim <= 1]
    groups = [
        {"params": kernels, "weight_decay": words.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    make = torch.optim.AdamW if words.decoupled else torch.optim.Adam
    return make([group for group in groups if group["params"]], lr=words.learning_rate, fused=True)


_OPTIMISERS: Mapping[type[Optimiser], Callable[..., torch.optim.Optimizer]] = {
    Sgd: _sgd,
    Adam: _adam,
}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state, each tensor as ``<number of the parameter>.<name>``."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}.{name}": value.detach()
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that :func:`optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for weights, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weights.shape:
                # Fused steps walk through memory: state must lie in it as the weights do.
                values[name] = torch.empty_like(weights).copy_(value)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimiser.param_groups:
        group["lr"] = rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What the validation losses so far mean for the learning rate and the end.

    Attributes:
        lowest: The lowest loss; infinite before the first.
        lowest_epoch: After how many epochs it was found.
        cuts: How often the learning rate has been cut.
        cut_epoch: After how many epochs that was last.
    """

    lowest: float = math.inf
    lowest_epoch: int = 0
    cuts: int = 0
    cut_epoch: int = 0


def watched(watch: Watch, loss: float, *, epochs: int, schedule: Schedule) -> Watch:
    """Return what is known after the validation that followed so many epochs."""
    if loss < watch.lowest:
        return replace(watch, lowest=loss, lowest_epoch=epochs)
    if not isinstance(schedule, OnPlateau):
        return watch
    waited = epochs - max(watch.lowest_epoch, watch.cut_epoch)
    if waited < schedule.patience_epochs:
        return watch
    return replace(watch, cuts=watch.cuts + 1, cut_epoch=epochs)


def is_patience_over(watch: Watch, recipe: Recipe, *, epochs: int) -> bool:
    """Whether the validation loss has not fallen for as long as the recipe waits."""
    patience = recipe.patience_epochs
    return patience is not None and epochs - watch.lowest_epoch >= patience


def learning_rate(recipe: Recipe, *, step: int, progress: float, watch: Watch) -> float:
    """Return the learning rate of a step, counted from 0.

    Args:
        recipe: Whose optimiser and schedule.
        step: Steps taken before.
        progress: The share of the whole training that they are.
        watch: What validation said so far.
    """
    peak = recipe.optimiser.learning_rate
    match recipe.schedule:
        case Constant():
            return peak
        case OnPlateau(factor=factor):
            return float(peak * factor**watch.cuts)
        case WarmCosine(rise_steps=rise_steps):
            rise = min(1.0, (step + 1) / max(1, rise_steps))
            return peak * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
