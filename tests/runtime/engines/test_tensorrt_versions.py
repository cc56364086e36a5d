"""What the builder asks of each version, on stand-ins with the surface of the real modules."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nets
import pytest
from tensorrt_stand_ins import VERSIONS, Layer, Severity, Tensor, stand_in

from kits_runtime.engines.cuda_driver import Gpu, Gpus
from kits_runtime.engines.protocol import NetSpec
from kits_runtime.engines.tensorrt import BuildOptions, Library, build_engine
from kits_runtime.errors import (
    BackendUnavailableError,
    BundleError,
    EngineError,
    EngineIncompatibleError,
    OutOfMemoryError,
)

NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=1,
    out_channels=2,
    size_vox=(4, 4),
)
ONNX = nets.identity_net(1, size=(4, 4))
FULL = "[virtualMemoryBuffer.cpp] Error Code 2: OutOfMemory (no further information)"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(
        index=0,
        name="A",
        compute_capability=(8, 6),
        memory_mib=8192,
        driver="580.1",
        cuda="13.0",
    )
    monkeypatch.setattr(
        "kits_runtime.engines.tensorrt.build.visible_gpus", lambda: Gpus(devices=(gpu,))
    )


def library(version: str, *outcomes: bytes | Sequence[str], layers: Sequence[Any] = ()) -> Library:
    return Library(flavour="trt", module=stand_in(version, *outcomes, layers=layers))


def plan(**more: Any) -> BuildOptions:
    return BuildOptions(**{"precision": "fp32", **more})


def build(made: Library, options: BuildOptions, onnx: bytes = ONNX) -> Any:
    return build_engine(onnx, NET, library=made, options=options)


def convolution(made: Library, *, half: bool) -> Layer:
    dtype = made.module.DataType.HALF if half else made.module.DataType.FLOAT
    tensors = [Tensor("patches", dtype, (-1, 1, 4, 4)), Tensor("sums", dtype, (-1, 2, 4, 4))]
    more = {"kernel_size_nd": (3, 3), "num_groups": 1, "num_output_maps": 2}
    return Layer(made.module.LayerType.CONVOLUTION, "conv", tensors, **more)


@pytest.mark.parametrize(
    ("version", "strong", "flags", "opset"),
    [("8.6.0", False, 1, 17), ("10.13.0", True, 2, None), ("11.0.0", True, 0, None)],
)
def test_networks_are_typed_strongly_wherever_the_version_can(
    version: str, strong: bool, flags: int, opset: int | None
) -> None:
    made = library(version)
    assert (made.strongly_typed, made.newest_opset) == (strong, opset)
    assert not made.ahead_of_time
    build(made, plan())
    assert [network.flags for network in made.module.networks] == [flags]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gets_the_same_plan(version: str) -> None:
    made = library(version)
    built = build(made, plan(batch=4, workspace_bytes=256 * MIB, optimization_level=2))
    (config,) = made.module.made
    assert built.data == b"engine"
    assert built.batches == (4, 1)
    assert config.pools == {"WORKSPACE": 256 * MIB}
    assert config.builder_optimization_level == 2
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.cleared == ["TF32"]
    assert config.profiles == [
        ("patches", *[(4, 1, 4, 4)] * 3),
        ("patches", *[(1, 1, 4, 4)] * 3),
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_settings_that_nobody_asked_for_stay_the_librarys_own(version: str) -> None:
    made = library(version)
    build(made, plan())
    (config,) = made.module.made
    assert (config.pools, config.flags, config.sources) == ({}, [], None)
    assert not hasattr(config, "builder_optimization_level")
    assert len(config.profiles) == 1


@pytest.mark.parametrize(
    ("version", "flags"),
    [
        ("8.6.0", ["FP16", "PREFER_PRECISION_CONSTRAINTS"]),
        ("10.13.0", []),
        ("11.0.0", []),
    ],
)
def test_only_8_6_is_told_by_flags_to_compute_in_half(version: str, flags: list[str]) -> None:
    made = library(version)
    layer = convolution(made, half=True)
    made.module.layers = [layer]
    built = build(made, plan(precision="fp16"))
    (config,) = made.module.made
    assert config.flags == flags
    assert config.cleared == []
    assert built.half.share == 1.0
    held = made.module.DataType.HALF if version == "8.6.0" else None
    assert (layer.precision, layer.output_type) == (held, held)


@pytest.mark.parametrize("version", VERSIONS)
def test_half_that_is_asked_for_and_not_in_the_file_is_an_error(version: str) -> None:
    made = library(version)
    made.module.layers = [convolution(made, half=False)]
    with pytest.raises(
        EngineIncompatibleError, match=r"found 0\.0% .* expected at least 90% .*conv"
    ):
        build(made, plan(precision="fp16"))
    assert made.module.made == []


def test_own_kernels_leave_cublas_and_cudnn_out() -> None:
    wanted = {}
    for version in VERSIONS:
        made = library(version)
        build(made, plan(own_kernels_only=True))
        wanted[version] = made.module.made[0].sources
    assert wanted == {"8.6.0": 0b11000, "10.13.0": 0b11000, "11.0.0": 0b11}


@pytest.mark.parametrize("version", VERSIONS)
def test_version_compatible_engines_are_asked_for_by_flag(version: str) -> None:
    made = library(version)
    build(made, plan(version_compatible=True))
    assert made.module.made[0].flags == ["VERSION_COMPATIBLE"]


def test_8_6_refuses_an_opset_beyond_17_before_parsing() -> None:
    onnx = _with_opset(18)
    with pytest.raises(EngineIncompatibleError, match="found opset 18, expected at most 17"):
        build(library("8.6.0"), plan(), onnx)
    assert build(library("10.13.0"), plan(), onnx).data == b"engine"


@pytest.mark.parametrize("version", VERSIONS)
def test_out_of_memory_tries_less_workspace_then_batch_then_effort(version: str) -> None:
    made = library(version, [FULL], [FULL], [FULL], b"small")
    built = build(made, plan(batch=4))
    assert built.data == b"small"
    assert [config.pools for config in made.module.made] == [
        {},
        {"WORKSPACE": 1024 * MIB},
        {"WORKSPACE": 256 * MIB},
        {"WORKSPACE": 256 * MIB},
    ]
    assert built.batches == (2, 1)
    assert built.plan.batch == 2
    assert len(built.plans_tried) == 4


def test_when_no_plan_fits_the_error_has_exit_code_7_and_advice() -> None:
    made = library("10.13.0", [FULL])
    with pytest.raises(
        OutOfMemoryError, match=r"7 plans.*batch 1, optimisation level 0.*end other"
    ) as caught:
        build(made, plan(batch=4))
    assert caught.value.exit_code == 7
    levels = [getattr(config, "builder_optimization_level", None) for config in made.module.made]
    assert levels == [None, None, None, None, None, 1, 0]


def test_a_workspace_too_tight_is_said_at_once() -> None:
    said = "no tactics to implement the operation within workspace limit. Consider increase"
    made = library("10.13.0", [said])
    with pytest.raises(OutOfMemoryError, match=r"no kernel for workspace 1 MiB.*allow more"):
        build(made, plan(workspace_bytes=MIB))
    assert len(made.module.made) == 1


def test_other_failures_are_not_tried_again() -> None:
    made = library("8.6.0", ["first", "Error Code 4: Internal\nError (broken)"])
    with pytest.raises(EngineError, match=r"'Error Code 4: Internal Error \(broken\)'"):
        build(made, plan())
    assert len(made.module.made) == 1


def test_8_6_names_the_number_of_a_node_and_later_versions_its_name() -> None:
    older = SimpleNamespace(node=lambda: 3, desc=lambda: "no  importer\nfor it")
    newer = SimpleNamespace(
        **vars(older), node_name=lambda: "pool/1", node_operator=lambda: "MaxRoiPool"
    )
    for version, error, place in (
        ("8.6.0", older, r"node number 3 \(operator unknown\)"),
        ("10.13.0", newer, r"node pool/1 \(MaxRoiPool\)"),
    ):
        made = library(version)
        made.module.parse_errors = [error]
        with pytest.raises(BundleError, match=place + ": no importer for it") as caught:
            build(made, plan())
        assert caught.value.exit_code == 4


def test_without_a_builder_the_driver_is_blamed() -> None:
    made = library("8.6.0")

    def nothing(logger: Any) -> Any:
        logger.log(Severity.WARNING, "CUDA initialization failure with error: 35.")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    made.module.Builder = nothing
    with pytest.raises(
        BackendUnavailableError, match=r"found no builder \(CUDA .* error: 35\.\).*nvidia-smi"
    ):
        build(made, plan())


def test_without_a_gpu_the_error_says_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Gpus(devices=(), why_none="no NVIDIA driver")
    monkeypatch.setattr("kits_runtime.engines.tensorrt.build.visible_gpus", lambda: none)
    with pytest.raises(
        BackendUnavailableError, match=r"no GPU .*no NVIDIA driver.*trt-rtx"
    ) as caught:
        build(library("8.6.0"), plan())
    assert caught.value.exit_code == 5


def test_tensorrt_builds_for_no_gpu_but_its_own() -> None:
    with pytest.raises(BackendUnavailableError, match=r"found compute capability SM86.*alone"):
        build(library("10.13.0"), plan(compute_capabilities=("SM86",)))


@pytest.mark.parametrize("version", VERSIONS)
def test_timings_are_kept_and_used_again(version: str, tmp_path: Path) -> None:
    kept = tmp_path / "deep" / "timings"
    for times in (1, 2):
        made = library(version)
        build(made, plan(timing_cache=kept))
        assert made.module.made[0].timings.content.count(b"+") >= times
    assert kept.read_bytes().startswith(b"+")
    assert sorted(path.name for path in kept.parent.iterdir()) == ["timings", "timings.lock"]


def test_timings_of_another_machine_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "timings"
    kept.write_bytes(b"foreign")
    made = library("8.6.0")
    build(made, plan(timing_cache=kept))
    assert made.module.made[0].timings.content.startswith(b"+")
    assert "another version, GPU or kind" in caplog.text


def _with_opset(version: int) -> bytes:
    import onnx

    model = onnx.load_from_string(ONNX)
    model.opset_import[0].version = version
    return bytes(model.SerializeToString())
