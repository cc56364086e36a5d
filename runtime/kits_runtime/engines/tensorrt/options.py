"""What an engine is built for and how much its building may take."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

EnginePrecision = Literal["fp32", "fp16"]

_MIB = 1 << 20
_LEAST_WORKSPACE = 64 * _MIB
# Where a retry begins when nothing was asked: the library's own default is all of the memory.
_ROOMY_WORKSPACE = 4096 * _MIB
_USUAL_LEVEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """One plan of building.

    ``batch`` is that of the main profile; windows that are left over use a second one of 1.
    ``workspace_bytes`` None and ``optimization_level`` None leave the library's own. An empty
    ``compute_capabilities`` means the GPU of this machine; names such as 'SM86' need a library that
    builds ahead of time. ``own_kernels_only`` keeps tensorrt off cuBLAS and cuDNN, for machines
    that lack them. With fp16, at least ``least_half_share`` of the arithmetic must be half.
    """

    precision: EnginePrecision = "fp16"
    batch: int = 1
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    own_kernels_only: bool = False
    timing_cache: Path | None = None
    least_half_share: float = 0.9

    def __post_init__(self) -> None:
        """Check the values where the caller can see them."""
        if self.precision not in ("fp32", "fp16"):
            raise ValueError(f"precision is {self.precision!r}, expected fp32 or fp16")
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}, expected at least 1")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ValueError(f"workspace_bytes is {self.workspace_bytes}, expected at least 1")
        if self.optimization_level not in (None, 0, 1, 2, 3, 4, 5):
            raise ValueError(f"optimization_level is {self.optimization_level}, expected 0 to 5")
        if not 0 < self.least_half_share <= 1:
            raise ValueError(f"least_half_share is {self.least_half_share}, expected in (0, 1]")

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch of each profile, the main one first."""
        return (self.batch,) if self.batch == 1 else (self.batch, 1)

    def shown(self) -> str:
        """The plan as messages name it."""
        workspace = self.workspace_bytes
        room = "free" if workspace is None else f"{workspace // _MIB} MiB"
        level = "usual" if self.optimization_level is None else self.optimization_level
        return f"workspace {room}, batch {self.batch}, optimisation level {level}"


def smaller_plans(options: BuildOptions) -> Iterator[BuildOptions]:
    """The plans to try, the given one first, each smaller than the one before.

    First the workspace shrinks, then the batch, then the effort.
    """
    yield options
    plan = options
    for _ in range(2):
        room = max(_LEAST_WORKSPACE, (plan.workspace_bytes or _ROOMY_WORKSPACE) // 4)
        if plan.workspace_bytes is None or room < plan.workspace_bytes:
            plan = replace(plan, workspace_bytes=room)
            yield plan
    while plan.batch > 1:
        plan = replace(plan, batch=plan.batch // 2)
        yield plan
    level = _USUAL_LEVEL if plan.optimization_level is None else plan.optimization_level
    for lower in (1, 0):
        if lower < level:
            yield replace(plan, optimization_level=lower)
