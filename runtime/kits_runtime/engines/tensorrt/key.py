"""Which engine serves what: the key of one net, on one GPU, by one library, for one plan."""

import json

from kits_runtime.engines.cuda_driver import Gpu
from kits_runtime.engines.engine_record import EngineKey
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.engines.tensorrt.options import BuildOptions

ANY = "any"


def engine_key(
    net: NetSpec, onnx_sha256: str, *, library: Library, options: BuildOptions, gpu: Gpu | None
) -> EngineKey:
    """The key of the engine that these would build; ``gpu`` None is for building ahead of time.

    ``onnx_sha256`` is that of the net's file as the bundle has it. An engine that is built ahead of
    time is compiled on the GPU that loads it, so it fits every GPU of its compute capability under
    every driver; any other was timed on one.

    Raises:
        ValueError: there is no GPU and no compute capability is named.
    """
    targets = options.compute_capabilities or ((gpu.sm,) if gpu else ())
    if not targets:
        raise ValueError("no GPU is given and compute_capabilities is empty, expected one of them")
    timed_here = gpu is not None and not library.ahead_of_time
    shapes = (net.input_shape(batch) for batch in options.batches)
    return EngineKey(
        net=net.name,
        onnx_sha256=onnx_sha256,
        flavour=library.flavour,
        library=library.version,
        gpu=gpu.name if gpu and timed_here else ANY,
        compute_capability="+".join(sorted(targets)),
        driver=gpu.driver if gpu and timed_here else ANY,
        profile=", ".join("x".join(map(str, shape)) for shape in shapes),
        precision=options.precision,
        options=_plan_fields(options),
    )


def _plan_fields(options: BuildOptions) -> str:
    """The rest of what shapes an engine, as JSON with sorted keys."""
    fields = {
        "workspace_bytes": options.workspace_bytes,
        "optimization_level": options.optimization_level,
        "version_compatible": options.version_compatible,
        "own_kernels_only": options.own_kernels_only,
    }
    return json.dumps(fields, sort_keys=True)
