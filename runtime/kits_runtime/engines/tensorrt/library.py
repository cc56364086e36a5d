"""The two libraries behind one interface, and which of its differences a version has.

``tensorrt`` 8.6, 10 and 11 and ``tensorrt_rtx`` share the calls that the builder makes. What they
do not share is read off the module itself, never off its version number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kits_runtime.errors import BackendUnavailableError

Flavour: TypeAlias = Literal["trt", "trt-rtx"]

INSTALLATION_PAGE = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/installing-tensorrt/installing.html"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One imported library."""

    flavour: Flavour
    module: Any

    @property
    def version(self) -> str:
        """What the library calls itself."""
        return str(self.module.__version__)

    @property
    def has_precision_flags(self) -> bool:
        """Whether precision can be set by builder flags: up to 10, and never in tensorrt_rtx."""
        return "FP16" in self.members("BuilderFlag")

    @property
    def strongly_typed(self) -> bool:
        """Whether tensors get the types that the file gives them: everywhere but in 8.6."""
        by_flag = "STRONGLY_TYPED" in self.members("NetworkDefinitionCreationFlag")
        return by_flag or not self.has_precision_flags

    @property
    def ahead_of_time(self) -> bool:
        """Whether engines can be built for a GPU that is not here."""
        return bool(self.members("ComputeCapability"))

    @property
    def newest_opset(self) -> int | None:
        """The newest ONNX opset that the parser takes, None where it is newer than ours."""
        return None if self.strongly_typed else 17

    def members(self, enum: str) -> Mapping[str, Any]:
        """The members of one of the library's enumerations, empty where it has no such."""
        found: Mapping[str, Any] = getattr(getattr(self.module, enum, None), "__members__", {})
        return found

    def network_flags(self) -> int:
        """The flags that a network is made with; none where types are always strong."""
        if not self.has_precision_flags:
            return 0
        wanted = "STRONGLY_TYPED" if self.strongly_typed else "EXPLICIT_BATCH"
        return 1 << int(self.members("NetworkDefinitionCreationFlag")[wanted])


def open_library(flavour: Flavour) -> Library:
    """The imported library of a backend.

    Raises:
        BackendUnavailableError: the package is missing or broken.
    """
    load = {"trt": import_tensorrt, "trt-rtx": import_tensorrt_rtx}[flavour]
    return Library(flavour=flavour, module=load())


def layers_of(network: Any) -> Iterator[Any]:  # noqa: ANN401
    """The layers of a parsed network in order."""
    for index in range(network.num_layers):
        yield network.get_layer(index)


def import_tensorrt() -> Any:  # noqa: ANN401
    """The tensorrt module. Importing needs no GPU, its Builder and Runtime do.

    Raises:
        BackendUnavailableError: the package is missing or broken.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"backend trt: tensorrt cannot be imported ({error}), expected a working package of "
            f"8.6 or newer; its vendor says how to install it: {INSTALLATION_PAGE}"
        ) from error
    return tensorrt


def import_tensorrt_rtx() -> Any:  # noqa: ANN401
    """The tensorrt_rtx module, under that name or as its wheels have it.

    The wheels hold the module as ``tensorrt_rtx_bindings``, which loads its own libraries. The
    plain name comes from a third package that only imports this one.

    Raises:
        BackendUnavailableError: the packages are missing or broken.
    """
    try:
        try:
            import tensorrt_rtx
        except ModuleNotFoundError:
            import tensorrt_rtx_bindings as tensorrt_rtx
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"backend trt-rtx: tensorrt_rtx cannot be imported ({error}), expected working "
            'packages; pip install "kits-trt[trt-rtx]"'
        ) from error
    return tensorrt_rtx
