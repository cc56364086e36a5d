"""How much of a net's arithmetic is done in half precision.

Counted on the parsed network, before anything is built: two operations per multiply-add of
convolutions, transposed convolutions and matrix products, for one window.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from kits_runtime.engines.tensorrt.library import Library, layers_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfShare:
    """The operations of one window, and which layers of them are not half, largest first."""

    half_flops: int
    total_flops: int
    wide_layers: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """The share of operations whose result is half; 0 where a net has none."""
        return self.half_flops / self.total_flops if self.total_flops else 0.0


def half_share(library: Library, network: Any) -> HalfShare:  # noqa: ANN401
    """The share of a parsed network; a free batch axis counts as one window."""
    half = library.members("DataType")["HALF"]
    total = halves = 0
    wide: list[tuple[str, int]] = []
    for layer in layers_of(network):
        flops = _flops(library, layer)
        total += flops
        if layer.get_output(0).dtype == half:
            halves += flops
        elif flops:
            wide.append((layer.name, flops))
    wide.sort(key=lambda row: -row[1])
    return HalfShare(half_flops=halves, total_flops=total, wide_layers=tuple(wide))


def _flops(library: Library, layer: Any) -> int:  # noqa: ANN401
    kinds = library.members("LayerType")
    if layer.type == kinds["CONVOLUTION"]:
        _become(layer, library.module.IConvolutionLayer)
        return _convolution_flops(layer, layer.get_output(0), channels=_size(layer.get_input(0))[1])
    if layer.type == kinds["DECONVOLUTION"]:
        _become(layer, library.module.IDeconvolutionLayer)
        return _convolution_flops(layer, layer.get_input(0), channels=int(layer.num_output_maps))
    if layer.type == kinds["MATRIX_MULTIPLY"]:
        _become(layer, library.module.IMatrixMultiplyLayer)
        transposed = layer.op0 == library.members("MatrixOperation")["TRANSPOSE"]
        inner = _size(layer.get_input(0))[-2 if transposed else -1]
        return 2 * prod(_size(layer.get_output(0))) * inner
    return 0


def _convolution_flops(layer: Any, over: Any, *, channels: int) -> int:  # noqa: ANN401
    """Every element of ``over`` meets the kernel once for each channel of its group."""
    kernel = prod(int(length) for length in layer.kernel_size_nd)
    return 2 * prod(_size(over)) * kernel * channels // int(layer.num_groups)


def _become(layer: Any, kind: type) -> None:  # noqa: ANN401
    """The binding hands out all layers as their common base; this is how it shows the rest."""
    layer.__class__ = kind


def _size(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401
    return tuple(max(1, int(length)) for length in tensor.shape)
