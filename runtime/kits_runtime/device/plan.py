"""How much of a GPU's memory a run takes, worked out from shapes before anything is asked of it.

At once there lie: the scan, unless its parts are uploaded as they are asked for; the slices of one
layer of windows and what they are prepared from; patches and scores of one call; the sums of the
scores that are open along z; and the labels that leave together. All but the first depend on planes
and windows alone, so that without it any number of slices takes the same memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeVar

from kits_runtime.errors import OutOfMemoryError

DEFAULT_LIMIT = 2 << 30
# Voxels whose float64 sums are asked for together: 16 MiB.
STATISTICS_VOXELS = 1 << 21

_FLOAT, _DOUBLE = 4, 8
_MOST_ROWS, _MOST_SCAN_ROWS, _LEAST_SCAN_ROWS = 64, 64, 4
_MIB = 1 << 20
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShape:
    """What of a stage decides its memory; shapes are (z, y, x), a slice's window has a depth of 1.

    ``plane`` is that of a box. ``slices_at_once`` are asked for together by stages whose windows
    are slices, 0 for others. Stages with two boxes that may overlap have a plane around both, where
    their scores are joined while both are followed.
    """

    plane: tuple[int, int]
    window: tuple[int, int, int]
    in_channels: int
    classes: int
    nets: int = 1
    slices_at_once: int = 0
    joined_plane: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is to be done: a scan's shape, the bytes of a voxel, all stages.

    ``engine_bytes`` is what engines hold themselves as long as they are open, buffers included.
    ``ahead_bytes`` are set apart for scans that are uploaded ahead; one that is ``uploaded`` lies
    there.
    """

    scan: tuple[int, int, int]
    stages: tuple[StageShape, ...]
    voxel_bytes: int = 2
    engine_bytes: int = 0
    ahead_bytes: int = 0
    uploaded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """How much is done at once.

    Attributes:
        rows_at_once: Slices of the scan whose labels leave together.
        batch: 3D windows that go to a net together.
        scan_rows: Slices of the scan that are prepared together.
        whole_scan: Whether the scan stays there; if not, its parts come when they are asked for.
    """

    rows_at_once: int
    batch: int = 1
    scan_rows: int = _MOST_SCAN_ROWS
    whole_scan: bool = True


def planned(load: Load, *, batch: int = 1, limit_bytes: int = DEFAULT_LIMIT) -> DevicePlan:
    """The plan that does most at once within a limit.

    First slices are given up, then windows, and the scan's place last: uploading parts again and
    again costs most.

    Raises:
        OutOfMemoryError: the smallest plan does not fit.
    """
    for whole, windows, scan_rows, rows in product(
        (True, False),
        _halves(batch, 1),
        _halves(_MOST_SCAN_ROWS, _LEAST_SCAN_ROWS),
        _halves(_MOST_ROWS, 1),
    ):
        plan = DevicePlan(rows_at_once=rows, batch=windows, scan_rows=scan_rows, whole_scan=whole)
        needed = expected_bytes(load, plan)
        if needed <= limit_bytes:
            return plan
    raise OutOfMemoryError(
        f"GPU: found a limit of {limit_bytes // _MIB} MiB, expected at least "
        f"{-(-needed // _MIB)} MiB for a scan of {' x '.join(map(str, load.scan))} voxels; "
        "give more with --max-gpu-mem, or run with --device cpu"
    )


def expected_bytes(load: Load, plan: DevicePlan) -> int:
    """The most bytes that any stage needs, with the scan; engines of all stages stay loaded."""
    needs_room = plan.whole_scan and not load.uploaded
    scan = load.voxel_bytes * prod(load.scan) if needs_room else 0
    most = max((_stage_bytes(load, stage, plan) for stage in load.stages), default=0)
    return scan + load.engine_bytes + load.ahead_bytes + most


def smaller(plan: DevicePlan) -> DevicePlan | None:
    """A plan of about half, None where there is nothing left to give up."""
    less = DevicePlan(
        rows_at_once=max(1, plan.rows_at_once // 4),
        batch=max(1, plan.batch // 2),
        scan_rows=max(_LEAST_SCAN_ROWS, plan.scan_rows // 2),
        whole_scan=False,
    )
    return None if less == plan else less


def within_memory(
    load: Load, plan: DevicePlan, attempt: Callable[[DevicePlan], _Result]
) -> _Result:
    """What ``attempt`` gives for the plan or, where the device is full, for a smaller one, once.

    Raises:
        OutOfMemoryError: the smaller one does not fit either, or there is none.
    """
    try:
        return attempt(plan)
    except (MemoryError, OutOfMemoryError) as error:
        second = smaller(plan)
        if second is None:
            raise _full(load, plan) from error
    try:
        return attempt(second)
    except (MemoryError, OutOfMemoryError) as error:
        raise _full(load, second) from error


def _halves(most: int, least: int) -> Sequence[int]:
    found = [most]
    while found[-1] > least:
        found.append(max(least, found[-1] // 2))
    return found


def _stage_bytes(load: Load, stage: StageShape, plan: DevicePlan) -> int:
    depth, *window = stage.window
    height, width = (max(n, m) for n, m in zip(stage.plane, window, strict=True))
    plane = height * width
    scan_plane = load.scan[1] * load.scan[2]
    # A part of the scan, a mask of it, and the part masked.
    source = plan.scan_rows * scan_plane * (2 * load.voxel_bytes + 1)
    streams = 1 if stage.joined_plane is None else 2
    open_slices = stage.slices_at_once or depth
    read = stage.slices_at_once + stage.in_channels if stage.slices_at_once else depth
    # The slices that windows read, and the same before they are put together or padded.
    layer = 2 * read * plane * _FLOAT
    # All classes and two sums of weights, and one of these while it moves on.
    sums = open_slices * plane * (stage.classes + 3) * _FLOAT
    calls = _call_bytes(stage, plan)
    # Scores of both boxes on their common plane, what is added, and which boxes they come from.
    joined = open_slices * prod(stage.joined_plane or (0,)) * (3 * stage.classes + 1) * _FLOAT
    labels = plan.rows_at_once * scan_plane + open_slices * plane
    # The values, the same in float64, their differences and squares.
    statistics = max(STATISTICS_VOXELS, plane, scan_plane) * (2 * _FLOAT + 3 * _DOUBLE)
    return source + max(statistics, streams * (layer + sums + calls) + joined + labels)


def _call_bytes(stage: StageShape, plan: DevicePlan) -> int:
    """Patches as they are cut and as the net takes them; scores of each net, as floats and mean."""
    windows = stage.slices_at_once or plan.batch
    return (
        windows
        * prod(stage.window)
        * (2 * stage.in_channels + (stage.nets + 3) * stage.classes)
        * _FLOAT
    )


def _full(load: Load, plan: DevicePlan) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"GPU: found its memory full at {plan.rows_at_once} slices and {plan.batch} windows at "
        f"once, expected room for about {-(-expected_bytes(load, plan) // _MIB)} MiB; end other "
        "programs on it, give a smaller --max-gpu-mem, or run with --device cpu"
    )
