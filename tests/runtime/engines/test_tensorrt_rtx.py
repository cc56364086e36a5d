"""The builder on the real tensorrt_rtx, which builds ahead of time without a GPU."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rtx import rtx_or_skip
from tensorrt_stand_ins import Builder, Layer, Network, Parser, Profile, ReportingConfig

from kits_runtime.engine_facts import engine_facts
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import Built
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt import (
    BuildOptions,
    BuiltEngine,
    Library,
    build_engine,
    engine_key,
)
from kits_runtime.errors import (
    BackendUnavailableError,
    BundleError,
    EngineIncompatibleError,
    KitsError,
    OutOfMemoryError,
)

NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=2,
    out_channels=3,
    size_vox=(8, 8, 8),
)
WEIGHTS = np.random.default_rng(3).normal(size=(3, 2, 3, 3, 3)).astype(np.float32)
BIAS = np.zeros(3, np.float32)
CONV_FLOPS = 2 * (3 * 8**3) * (2 * 27)


@pytest.fixture(scope="module")
def rtx() -> Library:
    return rtx_or_skip()


def net(stored: nets.Stored = "float32", batch: nets.Batch = "n") -> bytes:
    return nets.conv_softmax_net(WEIGHTS, BIAS, size=NET.size_vox, stored=stored, batch=batch)


def options(**more: Any) -> BuildOptions:
    return BuildOptions(**{"precision": "fp32", "compute_capabilities": ("SM86",), **more})


def build(rtx: Library, onnx_bytes: bytes, **more: Any) -> BuiltEngine:
    return build_engine(onnx_bytes, NET, library=rtx, options=options(**more))


def two_convolutions(first_channels: int) -> bytes:
    """A half convolution to so many channels, then a float32 one of one tap."""
    shape = (first_channels, 2, 3, 3, 3)
    weights = {
        "w1": np.ones(shape, np.float16),
        "w2": np.ones((3, first_channels, 1, 1, 1), np.float32),
    }
    nodes = [
        helper.make_node("Cast", [nets.INPUT], ["half"], to=TensorProto.FLOAT16, name="to_half"),
        helper.make_node("Conv", ["half", "w1"], ["sums"], pads=[1] * 6, name="in_half"),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT, name="to_float"),
        helper.make_node("Conv", ["wide", "w2"], [nets.OUTPUT], name="in_float"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(nets.INPUT, TensorProto.FLOAT, ["n", 2, 8, 8, 8])],
        [helper.make_tensor_value_info(nets.OUTPUT, TensorProto.FLOAT, ["n", 3, 8, 8, 8])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return _bytes(graph)


def _bytes(graph: onnx.GraphProto) -> bytes:
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def test_its_surface_is_that_of_a_strongly_typed_version_without_precision_flags(
    rtx: Library,
) -> None:
    assert rtx.strongly_typed
    assert rtx.ahead_of_time
    assert not rtx.has_precision_flags
    assert rtx.network_flags() == 0
    assert rtx.newest_opset is None
    assert "SM86" in rtx.members("ComputeCapability")
    assert rtx.members("BuilderFlag").keys() >= {"TF32", "REFIT"}
    assert set(rtx.members("TacticSource")) == {"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"}


def test_the_stand_ins_have_no_call_that_the_real_module_lacks(rtx: Library) -> None:
    made = {
        "Builder": Builder,
        "OnnxParser": Parser,
        "INetworkDefinition": Network,
        "IOptimizationProfile": Profile,
        "IBuilderConfig": ReportingConfig,
        "ILayer": Layer,
    }
    only_stand_ins = {
        "IBuilderConfig": {"cleared", "pools", "profiles", "sources", "timings"},
        "ILayer": {"set_output_type"},  # of 8.6 alone
        "IOptimizationProfile": {"shapes"},
    }
    for name, kind in made.items():
        own = {each for each in dir(kind) if not each.startswith("_")}
        real = set(dir(getattr(rtx.module, name)))
        assert own - real == only_stand_ins.get(name, set()), name


def test_an_engine_of_a_float32_net_has_two_profiles_and_no_half(rtx: Library) -> None:
    built = build(rtx, net(), batch=4)
    assert built.batches == (4, 1)
    assert (built.half.half_flops, built.half.total_flops) == (0, CONV_FLOPS)
    assert len(built.data) > WEIGHTS.nbytes
    assert built.plans_tried == ("workspace free, batch 4, optimisation level usual",)
    assert built.warnings == ()


def test_a_half_net_is_proven_half(rtx: Library) -> None:
    built = build(rtx, net("float16"), precision="fp16")
    assert built.half.share == 1.0
    assert built.half.wide_layers == ()


def test_the_share_of_a_mixed_net_is_that_of_its_operations(rtx: Library) -> None:
    built = build(rtx, two_convolutions(64), precision="fp16")
    half, wide = 2 * (64 * 512) * 2 * 27, 2 * (3 * 512) * 64
    assert (built.half.half_flops, built.half.total_flops) == (half, half + wide)
    assert built.half.wide_layers == (("in_float", wide),)


@pytest.mark.parametrize("stored", ["float32", "half"])
def test_half_asked_for_and_not_got_is_an_error(rtx: Library, stored: nets.Stored) -> None:
    with pytest.raises(EngineIncompatibleError, match=r"found 0\.0% .* at least 90%.*fp16 file"):
        build(rtx, net(stored), precision="fp16")


def test_a_net_that_is_mostly_float32_is_not_half(rtx: Library) -> None:
    weights = two_convolutions(64)
    with pytest.raises(EngineIncompatibleError, match=r"found 94\.7% .*at least 99%.*in_float"):
        build(rtx, weights, precision="fp16", least_half_share=0.99)


def test_weights_stored_as_half_give_the_same_engine_as_wide_ones(rtx: Library) -> None:
    rounded = WEIGHTS.astype(np.float16).astype(np.float32)
    wide = nets.conv_softmax_net(rounded, BIAS, size=NET.size_vox)
    stored, plain = build(rtx, net("half")), build(rtx, wide)
    assert stored.half.total_flops == plain.half.total_flops
    assert len(stored.data) == pytest.approx(len(plain.data), abs=64)


def test_the_same_net_gives_the_same_bytes(rtx: Library) -> None:
    assert build(rtx, net()).data == build(rtx, net()).data


def test_a_file_that_fixes_its_batch_has_one_profile_of_it(rtx: Library) -> None:
    assert build(rtx, net(batch=3), batch=8).batches == (3,)


def test_one_engine_serves_several_capabilities(rtx: Library) -> None:
    one = build(rtx, net())
    several = build(rtx, net(), compute_capabilities=("SM86", "SM89", "SM120"))
    assert len(several.data) > len(one.data)


def test_progress_tells_phases_with_steps_that_count_up(rtx: Library) -> None:
    calls: list[tuple[str, int, int]] = []

    def note(phase: str, done: int, steps: int) -> None:
        calls.append((phase, done, steps))

    build_engine(net(), NET, library=rtx, options=options(), progress=note)
    whole = [call for call in calls if call[0] == calls[0][0]]
    assert whole[0][1] == 0
    assert whole[-1][1] == whole[-1][2] > 1
    assert [done for _, done, _ in whole] == sorted(done for _, done, _ in whole)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("boom")])
def test_an_error_of_progress_stops_the_build_and_comes_out(
    rtx: Library, error: BaseException
) -> None:
    calls = 0

    def stop(*_call: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise error

    with pytest.raises(type(error)) as caught:
        build_engine(net(), NET, library=rtx, options=options(), progress=stop)
    assert caught.value is error
    assert calls == 5
    assert build(rtx, net()).data


def test_a_capability_that_cannot_be_built_for_is_refused_with_those_that_can(
    rtx: Library,
) -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"found compute capability SM90.*SM86"
    ) as got:
        build(rtx, net(), compute_capabilities=("SM86", "SM90"))
    assert got.value.exit_code == 5


def test_version_compatible_engines_are_refused_before_parsing(rtx: Library) -> None:
    with pytest.raises(BackendUnavailableError, match="without the lean runtime"):
        build(rtx, b"", version_compatible=True)


def test_a_workspace_too_tight_has_exit_code_7(rtx: Library) -> None:
    with pytest.raises(OutOfMemoryError, match=r"workspace 0 MiB.*allow more of it") as caught:
        build(rtx, net(), workspace_bytes=1)
    assert caught.value.exit_code == 7


def test_settings_for_tensorrt_do_no_harm(rtx: Library, tmp_path: Path) -> None:
    timings = tmp_path / "timings"
    built = build(rtx, net(), own_kernels_only=True, timing_cache=timings, workspace_bytes=1 << 30)
    assert built.data
    assert not timings.exists()


@pytest.mark.parametrize("level", range(6))
def test_every_optimisation_level_builds(rtx: Library, level: int) -> None:
    assert build(rtx, net(), optimization_level=level).data


def test_a_kept_engine_is_built_once_and_its_record_tells_how(rtx: Library, tmp_path: Path) -> None:
    content = net("float16")
    plan = options(precision="fp16", batch=2)
    sha256 = hashlib.sha256(content).hexdigest()
    key = engine_key(NET, sha256, library=rtx, options=plan, gpu=None)
    cache = EngineCache(folder=tmp_path / "engines")
    builds = 0

    def made() -> Built:
        nonlocal builds
        builds += 1
        built = build_engine(content, NET, library=rtx, options=plan)
        return Built(data=built.data, facts=built.facts())

    first, second = (cache.get_or_build(key, made, report=lambda _: None) for _ in range(2))
    assert first == second
    assert builds == 1
    (entry,) = cache.entries()
    assert entry.facts["half_share"] == 1.0
    assert entry.facts["flops_per_window"] == CONV_FLOPS
    assert entry.facts["batches"] == [2, 1]
    facts = engine_facts(entry.path, nets={sha256})
    assert facts["library"] == f"trt-rtx {rtx.version}"
    assert "library" not in facts["differs"]  # type: ignore[operator]
    assert "onnx_sha256" not in facts["differs"]  # type: ignore[operator]


def unknown_operator(name: str, operator: str) -> bytes:
    node = helper.make_node(operator, [nets.INPUT], ["out"], name=name)
    rest = helper.make_node("Identity", ["out"], [nets.OUTPUT])
    graph = helper.make_graph(
        [node, rest],
        "g",
        [helper.make_tensor_value_info(nets.INPUT, TensorProto.FLOAT, ["n", 2, 8, 8, 8])],
        [helper.make_tensor_value_info(nets.OUTPUT, TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_a_node_that_the_parser_lacks_is_named_with_its_operator(rtx: Library) -> None:
    with pytest.raises(BundleError, match=r"refuses node det/7 \(Det\): .*export") as caught:
        build(rtx, unknown_operator("det/7", "Det"))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file has no tensor 'patches' but none"),
        (b"garbage", "ONNX file: found"),
        (net()[:300], "ONNX file: found an end within"),
        (nets.identity_net(2, size=(8, 8, 8)), r"'scores' is float32 \(free, 2, 8, 8, 8\)"),
        (nets.two_input_net(size=(8, 8, 8)), r"has 2 inputs|is float32 \(free, 1"),
    ],
)
def test_files_that_are_not_this_net_are_refused(rtx: Library, content: bytes, said: str) -> None:
    with pytest.raises(KitsError, match=said) as caught:
        build(rtx, content)
    assert caught.value.exit_code == 4


def test_names_that_are_no_text_are_refused(rtx: Library) -> None:
    content = net().replace(b"scores", b"sc\xeeres")
    with pytest.raises(KitsError) as caught:
        build(rtx, content)
    assert caught.value.exit_code == 4


def test_other_names_are_refused(rtx: Library) -> None:
    other = replace(NET, output_name="labels")
    with pytest.raises(EngineIncompatibleError, match="no tensor 'labels' but 'scores'"):
        build_engine(net(), other, library=rtx, options=options())


REFUSING = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
from kits_runtime.engines.tensorrt import open_library
from kits_runtime.errors import KitsError
try:
    print(open_library({flavour!r}).module.__name__)
except KitsError as error:
    print(error.exit_code, error)
"""


def asked(flavour: str, refused: Sequence[str], config: pytest.Config) -> str:
    """What opening a library says in a process where these modules cannot be imported."""
    code = REFUSING.format(names=set(refused), flavour=flavour)
    command = [sys.executable, "-c", code]
    root = str(config.rootpath / "runtime")
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_without_the_plain_name_the_wheels_own_module_is_taken(
    rtx: Library, pytestconfig: pytest.Config
) -> None:
    assert rtx.version
    assert asked("trt-rtx", ["tensorrt_rtx"], pytestconfig) == "tensorrt_rtx_bindings"


def test_missing_packages_are_named_with_how_to_get_them(pytestconfig: pytest.Config) -> None:
    said = asked("trt-rtx", ["tensorrt_rtx", "tensorrt_rtx_bindings"], pytestconfig)
    assert said.startswith("5 backend trt-rtx: tensorrt_rtx cannot be imported")
    assert said.endswith('pip install "kits-trt[trt-rtx]"')
    said = asked("trt", ["tensorrt"], pytestconfig)
    assert said.startswith(
        "5 backend trt: tensorrt cannot be imported (No module named 'tensorrt')"
    )
    assert "installing-tensorrt" in said
