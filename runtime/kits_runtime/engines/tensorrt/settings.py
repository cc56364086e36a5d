"""A plan as the library's own builder configuration."""

from typing import Any

from kits_runtime.engines.tensorrt.library import Library, layers_of
from kits_runtime.engines.tensorrt.options import BuildOptions
from kits_runtime.errors import BackendUnavailableError

# Kernels that tensorrt brings itself; all others call cuBLAS or cuDNN.
_OWN_KERNELS = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
# Layers that 8.6 may compute in either precision; all others have one type or none.
_ARITHMETIC = (
    "CONVOLUTION",
    "DECONVOLUTION",
    "MATRIX_MULTIPLY",
    "ELEMENTWISE",
    "UNARY",
    "ACTIVATION",
    "PARAMETRIC_RELU",
    "POOLING",
    "REDUCE",
    "SCALE",
    "SOFTMAX",
    "NORMALIZATION",
)


def configured(library: Library, builder: Any, network: Any, plan: BuildOptions) -> Any:  # noqa: ANN401
    """The configuration of one plan for a parsed network."""
    config = builder.create_builder_config()
    _set_precision(library, config, network, plan)
    _set_effort(library, config, plan)
    _set_targets(library, config, plan)
    _add_profiles(builder, config, network, plan)
    return config


def _set_precision(library: Library, config: Any, network: Any, plan: BuildOptions) -> None:  # noqa: ANN401
    flags = library.members("BuilderFlag")
    if plan.precision == "fp32" and "TF32" in flags:
        config.clear_flag(flags["TF32"])  # on by default; it would keep 10 bits of each factor
    if plan.precision == "fp16" and not library.strongly_typed:
        config.set_flag(flags["FP16"])
        config.set_flag(flags["PREFER_PRECISION_CONSTRAINTS"])
        _hold_types(library, network)


def _hold_types(library: Library, network: Any) -> None:  # noqa: ANN401
    """Ask 8.6, which may choose, to compute each layer in the type that the file gives it."""
    kinds = [library.members("LayerType")[name] for name in _ARITHMETIC]
    floats = [library.members("DataType")[name] for name in ("FLOAT", "HALF")]
    for layer in layers_of(network):
        dtype = layer.get_output(0).dtype
        if layer.type in kinds and dtype in floats:
            layer.precision = dtype
            layer.set_output_type(0, dtype)


def _set_effort(library: Library, config: Any, plan: BuildOptions) -> None:  # noqa: ANN401
    if plan.workspace_bytes is not None:
        pool = library.members("MemoryPoolType")["WORKSPACE"]
        config.set_memory_pool_limit(pool, plan.workspace_bytes)
    if plan.optimization_level is not None:
        config.builder_optimization_level = plan.optimization_level
    if plan.version_compatible:
        config.set_flag(library.members("BuilderFlag")["VERSION_COMPATIBLE"])
    if plan.own_kernels_only:
        sources = library.members("TacticSource")
        config.set_tactic_sources(sum(1 << int(sources[name]) for name in _OWN_KERNELS))
    # Without it the engine could not tell later in which precision its layers run.
    config.profiling_verbosity = library.members("ProfilingVerbosity")["DETAILED"]


def _set_targets(library: Library, config: Any, plan: BuildOptions) -> None:  # noqa: ANN401
    if not plan.compute_capabilities:
        return  # each library builds for the GPU at hand unless told otherwise
    config.num_compute_capabilities = len(plan.compute_capabilities)
    for index, name in enumerate(plan.compute_capabilities):
        if not config.set_compute_capability(library.members("ComputeCapability")[name], index):
            raise BackendUnavailableError(
                f"backend {library.flavour}: compute capability {name} was refused, expected one "
                "that the library builds for; choose another"
            )


def _add_profiles(builder: Any, config: Any, network: Any, plan: BuildOptions) -> None:  # noqa: ANN401
    """One profile for each batch, with every length fixed: kernels are chosen for exactly it."""
    patches = network.get_input(0)
    if patches.shape[0] >= 0:
        return
    for batch in plan.batches:
        shape = (batch, *(int(length) for length in tuple(patches.shape)[1:]))
        profile = builder.create_optimization_profile()
        profile.set_shape(patches.name, shape, shape, shape)
        config.add_optimization_profile(profile)
