"""Every net of every system, built by the real tensorrt_rtx for GPUs that are not here."""

import functools
import itertools

import onnx
import pytest
import torch
from exported_nets import exported
from rtx import rtx_or_skip

from kits_export.half_graph import half_from_float
from kits_export.half_storage import store_weights_as_half
from kits_export.onnx_from_torch import INPUT_NAME, OUTPUT_NAME, onnx_from_net
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt import BuildOptions, BuiltEngine, Library, build_engine
from kits_runtime.errors import EngineError
from kits_trt.nets import NETS, NetConfig, build_net, net_config
from kits_trt.nets.cost import net_cost

BATCH = 4
PRECISIONS = ("fp32", "fp16")
CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120")


@pytest.fixture(scope="module")
def rtx() -> Library:
    return rtx_or_skip()


@functools.cache
def _fresh(config: NetConfig) -> onnx.ModelProto:
    """Nets of equal configuration are one: all three V-Nets, both Res-UNets."""
    torch.manual_seed(0)
    return onnx_from_net(config.build(), input_shape=config.patch_shape)


def graph_of(name: str, preset: str) -> onnx.ModelProto:
    """The net's float32 graph, exported once for all precisions and capabilities."""
    return exported(name) if preset == "small" else _fresh(net_config(name, preset))


def content_of(name: str, preset: str, precision: str) -> bytes:
    """The net's file in a precision, as a bundle holds it."""
    model = graph_of(name, preset)
    if precision == "fp16":
        model = half_from_float(model).model
    return bytes(model.SerializeToString())


def spec_of(name: str, preset: str) -> NetSpec:
    shape = net_config(name, preset).patch_shape
    output = graph_of(name, preset).graph.output[0].type.tensor_type.shape
    return NetSpec(
        name=name,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        in_channels=shape[0],
        out_channels=output.dim[1].dim_value,
        size_vox=shape[1:],
    )


def built(rtx: Library, name: str, preset: str, *, capability: str, precision: str) -> BuiltEngine:
    options = BuildOptions(
        precision=precision,  # type: ignore[arg-type]
        batch=BATCH,
        compute_capabilities=(capability,),
    )
    content = content_of(name, preset, precision)
    return build_engine(content, spec_of(name, preset), library=rtx, options=options)


def check(rtx: Library, name: str, preset: str, *, capability: str, precision: str) -> None:
    engine = built(rtx, name, preset, capability=capability, precision=precision)
    assert engine.batches == (BATCH, 1)
    # Counted by torch on the module itself, independently of file, parser and network.
    # A layer counts for one row of its batch, and a mirrored net makes four of each patch.
    config = net_config(name, preset)
    cost = net_cost(build_net(name, preset), config.patch_shape)
    assert engine.half.total_flops * (4 if getattr(config, "mirrored", False) else 1) == cost.flop
    if precision == "fp16":
        assert engine.half.share >= 0.9
    else:
        assert engine.half.half_flops == 0
    weights = sum(len(item.raw_data) for item in graph_of(name, preset).graph.initializer)
    assert len(engine.data) > weights / (2 if precision == "fp16" else 1)
    assert engine.warnings == ()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_small_net_becomes_an_engine(rtx: Library, name: str, precision: str) -> None:
    check(rtx, name, "small", capability="SM86", precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("precision", "capability"),
    [row for row in itertools.product(PRECISIONS, CAPABILITIES) if row[1] != "SM86"],
)
def test_every_small_net_becomes_an_engine_for_every_other_capability(
    rtx: Library, name: str, precision: str, capability: str
) -> None:
    if (precision, capability, len(spec_of(name, "small").size_vox)) == ("fp32", "SM75", 3):
        with pytest.raises(EngineError, match=r"Turing \(SM75\): FP32 3D convolution"):
            built(rtx, name, "small", capability=capability, precision=precision)
        return
    check(rtx, name, "small", capability=capability, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_paper_net_becomes_an_engine(rtx: Library, name: str, precision: str) -> None:
    check(rtx, name, "paper", capability="SM86", precision=precision)


@pytest.mark.parametrize("name", ["msvnet", "unet"])
def test_a_net_with_weights_stored_as_half_becomes_the_same_engine(rtx: Library, name: str) -> None:
    stored = bytes(store_weights_as_half(exported(name)).SerializeToString())
    options = BuildOptions(precision="fp32", compute_capabilities=("SM86",), batch=BATCH)
    engine = build_engine(stored, spec_of(name, "small"), library=rtx, options=options)
    plain = built(rtx, name, "small", capability="SM86", precision="fp32")
    assert engine.half == plain.half
    assert len(engine.data) == pytest.approx(len(plain.data), rel=1e-3)
