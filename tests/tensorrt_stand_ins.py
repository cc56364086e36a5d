"""Stand-ins for ``tensorrt`` 8.6, 10 and 11: their surface as recorded, their work scripted.

The enumerations have the members of the real modules (8.6.0 read off the module itself, 10 from
its bindings' source, 11 from its reference), and configurations refuse attributes that the version
lacks. What a build does is a script: bytes are an engine, texts are errors.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any

VERSIONS = ("8.6.0", "10.13.0", "11.0.0")

_FLAGS_86 = (
    "FP16 INT8 DEBUG GPU_FALLBACK STRICT_TYPES REFIT DISABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
    "SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO "
    "REJECT_EMPTY_ALGORITHMS ENABLE_TACTIC_HEURISTIC VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME FP8"
)
_FLAGS_10 = (
    "FP16 BF16 INT8 DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE EDITABLE_TIMING_CACHE TF32 "
    "SPARSE_WEIGHTS SAFETY_SCOPE OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS DIRECT_IO "
    "REJECT_EMPTY_ALGORITHMS VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME FP8 "
    "ERROR_ON_TIMING_CACHE_MISS DISABLE_COMPILATION_CACHE WEIGHTLESS STRIP_PLAN REFIT_IDENTICAL "
    "WEIGHT_STREAMING INT4 REFIT_INDIVIDUAL STRICT_NANS MONITOR_MEMORY FP4 "
    "DISTRIBUTIVE_INDEPENDENCE"
)
_FLAGS_11 = (
    "DEBUG GPU_FALLBACK REFIT DISABLE_TIMING_CACHE EDITABLE_TIMING_CACHE TF32 SPARSE_WEIGHTS "
    "SAFETY_SCOPE VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME ERROR_ON_TIMING_CACHE_MISS "
    "DISABLE_COMPILATION_CACHE STRIP_PLAN REFIT_IDENTICAL WEIGHT_STREAMING REFIT_INDIVIDUAL "
    "STRICT_NANS MONITOR_MEMORY DISTRIBUTIVE_INDEPENDENCE"
)
_POOLS = "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM"
_SOURCES = "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS"
_LAYERS = (
    "CONVOLUTION ACTIVATION POOLING SCALE SOFTMAX DECONVOLUTION CONCATENATION ELEMENTWISE UNARY "
    "SHUFFLE REDUCE MATRIX_MULTIPLY CONSTANT IDENTITY CAST PARAMETRIC_RELU NORMALIZATION"
)

_ENUMS: Mapping[str, Mapping[str, str]] = {
    "8.6.0": {
        "BuilderFlag": _FLAGS_86,
        "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH EXPLICIT_PRECISION",
        "MemoryPoolType": _POOLS,
        "TacticSource": _SOURCES,
        "ProfilingVerbosity": "LAYER_NAMES_ONLY DETAILED NONE DEFAULT VERBOSE",
        "DataType": "FLOAT HALF INT8 INT32 BOOL UINT8 FP8",
    },
    "10.13.0": {
        "BuilderFlag": _FLAGS_10,
        "NetworkDefinitionCreationFlag": "EXPLICIT_BATCH STRONGLY_TYPED PREFER_AOT_PYTHON_PLUGINS",
        "MemoryPoolType": _POOLS + " TACTIC_SHARED_MEMORY",
        "TacticSource": _SOURCES,
        "ProfilingVerbosity": "LAYER_NAMES_ONLY DETAILED NONE",
        "DataType": "FLOAT HALF BF16 INT8 INT32 INT64 BOOL UINT8 FP8 INT4 FP4",
    },
    "11.0.0": {
        "BuilderFlag": _FLAGS_11,
        "NetworkDefinitionCreationFlag": "STRONGLY_TYPED PREFER_AOT_PYTHON_PLUGINS",
        "MemoryPoolType": _POOLS + " TACTIC_SHARED_MEMORY",
        "TacticSource": "EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS",
        "ProfilingVerbosity": "LAYER_NAMES_ONLY DETAILED NONE",
        "DataType": "FLOAT HALF BF16 INT8 INT32 INT64 BOOL UINT8 FP8 INT4 FP4",
    },
}
_SETTINGS = ("builder_optimization_level", "profiling_verbosity")
Outcome = bytes | Sequence[str]


def stand_in(version: str, *outcomes: Outcome, layers: Sequence[Any] = ()) -> Any:
    """A module of this version; each build has the next of the outcomes, the last one again.

    ``module.made`` collects the configurations of all builds.
    """
    enums = {
        name: enum.IntEnum(name, members, start=0)  # type: ignore[misc]
        for name, members in {
            **_ENUMS[version],
            "LayerType": _LAYERS,
            "MatrixOperation": "NONE TRANSPOSE VECTOR",
            "LayerInformationFormat": "ONELINE JSON",
        }.items()
    }
    module: Any = _Module(
        __version__=version,
        **enums,
        ILogger=Logger,
        IConvolutionLayer=Layer,
        IDeconvolutionLayer=Layer,
        IMatrixMultiplyLayer=Layer,
        made=[],
        networks=[],
        parse_errors=[],
        outcomes=list(outcomes) or [b"engine"],
        layers=layers,
    )
    if version != "8.6.0":
        module.IProgressMonitor = ProgressMonitor
    module.Builder = lambda logger: Builder(module, logger)
    module.OnnxParser = lambda network, logger: Parser(module, network)
    return module


class _Module:
    """Any names, and hashable as modules are."""

    def __init__(self, **names: Any) -> None:
        self.__dict__.update(names)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Logger:
    pass


class ProgressMonitor:
    pass


class Tensor:
    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class Layer:
    """A layer of given tensors; ``more`` are the attributes of its kind."""

    def __init__(self, kind: Any, name: str, tensors: Sequence[Tensor], **more: Any) -> None:
        self.type, self.name = kind, name
        self._tensors = tensors
        self.precision: Any = None
        self.output_type: Any = None
        self.__dict__.update(more)

    def get_input(self, index: int) -> Tensor:
        return self._tensors[index]

    def get_output(self, _index: int) -> Tensor:
        return self._tensors[-1]

    def set_output_type(self, _index: int, dtype: Any) -> None:
        self.output_type = dtype


class Network:
    def __init__(self, module: Any, flags: int) -> None:
        self.flags = flags
        dtype = module.DataType.FLOAT
        self._input = Tensor("patches", dtype, (-1, 1, 4, 4))
        self._output = Tensor("scores", dtype, (-1, 2, 4, 4))
        self._layers = list(module.layers)
        self.num_inputs = self.num_outputs = 1
        self.num_layers = len(self._layers)

    def get_input(self, _index: int) -> Tensor:
        return self._input

    def get_output(self, _index: int) -> Tensor:
        return self._output

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class Parser:
    def __init__(self, module: Any, network: Network) -> None:
        self._errors = module.parse_errors
        self.num_errors = len(self._errors)

    def parse(self, _onnx: bytes) -> bool:
        return not self._errors

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class TimingCache:
    """Bytes of the version's own, or foreign ones that no configuration takes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def combine(self, other: "TimingCache", _ignore_mismatch: bool) -> bool:
        self.content += other.content
        return True

    def serialize(self) -> bytes:
        return self.content


