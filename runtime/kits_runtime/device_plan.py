"""How much of a GPU's memory a run takes, worked out from shapes before anything is asked of it.

Four things lie there at once: the scan, one stage's region, the scores of the windows that are open
along z, and the slices of the scan that become labels together. Only the last grows with what is
chosen here; the scan alone grows with the number of slices, by 2 bytes a voxel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

from kits_runtime.errors import OutOfMemoryError
from kits_runtime.resample import DEVICE_PIECE_VOXELS

DEFAULT_LIMIT = 2 << 30

_FLOAT, _MOST_ROWS = 4, 64
_MIB = 1 << 20
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """What of a stage decides its memory; shapes are (z, y, x), a slice's window has a depth of 1.

    ``windows_at_once`` are asked for together whatever an engine's batch; ``joined`` stages have
    boxes that may overlap, whose scores meet on the whole region. ``engine_bytes`` is what its
    engines hold themselves, buffers included.
    """

    region: tuple[int, int, int]
    window: tuple[int, int, int]
    in_channels: int
    classes: int
    windows_at_once: int = 1
    joined: bool = False
    engine_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """How much is done at once, and the bytes that this takes at the most."""

    rows_at_once: int
    batch: int
    expected_bytes: int


def planned(
    scan: tuple[int, int, int],
    stages: Sequence[StageShape],
    *,
    batch: int = 1,
    limit_bytes: int = DEFAULT_LIMIT,
) -> DevicePlan:
    """The plan that does most at once within a limit: first rows are given up, then windows.

    Raises:
        OutOfMemoryError: the smallest plan does not fit.
    """
    rows = _MOST_ROWS
    while True:
        needed = expected_bytes(scan, stages, rows_at_once=rows, batch=batch)
        if needed <= limit_bytes:
            return DevicePlan(rows_at_once=rows, batch=batch, expected_bytes=needed)
        if rows > 1:
            rows //= 2
        elif batch > 1:
            batch //= 2
        else:
            raise OutOfMemoryError(
                f"GPU: found a limit of {limit_bytes // _MIB} MiB, expected at least "
                f"{-(-needed // _MIB)} MiB for a scan of {' x '.join(map(str, scan))} voxels; "
                "give more with --max-gpu-mem, or run with --device cpu"
            )


def expected_bytes(
    scan: tuple[int, int, int], stages: Sequence[StageShape], *, rows_at_once: int, batch: int
) -> int:
    """The most bytes that any stage needs, with the scan; engines of all stages stay loaded."""
    engines = sum(stage.engine_bytes for stage in stages)
    most = max(
        (_stage_bytes(scan, stage, rows_at_once=rows_at_once, batch=batch) for stage in stages),
        default=0,
    )
    return 2 * prod(scan) + engines + most


def smaller(plan: DevicePlan) -> DevicePlan | None:
    """A plan of about half, None where there is nothing left to give up."""
    if plan.rows_at_once == plan.batch == 1:
        return None
    return replace(plan, rows_at_once=max(1, plan.rows_at_once // 4), batch=max(1, plan.batch // 2))


def within_memory(plan: DevicePlan, attempt: Callable[[DevicePlan], _Result]) -> _Result:
    """What ``attempt`` gives for the plan or, where the device is full, for a smaller one, once.

    Raises:
        OutOfMemoryError: the smaller one does not fit either, or there is none.
    """
    try:
        return attempt(plan)
    except (MemoryError, OutOfMemoryError) as error:
        second = smaller(plan)
        if second is None:
            raise _full(plan) from error
    try:
        return attempt(second)
    except (MemoryError, OutOfMemoryError) as error:
        raise _full(second) from error


def _stage_bytes(
    scan: tuple[int, int, int], stage: StageShape, *, rows_at_once: int, batch: int
) -> int:
    # Read as int16, padded to a window and stored as float32 twice while it is padded.
    padded = [max(n, m) for n, m in zip(stage.region, stage.window, strict=True)]
    region = 2 * prod(padded) * _FLOAT
    resampling = 3 * DEVICE_PIECE_VOXELS * _FLOAT
    # Patches and scores of a call, the weighted scores, and all of it once more as it is copied.
    windows = max(batch, stage.windows_at_once)
    calls = 2 * windows * prod(stage.window) * (stage.in_channels + 2 * stage.classes) * _FLOAT
    sums = stage.window[0] * padded[1] * padded[2] * (stage.classes + 1) * _FLOAT
    # Lower and upper neighbours, the sums of the two, and the best channel: on the scan's plane.
    rows = rows_at_once * scan[1] * scan[2] * (4 * stage.classes + 1) * _FLOAT
    # Float32 sums of each class and a byte that counts boxes.
    joined = prod(stage.region) * (_FLOAT * stage.classes + 1) if stage.joined else 0
    return region + joined + max(resampling, calls + sums + rows)


def _full(plan: DevicePlan) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"GPU: found its memory full at {plan.rows_at_once} slices and {plan.batch} windows at "
        f"once, expected room for about {-(-plan.expected_bytes // _MIB)} MiB; end other programs "
        "on it, give a smaller --max-gpu-mem, or run with --device cpu"
    )
