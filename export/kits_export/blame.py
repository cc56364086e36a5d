"""Which node is to blame for a broken link: both graphs in step, one node after another.

The values of an exported graph have the names of torch's own graph, FP16-typed and emulated graphs
keep them, and OpenVINO can be asked for any of them, so that sides are compared value by value.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from kits_export.links import Link
from kits_export.offending_node import first_offending_node, node_outputs
from kits_export.onnx_from_torch import OUTPUT_NAME, program_from_net
from kits_export.sides import NetForms, graph_of
from kits_runtime.engines.openvino_cpu import import_openvino
from kits_runtime.engines.protocol import Array

# Over a value's largest magnitude: 2^-10 in float32, where sums differ by some 1e-6; more where
# numbers have 11 or 8 bits.
_FLOAT_ERROR, _HALF_ERROR, _BF16_ERROR = 1e-3, 2e-2, 1e-1
_SAMPLES = 1 << 18
_VALUES_AT_ONCE = 8


def blamed_node(link: Link, forms: NetForms, windows: Array) -> str | None:
    """The first node whose values differ on some window, in words; None where none does alone."""
    for window in windows:
        found = _blamed(link, forms, window[None])
        if found is not None:
            return found
    return None


def _blamed(link: Link, forms: NetForms, window: Array) -> str | None:
    if link.left == "torch":
        graph = graph_of(link.right, forms)
        error = _FLOAT_ERROR if link.right == "onnx" else _HALF_ERROR
        return _first_apart(graph, window, _torch_values(forms.net, window), allowed=error)
    if link.right in ("fp16-emulated", "engine") and forms.emulated is not None:
        node = first_offending_node(forms.exact, forms.emulated, window) or first_offending_node(
            forms.exact, forms.emulated, window, relative_error=_HALF_ERROR
        )
        return None if node is None else str(node)
    if link.right in ("openvino-fp32", "openvino-bf16"):
        bf16 = link.right == "openvino-bf16"
        values = _openvino_values(forms.stored, window, precision="bf16" if bf16 else "f32")
        allowed = _BF16_ERROR if bf16 else _FLOAT_ERROR
        return _first_apart(forms.stored, window, values, allowed=allowed)
    return None


def _first_apart(
    graph: onnx.ModelProto, window: Array, values: Mapping[str, np.ndarray], *, allowed: float
) -> str | None:
    """The first node of a graph on ONNX Runtime whose output is not what it is in ``values``."""
    for node, name, found in node_outputs(graph, window):
        if name not in values or found.dtype != np.float32:
            continue
        error = _relative_error(_sampled(found), values[name])
        if not error <= allowed:
            return (
                f"node {node.name} ({node.op_type}), output {name}: found a relative error of "
                f"{error:.3g}, expected at most {allowed:g}"
            )
    return None


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    largest = float(np.abs(expected).max(initial=0.0))
    apart = float(np.abs(found - expected).max(initial=0.0))
    return apart / largest if apart else 0.0


def _sampled(values: np.ndarray) -> np.ndarray:
    """Values at an odd stride, so that every channel is among them and few are kept."""
    return values.ravel()[:: max(1, values.size // _SAMPLES) | 1].copy()


class _Recorder(torch.fx.Interpreter):
    """Runs torch's graph and keeps samples of every value by name."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, np.ndarray] = {}

    def run_node(self, n: torch.fx.Node) -> Any:  # noqa: ANN401
        """As its parent does."""
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            self.values[n.name] = _sampled(result.detach().numpy())
            self.values[OUTPUT_NAME] = self.values[n.name]  # the last value is the output
        return result


def _torch_values(net: nn.Module, window: Array) -> Mapping[str, np.ndarray]:
    program = program_from_net(net, input_shape=window.shape[1:]).exported_program
    assert program is not None  # the exporter in use keeps it
    recorder = _Recorder(program.module())
    with torch.inference_mode():
        recorder.run(torch.from_numpy(window))
    return recorder.values


def _openvino_values(
    model: onnx.ModelProto, window: Array, *, precision: str
) -> Mapping[str, np.ndarray]:
    """Samples of every value of a graph on OpenVINO; some at a time, each being an output then."""
    names = [name for node in model.graph.node for name in node.output]
    values: dict[str, np.ndarray] = {}
    for first in range(0, len(names), _VALUES_AT_ONCE):
        asked = names[first : first + _VALUES_AT_ONCE]
        values.update(_openvino_outputs(model, window, asked, precision=precision))
    return values


def _openvino_outputs(
    model: onnx.ModelProto, window: Array, names: list[str], *, precision: str
) -> Iterator[tuple[str, np.ndarray]]:
    told = onnx.ModelProto()
    told.CopyFrom(model)
    del told.graph.output[:]
    told.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(told.SerializeToString()), "CPU", settings)
    answer = compiled({0: window})
    for index, name in enumerate(names):
        yield name, _sampled(np.asarray(answer[index]))