class Config:
    """Takes only what its version has: attributes that are not named here cannot be set."""

    __slots__ = ("cleared", "flags", "pools", "profiles", "sources", "timings", *_SETTINGS)

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.cleared: list[str] = []
        self.pools: dict[str, int] = {}
        self.profiles: list[tuple[Any, ...]] = []
        self.sources: int | None = None
        self.timings: TimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.cleared.append(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self.pools[pool.name] = size

    def set_tactic_sources(self, sources: int) -> bool:
        self.sources = sources
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, _ignore_mismatch: bool) -> bool:
        if cache.content.startswith(b"foreign"):
            return False
        self.timings = cache
        return True


class ReportingConfig(Config):
    __slots__ = ("progress_monitor",)


class Profile:
    shapes: tuple[Any, ...] = ()

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.shapes = (name, least, best, most)


class Builder:
    def __init__(self, module: Any, logger: Any) -> None:
        self._module, self._logger = module, logger

    def create_network(self, flags: int) -> Network:
        network = Network(self._module, flags)
        self._module.networks.append(network)
        return network

    def create_builder_config(self) -> Config:
        reports = hasattr(self._module, "IProgressMonitor")
        config = ReportingConfig() if reports else Config()
        self._module.made.append(config)
        return config

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, _network: Network, config: Config) -> bytes | None:
        outcomes = self._module.outcomes
        outcome = outcomes.pop(0) if len(outcomes) > 1 else outcomes[0]
        if isinstance(outcome, bytes):
            if config.timings is not None:
                config.timings.content += b"+"
            return outcome
        for message in outcome:
            self._logger.log(Severity.ERROR, message)
        return None
