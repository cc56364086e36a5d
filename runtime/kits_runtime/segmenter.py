"""The Python API: a bundle opened once, scans segmented one after another."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from kits_runtime.boxes import Means
from kits_runtime.bundle import Bundle, Precision, open_bundle
from kits_runtime.cascade import CascadeResult, run_cascade
from kits_runtime.clock import Clock
from kits_runtime.dealing import dealt_out
from kits_runtime.device.plan import DEFAULT_LIMIT
from kits_runtime.device.run import NO_CUPY, run_where, where_for
from kits_runtime.device.upload import Upload
from kits_runtime.engines import (
    Choice,
    Device,
    Engine,
    EngineOptions,
    choose_backend,
    open_engine,
)
from kits_runtime.engines.batches import gpu_windows_a_call
from kits_runtime.engines.calibration import calibrate
from kits_runtime.engines.cuda_driver import gpu_name
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.grid import Box
from kits_runtime.infer import RunNet
from kits_runtime.manifest.schema import Net
from kits_runtime.memory import Memory
from kits_runtime.qc import NOTHING_FOUND
from kits_runtime.record import (
    BackendFacts,
    BundleFacts,
    RunRecord,
    peak_rss_mb,
    versions,
    volumes_ml,
)
from kits_runtime.volume import Volume, labels_in_source_order

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """Whether a GPU is to be used, and at most how many bytes of its memory by a run's arrays."""

    device: Device = "auto"
    max_bytes: int = DEFAULT_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmentation:
    """Labels arranged exactly as the scan was given, on (z, y, x) as well, and the run's record.

    ``reach`` is a box on (z, y, x) outside which every voxel is background.
    """

    labels: NDArray[np.uint8]
    model_labels: NDArray[np.uint8]
    reach: Box
    record: RunRecord


class Segmenter:
    """Holds a bundle's engines for as long as it is open.

    Open it with ``with`` or call ``close``. ``segment`` may be called from several threads. Their
    nets take turns, because they already use all processors they were given; what lies around the
    nets of one scan is done beside those of another. On a GPU whole scans take turns: its memory
    is planned for one.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str = "auto",
        options: EngineOptions | None = None,
        gpu: GpuUse | None = None,
    ) -> None:
        gpu = gpu or GpuUse()
        self._bundle = bundle
        self._choice = choose_backend(backend, device=gpu.device)
        options = options or EngineOptions()
        self._gpu_turn = threading.Lock()
        with ExitStack() as stack:
            self._engines: dict[str, Engine] = {
                name: stack.enter_context(_opened(bundle, name, net, self._choice, options))
                for name, net in bundle.manifest.nets.items()
            }
            self._where = where_for(self._engines, options.device, gpu.max_bytes)
            self._uploads = self._where.uploads()
            if self._uploads is not None:
                stack.callback(self._uploads.close)
            self._life = stack.pop_all()
        self._means = Means(
            memory=Memory(),
            threads=options.threads,
            turn=threading.RLock(),
            at_once={name: engine.spec.at_once for name, engine in self._engines.items()},
        )

    @classmethod
    def from_bundle(
        cls,
        path: Path | str | None = None,
        *,
        backend: str = "auto",
        options: EngineOptions | None = None,
        gpu: GpuUse | None = None,
    ) -> "Segmenter":
        """A segmenter for the bundle at a path, or for the one in this package.

        Args:
            path: A bundle's folder or ``.kits`` file.
            backend: 'auto' or the name of one; a named one that cannot run is an error.
            options: Threads, precision and caches of the engines, and which GPU.
            gpu: Whether to use one, and how much of its memory.

        Raises:
            BundleError: the bundle is damaged, unsafe or of a newer schema.
            BackendUnavailableError: the backend cannot run here.
        """
        bundle = open_bundle(default_bundle_path() if path is None else Path(path))
        return cls(bundle, backend=backend, options=options, gpu=gpu)

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the engines; the segmenter is of no use afterwards."""
        self._life.close()

    @property
    def bundle(self) -> Bundle:
        """The bundle that is open."""
        return self._bundle

    @property
    def backend(self) -> BackendFacts:
        """The backend that was chosen and why."""
        spec = next(iter(self._engines.values())).spec
        return BackendFacts(
            name=self._choice.backend,
            reason=self._choice.reason,
            precision=spec.precision,
            threads=spec.threads,
            rejected=self._choice.rejected,
        )

    def begin_upload(self) -> Upload | None:
        """What a reader may tell of a scan while it is decoded; None where nets run on the host."""
        return None if self._uploads is None else self._uploads.begin()

    def segment(
        self, volume: Volume, *, progress: Progress | None = None, upload: Upload | None = None
    ) -> Segmentation:
        """The labels of a scan: 0 background, then the manifest's classes.

        Args:
            volume: A scan, by ``read_scan`` or ``volume_from_array``. It is not changed.
            progress: Called with a stage's name and how much of it is done, 0 to 1.
            upload: One of ``begin_upload`` that followed while this scan was read.

        Raises:
            EngineError: a net failed.
        """
        clock = Clock()
        asked = dict.fromkeys(self._engines, 0)

        def run(nets: Mapping[str, RunNet], means: Means) -> CascadeResult:
            asked.update(dict.fromkeys(asked, 0))
            return run_cascade(
                volume,
                self._bundle.manifest,
                nets={name: _counted(net, name, asked) for name, net in nets.items()},
                clock=clock,
                progress=progress or _no_progress,
                means=means,
            )

        with nullcontext() if self._where.gpu is None else self._gpu_turn:
            start = time.perf_counter()
            result = run_where(
                self._where,
                run,
                engines=self._engines,
                stages=self._bundle.manifest.stages,
                volume=volume,
                means=self._means,
                upload=upload,
            )
            total_ms = (time.perf_counter() - start) * 1e3
        record = self._record(volume, result, clock=clock, asked=asked, total_ms=total_ms)
        return Segmentation(
            labels=labels_in_source_order(volume, result.labels),
            model_labels=result.labels,
            reach=self._reach(result),
            record=record,
        )

    def _notes(self) -> tuple[str, ...]:
        """What a reader of the record should know of how it ran."""
        notes = [note for engine in self._engines.values() for note in engine.spec.notes]
        if self._choice.on_gpu and self._where.gpu is None:
            notes.append(NO_CUPY)
        return tuple(notes)

    def _reach(self, result: CascadeResult) -> Box:
        reaches = (result.outcomes[name].reach for name in self._bundle.manifest.overlay)
        boxes = [reach for reach in reaches if not reach.empty]
        return reduce(Box.around, boxes) if boxes else Box((0, 0, 0), (0, 0, 0))

    def _record(
        self,
        volume: Volume,
        result: CascadeResult,
        *,
        clock: Clock,
        asked: dict[str, int],
        total_ms: float,
    ) -> RunRecord:
        manifest = self._bundle.manifest
        backend = self.backend
        spec = next(iter(self._engines.values())).spec
        seen = result.labels[self._reach(result).slices]
        sizes_ml = volumes_ml(seen, volume, manifest.labels)
        return RunRecord(
            bundle=BundleFacts(
                path=str(self._bundle.path),
                sha256=self._bundle.sha256,
                system=manifest.system,
                preset=manifest.preset,
            ),
            backend=backend,
            scan_shape=volume.shape,
            spacing_mm=volume.spacing_mm,
            volumes_ml=sizes_ml,
            windows=asked,
            stage_ms=clock.spent_ms(),
            total_ms=total_ms,
            peak_rss_mb=peak_rss_mb(),
            versions={**versions(), **dict(spec.versions)},
            warnings=(*_remarks(result, sizes_ml), *self._notes()),
        )


