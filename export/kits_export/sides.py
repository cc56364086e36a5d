"""The sides of the parity links: every way in which a net of the bundle is computed here.

Each side opens a net as the runtime opens it, in calls of as many windows; torch stands behind the
same protocol. What a side reads is made once and held in ``NetForms``.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch

from kits_export.emulated_half import emulated_half
from kits_export.half_graph import HalfGraph, half_from_float
from kits_export.half_storage import store_weights_as_half
from kits_export.links import SideName
from kits_export.onnx_from_torch import INPUT_NAME, OUTPUT_NAME, onnx_from_net
from kits_export.write_bundle import Float
from kits_runtime.engines import (
    BACKENDS,
    Engine,
    EngineOptions,
    EngineSpec,
    FakeEngine,
    NetSpec,
    open_engine,
)
from kits_runtime.engines.batches import windows_a_call
from kits_runtime.engines.openvino_cpu import import_openvino
from kits_runtime.engines.protocol import Array, Precision
from kits_trt.nets import SegmentationNet
from kits_trt.systems.system import NetShape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetForms:
    """A net and every graph made of it.

    ``exact`` is the float32 graph, ``stored`` what the bundle holds as fp32 (its weights may be
    halves), ``half`` the FP16-typed graph and ``emulated`` its float32 stand-in, None where no
    FP16 was asked for.
    """

    net: SegmentationNet
    spec: NetSpec
    exact: onnx.ModelProto
    stored: onnx.ModelProto
    half: HalfGraph | None
    emulated: onnx.ModelProto | None


def net_forms(
    net: SegmentationNet, name: str, shape: NetShape, *, half: bool, weights: Float
) -> NetForms:
    """Every form of one net.

    Raises:
        BundleError: a weight is not finite.
        ParityError: a weight that is to be half is beyond it, or torch's graph cannot be ours.
    """
    exact = onnx_from_net(net, input_shape=(shape.in_channels, *shape.size_vox))
    typed = half_from_float(exact) if half else None
    return NetForms(
        net=net,
        spec=NetSpec(
            name=name,
            input_name=INPUT_NAME,
            output_name=OUTPUT_NAME,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            size_vox=shape.size_vox,
        ),
        exact=exact,
        stored=exact if weights == "float32" else store_weights_as_half(exact),
        half=typed,
        emulated=None if typed is None else emulated_half(typed),
    )


@contextlib.contextmanager
def opened(side: SideName, forms: Mapping[str, NetForms]) -> Iterator[Mapping[str, Engine]]:
    """All nets of a side, open for the block.

    Raises:
        EngineError: a net cannot be opened, or the side cannot run here.
    """
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(_OPEN[side](each)) for name, each in forms.items()}


def why_not(side: SideName, forms: Mapping[str, NetForms]) -> str | None:
    """Why a side is left out: nothing to run, or nothing to run it with; None where it can run.

    OpenVINO is no such case: it must be there, because most processors will run bundles with it.
    """
    if side in ("fp16-emulated", "fp16-file") and any(each.half is None for each in forms.values()):
        return "no FP16 was asked for"
    if side == "openvino-bf16":
        capabilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return None if "BF16" in capabilities else "this processor has no bf16"
    if side == "engine":
        backend = _engine_backend()
        return None if backend else "no TensorRT that can run here"
    return None


def graph_of(side: SideName, forms: NetForms) -> onnx.ModelProto:
    """The graph that a side computes; that of torch is the float32 graph."""
    if side == "fp16-emulated" and forms.emulated is not None:
        return forms.emulated
    if side == "fp16-file" and forms.half is not None:
        return forms.half.model
    return forms.exact if side in ("torch", "onnx") else forms.stored


def torch_scores(net: SegmentationNet, patches: Array) -> Array:
    """What torch computes for patches, in float32 on the processor."""
    with torch.inference_mode():
        scores: Array = net(torch.from_numpy(np.ascontiguousarray(patches))).numpy()
    return scores


def _open_torch(forms: NetForms) -> Engine:
    spec = EngineSpec(
        net=forms.spec,
        backend="torch",
        precision="fp32",
        batch=windows_a_call(forms.spec.size_vox),
        threads=torch.get_num_threads(),
    )
    return FakeEngine(spec, lambda patches: torch_scores(forms.net, patches))


def _open(backend: str, precision: Precision, side: SideName) -> Callable[[NetForms], Engine]:
    def open_net(forms: NetForms) -> Engine:
        return open_engine(
            graph_of(side, forms).SerializeToString(),
            forms.spec,
            backend=backend,
            options=EngineOptions(batch=windows_a_call(forms.spec.size_vox), precision=precision),
        )

    return open_net


def _engine_backend() -> str | None:
    usable = [
        row.name for row in BACKENDS if row.name in ("trt", "trt-rtx") and row.why_not() is None
    ]
    return usable[0] if usable else None


def _open_on_gpu(forms: NetForms) -> Engine:
    form = forms.stored if forms.half is None else forms.half.model
    options = EngineOptions(
        batch=windows_a_call(forms.spec.size_vox),
        precision="fp32" if forms.half is None else "fp16",
    )
    return open_engine(
        form.SerializeToString(), forms.spec, backend=_engine_backend() or "trt", options=options
    )


_OPEN: Mapping[SideName, Callable[[NetForms], Engine]] = {
    "torch": _open_torch,
    "onnx": _open("ort-cpu", "fp32", "onnx"),
    "bundle": _open("ort-cpu", "fp32", "bundle"),
    "openvino-fp32": _open("openvino", "fp32", "openvino-fp32"),
    "openvino-bf16": _open("openvino", "bf16", "openvino-bf16"),
    "fp16-emulated": _open("ort-cpu", "fp32", "fp16-emulated"),
    "fp16-file": _open("ort-cpu", "fp32", "fp16-file"),
    "engine": _open_on_gpu,
}
