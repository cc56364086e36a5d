"""Data-parallel training: several processes, each with its share of every batch.

Gradients are averaged after the backward pass, each rank weighted by its samples, so that a step is
that of one process which accumulates the gradients of the same shares. Batch normalisation sees a
share: in training it normalises by the statistics of the rank's own samples, as in that one
process. Its running statistics differ between ranks until they are settled, on rank 0, and
broadcast before validation and saving.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn

from kits_runtime.errors import UsageError

# The first process prepares cases and validates while the others wait for it, for hours perhaps.
_PATIENCE = timedelta(days=7)

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def share(self, batch: Sequence[Item]) -> Sequence[Item]:
        """The part of a batch that this process draws: every ``world``-th, from its rank on.

        Raises:
            UsageError: There are fewer samples than processes.
        """
        if len(batch) < self.world:
            raise UsageError(
                f"--batch-size: found {len(batch)} samples in a batch for {self.world} processes, "
                "expected at least one each; raise it or start fewer processes"
            )
        return batch[self.rank :: self.world]

    def average(self, net: nn.Module, numbers: Sequence[float], *, weight: float) -> list[float]:
        """Replace gradients by their weighted sum over all processes; the same for some numbers.

        Args:
            net: Whose gradients; a parameter without one counts as zero.
            numbers: Of this process; their weighted sums are returned.
            weight: This process's share of the batch's samples; those of all add up to 1.
        """
        if self.world == 1:
            return list(numbers)
        parameters = [weights for weights in net.parameters() if weights.requires_grad]
        for weights in parameters:
            if weights.grad is None:
                weights.grad = torch.zeros_like(weights)
        grads = [weights.grad for weights in parameters if weights.grad is not None]
        told = torch.tensor(numbers, dtype=torch.float32, device=grads[0].device)
        flat = torch.cat([told, *(grad.reshape(-1) for grad in grads)]) * weight
        distributed.all_reduce(flat)
        start = len(numbers)
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()
        return [float(number) for number in flat[: len(numbers)]]

    def spread_state(self, net: nn.Module) -> None:
        """Give every process the weights and running statistics of rank 0."""
        if self.world == 1:
            return
        for tensor in net.state_dict().values():
            distributed.broadcast(tensor, src=0)

    def told_by_first(self, make: Callable[[], Value]) -> Value:
        """What ``make`` returns on rank 0, in every process; an error there is one everywhere."""
        if self.world == 1:
            return make()
        box: list[Value | BaseException | None] = [None]
        if self.is_first:
            try:
                box[0] = make()
            except BaseException as error:  # the others wait: they must hear of an interrupt, too
                box[0] = error
        distributed.broadcast_object_list(box, src=0)
        if isinstance(box[0], BaseException):
            raise box[0]
        return box[0]  # type: ignore[return-value]


@contextmanager
def joined_ranks(environment: Mapping[str, str], *, cuda: bool) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, told by RANK and WORLD_SIZE; else this one alone."""
    world = int(environment.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks()
        return
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank=distributed.get_rank(), world=world)
        distributed.barrier()  # whoever leaves while others work may take them down
    finally:
        distributed.destroy_process_group()


def local_rank(environment: Mapping[str, str]) -> int:
    """The number of this process on its machine, by which it takes a GPU."""
    return int(environment.get("LOCAL_RANK", "0"))
