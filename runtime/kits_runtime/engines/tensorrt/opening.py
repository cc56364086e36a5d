"""From a net's file to a running engine: found or built, tried once, loaded."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kits_runtime.engines.cuda_driver import Gpu, visible_gpus
from kits_runtime.engines.cuda_memory import CudaDevice, Device
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import Built
from kits_runtime.engines.fit import load_error
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.protocol import EngineOptions, EngineSpec, Model, NetSpec
from kits_runtime.engines.tensorrt.build import build_engine, require_target
from kits_runtime.engines.tensorrt.key import engine_key
from kits_runtime.engines.tensorrt.library import Flavour, Library, open_library
from kits_runtime.engines.tensorrt.options import BuildOptions
from kits_runtime.engines.tensorrt.running import TensorRtCompute
from kits_runtime.engines.tensorrt.trial import check_trial, tried
from kits_runtime.errors import BackendUnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The library and the GPU that an engine is for."""

    library: Library
    gpu: Gpu

    @property
    def machine(self) -> str:
        """What a trial holds for."""
        return self.gpu.shown


def open_tensorrt(
    flavour: Flavour, model: Model, net: NetSpec, options: EngineOptions
) -> GpuEngine:
    """``model`` on a GPU, by an engine from the cache or one that is built now.

    'auto' is fp32; fp16 needs a file that is typed so.

    Raises:
        BackendUnavailableError: no library, no such GPU, or a precision that it lacks.
        EngineIncompatibleError: the file cannot be built, or does not fit ``net``.
        ParityError: the engine computes something else.
        OutOfMemoryError: no plan fits.
    """
    precision = _precision(flavour, options)
    place = Place(library=open_library(flavour), gpu=_gpu(flavour, options.device))
    data = engine_for(_content(model, net), net, options, place=place, precision=precision)
    device = CudaDevice(options.device)
    try:
        return loaded(data, net, place.library, device=device, precision=precision)
    except BaseException:
        device.close()
        raise


def engine_for(
    model: bytes,
    net: NetSpec,
    options: EngineOptions,
    *,
    place: Place,
    precision: Literal["fp32", "fp16"],
) -> bytes:
    """An engine's bytes that have passed their trial on this GPU."""
    library = place.library
    plan = BuildOptions(
        precision=precision,
        batch=options.batch,
        compute_capabilities=(place.gpu.sm,) if library.ahead_of_time else (),
    )

    def build() -> Built:
        built = build_engine(model, net, library=library, options=plan)
        return Built(data=built.data, facts=built.facts())

    def trial(data: bytes) -> None:
        scores = tried(data, net, flavour=library.flavour, device=options.device)
        check_trial(scores, model, net, precision)

    require_target(library, plan)
    if options.engine_cache is None:
        logger.warning("net %s: building an engine, for this run alone", net.name)
        data = build().data
        trial(data)
        return data
    cache = EngineCache(folder=options.engine_cache)
    sha256 = hashlib.sha256(model).hexdigest()
    key = engine_key(net, sha256, library=library, options=plan, gpu=place.gpu)
    data = cache.get_or_build(key, build)
    if not cache.tried_on(key, place.machine):
        trial(data)
        cache.note_trial(key, place.machine)
    return data


def loaded(
    data: bytes, net: NetSpec, library: Library, *, device: Device, precision: str
) -> GpuEngine:
    """An engine's bytes as an engine; it owns the device object from now on.

    Raises:
        EngineIncompatibleError: the bytes cannot be loaded, or do not fit ``net``.
    """
    compute = TensorRtCompute(data, net, library=library, device=device)
    spec = EngineSpec(
        net=net,
        backend=library.flavour,
        precision=precision,
        batch=compute.batches[0],
        threads=1,
        versions=((library.flavour, library.version),),
    )
    return GpuEngine(spec, device, compute)


def _precision(flavour: Flavour, options: EngineOptions) -> Literal["fp32", "fp16"]:
    if options.precision == "bf16":
        raise BackendUnavailableError(
            f"backend {flavour}: precision bf16 was asked for, expected fp32 or fp16; "
            "ask for one of these, or auto"
        )
    return "fp16" if options.precision == "fp16" else "fp32"


def _gpu(flavour: Flavour, index: int) -> Gpu:
    gpus = visible_gpus()
    for gpu in gpus.devices:
        if gpu.index == index:
            return gpu
    raise BackendUnavailableError(
        f"backend {flavour}: found no GPU {index} ({gpus.why_none or f'{len(gpus.devices)} here'}),"
        " expected one; give another --device"
    )


def _content(model: Model, net: NetSpec) -> bytes:
    if isinstance(model, bytes):
        return model
    try:
        return Path(model).read_bytes()
    except OSError as error:
        raise load_error(net, model, "this", error) from error