def default_bundle_path() -> Path:
    """The bundle that comes with this package."""
    return cast(Path, resources.files("kits_runtime") / "bundles" / "default.kits")


def _opened(bundle: Bundle, name: str, net: Net, choice: Choice, options: EngineOptions) -> Engine:
    spec = net_spec_from_manifest(name, net)
    if choice.on_gpu:
        options = replace(options, batch=gpu_windows_a_call(net.size_vox))
    else:
        options = dealt_out(options, name, net, bundle.manifest.stages)
    precision = _file_precision(net, choice, options)
    if precision == "fp16" and choice.on_gpu:
        options = replace(options, precision="fp16")
    model = bundle.net_bytes(name, precision)
    engine = open_engine(model, spec, backend=choice, options=options)
    if isinstance(engine, GpuEngine) and options.engine_cache is not None:
        machine = gpu_name(options.device)
        clock = time.perf_counter
        calibrate(engine, options.engine_cache, model=model, machine=machine, clock=clock)
    return engine


def _file_precision(net: Net, choice: Choice, options: EngineOptions) -> Precision:
    """GPUs take the half-precision file where there is one, unless fp32 is asked for."""
    if choice.on_gpu and "fp16" in net.files and options.precision != "fp32":
        return "fp16"
    return "fp32" if "fp32" in net.files else "fp16"


def _counted(net: RunNet, name: str, asked: dict[str, int]) -> RunNet:
    turn = threading.Lock()

    def run(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        with turn:
            asked[name] += len(patches)
        return net(patches)

    return run


def _remarks(result: CascadeResult, sizes_ml: dict[str, float]) -> tuple[str, ...]:
    empty = () if any(sizes_ml.values()) else (NOTHING_FOUND,)
    return (*result.remarks, *empty)


def _no_progress(_stage: str, _share: float) -> None:
    pass
