"""A cascade on whichever device its engines use: where arrays lie, and how much at once."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from kits_runtime.arrays import Arrays, cupy_arrays
from kits_runtime.boxes import Means
from kits_runtime.cascade import CascadeResult
from kits_runtime.device.nets import net_on_device
from kits_runtime.device.place import OnDevice, place_on
from kits_runtime.device.plan import (
    DEFAULT_LIMIT,
    DevicePlan,
    Load,
    StageShape,
    planned,
    within_memory,
)
from kits_runtime.device.upload import Upload, Uploads
from kits_runtime.engines.cuda_memory import CudaDevice, Device
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.protocol import Engine
from kits_runtime.grid import grid_over
from kits_runtime.infer import SLICES_AT_ONCE, RunNet
from kits_runtime.look import largest_box
from kits_runtime.manifest.schema import Boxes, Patches, Resample, Stage
from kits_runtime.volume import Volume

NO_CUPY = "cupy is not installed: only the nets run on the GPU, all else on the processor"

# A quarter holds three scans of 340 slices: those that are read, wait and are segmented.
_AHEAD_SHARE = 4

Run = Callable[[Mapping[str, RunNet], Means], CascadeResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which GPU the arrays lie on, None for the host, and how much of its memory may be used."""

    gpu: int | None = None
    limit_bytes: int = DEFAULT_LIMIT
    arrays_on: Callable[[int, int], Arrays] = cupy_arrays
    device_of: Callable[[int], Device] = CudaDevice

    @property
    def ahead_bytes(self) -> int:
        """What scans may take that are uploaded while an earlier one is segmented."""
        return self.limit_bytes // _AHEAD_SHARE

    def uploads(self) -> Uploads | None:
        """What uploads scans while they are decoded; None on the host."""
        if self.gpu is None:
            return None
        return Uploads(self.device_of(self.gpu), room_bytes=self.ahead_bytes)


def where_for(engines: Mapping[str, Engine], gpu: int, limit_bytes: int) -> Where:
    """The GPU, where all nets run there and cupy is installed; else the host."""
    on_gpu = all(isinstance(engine, GpuEngine) for engine in engines.values())
    if on_gpu and has_cupy():
        return Where(gpu=gpu, limit_bytes=limit_bytes)
    return Where(limit_bytes=limit_bytes)


def has_cupy() -> bool:
    """Whether cupy is installed; looks without importing it."""
    return importlib.util.find_spec("cupy") is not None


def run_where(
    where: Where,
    run: Run,
    *,
    engines: Mapping[str, Engine],
    stages: tuple[Stage, ...],
    volume: Volume,
    means: Means,
    upload: Upload | None = None,
) -> CascadeResult:
    """What ``run`` gives with the nets and means that suit the place.

    ``upload`` may have the scan there already; it is closed where memory is short.

    Raises:
        OutOfMemoryError: the GPU's memory does not hold the smallest plan, or is full twice.
    """
    if where.gpu is None:
        return run({name: engine.run for name, engine in engines.items()}, means)
    gpu, load = where.gpu, load_of(stages, volume, engines)
    ready = upload if upload is not None and upload.finish() else None
    load = replace(load, ahead_bytes=where.ahead_bytes, uploaded=ready is not None)
    room = where.limit_bytes - where.ahead_bytes - load.engine_bytes

    def attempt(plan: DevicePlan) -> CascadeResult:
        arrays = where.arrays_on(gpu, room)
        nets = {
            name: net_on_device(engine, arrays)
            for name, engine in engines.items()
            if isinstance(engine, GpuEngine)
        }
        if ready is not None and not plan.whole_scan:
            ready.close()
        place = partial(place_on, OnDevice(arrays=arrays, plan=plan, upload=ready))
        return run(nets, replace(means, place=place))

    batch = max(engine.spec.batch for engine in engines.values())
    return within_memory(load, planned(load, batch=batch, limit_bytes=where.limit_bytes), attempt)


def load_of(stages: tuple[Stage, ...], volume: Volume, engines: Mapping[str, Engine]) -> Load:
    """What a run of these stages takes at the most."""
    return Load(
        scan=volume.shape,
        stages=tuple(stage_shape(stage, volume, engines) for stage in stages),
        voxel_bytes=volume.data.itemsize,
        engine_bytes=sum(e.device_bytes for e in engines.values() if isinstance(e, GpuEngine)),
    )


def stage_shape(stage: Stage, volume: Volume, engines: Mapping[str, Engine]) -> StageShape:
    """What a stage needs at the most, wherever its boxes will lie."""
    step = next((step for step in stage.steps if isinstance(step, Resample)), None)
    grid = grid_over(volume.shape, volume.spacing_mm, step)
    windows = stage.windows
    if isinstance(windows, Patches):
        window, channels, at_once = windows.shape, 1, 0
    else:
        window, channels, at_once = (1, *windows.shape), windows.depth, SLICES_AT_ONCE
    may_overlap = (
        isinstance(stage.look, Boxes) and stage.look.per == "side" and stage.join != "halves"
    )
    return StageShape(
        plane=largest_box(stage.look, grid)[1:],
        window=window,
        in_channels=channels,
        slices_at_once=at_once,
        joined_plane=grid.shape[1:] if may_overlap else None,
        classes=max(engines[name].spec.net.out_channels for name in stage.nets),
        nets=len(stage.nets),
    )
