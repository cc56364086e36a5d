"""Parameters and floating-point operations of a network, counted without computing anything."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True, kw_only=True)
class NetCost:
    """What a network weighs: ``flop`` is 2 x the multiply-adds of its convolutions."""

    parameters: int
    flop: int

    @property
    def gflop(self) -> float:
        """Floating-point operations in units of 10^9."""
        return self.flop / 1e9


def net_cost(net: nn.Module, patch_shape: tuple[int, ...]) -> NetCost:
    """Return the cost of scoring one patch, as exported (training-only heads not computed).

    Parameters include those of training-only heads. The count runs on shapes alone (torch's
    meta device), so that large networks are counted in a moment.
    """
    shadow = copy.deepcopy(net).to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        shadow(torch.empty((1, *patch_shape), device="meta"))
    return NetCost(
        parameters=sum(weights.numel() for weights in net.parameters()),
        flop=int(counter.get_total_flops()),
    )
