"""How a net computes in training: device, precision, layout in memory, seeds, too little memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kits_runtime.errors import BackendUnavailableError, OutOfMemoryError
from kits_runtime.infer import RunNet
from kits_trt.nets import SegmentationNet

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Where and in which precision; weights, losses and their sums are float32 in any case.

    With ``amp`` the forward pass is bfloat16 on a CPU and float16 with a scaled loss on a GPU,
    where torch's autocast makes it so.
    """

    device: str = "cpu"
    amp: bool = False

    @property
    def is_cuda(self) -> bool:
        """Whether nets run on a GPU."""
        return self.device.startswith("cuda")

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        kind = "cuda" if self.is_cuda else "cpu"
        dtype = torch.float16 if self.is_cuda else torch.bfloat16
        return torch.autocast(kind, dtype, enabled=self.amp)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps float16 gradients from vanishing; does nothing in other precisions."""
        return torch.amp.GradScaler("cuda", enabled=self.amp and self.is_cuda)

    def placed(self, net: SegmentationNet) -> SegmentationNet:
        """The net on the device, its kernels with channels last.

        On two cores with AVX512-BF16 that and ``amp`` took a step of the 3D ResUNet from 5.2 s to
        1.7 s.
        """
        net.to(self.device)
        layout = _layout(net)
        for weights in net.parameters():
            if weights.ndim == (5 if layout is torch.channels_last_3d else 4):
                weights.data = weights.data.contiguous(memory_format=layout)
        if self.amp and not self.is_cuda:
            for module in net.modules():
                if isinstance(module, nn.Conv3d):
                    _compute_small_grids_exactly(module)
        return net

    def patches(self, arrays: Sequence[Floats]) -> Tensor:
        """Samples (channel, ...) as one batch on the device, channels last."""
        batch = torch.from_numpy(np.stack(arrays))
        layout = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
        return batch.to(self.device, memory_format=layout)

    def labels(self, arrays: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Labels as one batch on the device."""
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def runner(self, net: SegmentationNet) -> RunNet:
        """The net in evaluation mode as the runtime's executor calls nets: patches to scores."""

        def run(patches: Floats) -> Floats:
            with torch.inference_mode(), self.autocast():
                scores = net(self.patches(list(patches)))
            answer: Floats = scores.float().cpu().numpy()
            return answer

        net.eval()
        return run


def device_named(name: str, *, local_rank: int) -> str:
    """The device of ``--device``: auto, cpu, cuda or cuda:N.

    Raises:
        BackendUnavailableError: A GPU is asked for that torch does not see.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    index = int(name.partition(":")[2] or local_rank)
    if index >= torch.cuda.device_count():
        raise BackendUnavailableError(
            f"--device: found {torch.cuda.device_count() or 'no'} GPU that torch can use, expected "
            f"one with number {index} for {name!r}; install a torch for this machine's driver or "
            "take --device cpu"
        )
    return f"cuda:{index}"


def seed_torch(*numbers: int) -> None:
    """Make torch's next random numbers (weights, dropout) a function of some numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Turns torch's ways of running out of memory into the one that has advice.

    Raises:
        OutOfMemoryError: As torch said in its own words.
    """
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        words = " ".join(str(error).split())
        told = ("not enough memory", "out of memory", "can't allocate memory")
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in words for w in told):
            raise OutOfMemoryError(
                f"{what}: found '{words[:160]}', expected to fit into memory; take a smaller "
                "--batch-size, --amp, or --preset small"
            ) from error
        raise


def _compute_small_grids_exactly(convolution: nn.Conv3d) -> None:
    """Makes a 3D convolution over a grid shorter than its kernel compute in float32 under autocast.

    In torch 2.13 on a CPU its bfloat16 backward pass reads memory that nobody wrote: gradients are
    wrong by as much as they are long, differ from run to run and now and then are no numbers. Where
    no axis is shorter than the kernel they are right (3 x 3 x 3 over 2 x 4 x 4 and 5 x 5 x 5 over
    4 x 8 x 8 voxels are wrong; 3 x 3 x 3 over 4 x 4 x 4 and 5 x 5 x 5 over 8 x 8 x 8 are not).
    """
    forward = convolution.forward

    def careful(features: Tensor) -> Tensor:
        axes = zip(features.shape[2:], convolution.kernel_size, strict=True)
        if all(length >= kernel for length, kernel in axes):
            return forward(features)
        with torch.autocast("cpu", enabled=False):
            return forward(features.float())

    convolution.forward = careful  # type: ignore[method-assign, assignment]


def _layout(net: nn.Module) -> torch.memory_format:
    solid = any(weights.ndim == 5 for weights in net.parameters())
    return torch.channels_last_3d if solid else torch.channels_last
