"""What every engine promises, checked on both CPU engines and on GPU engines in host memory."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import nets
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from host_device import open_like_cuda, open_like_tensorrt

from kits_runtime.engines import Engine, EngineOptions, NetSpec, choose, open_engine, ort_cpu
from kits_runtime.errors import (
    BackendUnavailableError,
    EngineError,
    EngineIncompatibleError,
)

Array = npt.NDArray[np.float32]
Open = Callable[..., Engine]


@pytest.fixture(params=["ort-cpu", "openvino", "ort-cuda", "trt"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    on_host = {"ort-cuda": open_like_cuda, "trt": open_like_tensorrt}
    rows = [
        replace(row, why_not=lambda: None, open=on_host[row.name]) if row.name in on_host else row
        for row in choose.BACKENDS
    ]
    monkeypatch.setattr(choose, "BACKENDS", tuple(rows))
    return str(request.param)


@pytest.fixture
def open_fp32(backend: str) -> Open:
    def opener(model: bytes | Path, net: NetSpec, batch: int = 1) -> Engine:
        options = EngineOptions(batch=batch, threads=1, precision="fp32")
        return open_engine(model, net, backend=backend, options=options)

    return opener


def spec(size: tuple[int, ...], *, channels: tuple[int, int] = (1, 1)) -> NetSpec:
    return NetSpec(
        name="tiny",
        input_name=nets.INPUT,
        output_name=nets.OUTPUT,
        in_channels=channels[0],
        out_channels=channels[1],
        size_vox=size,
    )


def weights_of(seed: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    weights = random.standard_normal(shape).astype(np.float32)
    return weights, random.standard_normal(shape[0]).astype(np.float32)


def patches_of(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def expected_scores(patches: Array, weights: Array, bias: Array) -> npt.NDArray[np.float64]:
    """Softmax of a zero-padded correlation, as a sum over the kernel's offsets in float64."""
    kernel, size = weights.shape[2:], patches.shape[2:]
    room = [(0, 0), (0, 0), *((length // 2, length // 2) for length in kernel)]
    padded = np.pad(patches.astype(np.float64), room)
    sums = np.zeros((len(patches), len(weights), *size)) + bias.reshape(1, -1, *(1 for _ in size))
    for offset in product(*(range(length) for length in kernel)):
        shifted = padded[
            (..., *(slice(o, o + length) for o, length in zip(offset, size, strict=True)))
        ]
        sums += np.einsum("oi,ni...->no...", weights[(..., *offset)], shifted)
    raised = np.exp(sums - sums.max(axis=1, keepdims=True))
    scores: npt.NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return scores


@pytest.mark.parametrize(
    ("kernel", "size", "channels"),
    [((3, 3), (5, 7), (5, 3)), ((3, 3, 3), (4, 5, 6), (2, 3)), ((1, 3, 5), (1, 4, 8), (1, 2))],
)
def test_scores_are_those_of_numpy_in_two_and_three_dimensions(
    open_fp32: Open,
    kernel: tuple[int, ...],
    size: tuple[int, ...],
    channels: tuple[int, int],
) -> None:
    weights, bias = weights_of(1, (channels[1], channels[0], *kernel))
    model = nets.conv_softmax_net(weights, bias, size=size)
    patches = patches_of(2, (3, channels[0], *size))
    with open_fp32(model, spec(size, channels=channels), batch=2) as engine:
        scores = engine.run(patches)
    # Sums of at most 45 products of numbers near 1, so float32 keeps six digits.
    np.testing.assert_allclose(scores, expected_scores(patches, weights, bias), atol=2e-6)
    assert scores.dtype == np.float32


def test_threshold_classes_are_one_hot_and_begin_at_their_threshold(open_fp32: Open) -> None:
    model = nets.threshold_net([0.0, 2.0], size=(1, 4), in_channels=2, channel=1)
    patches = np.zeros((1, 2, 1, 4), np.float32)
    patches[0, 1, 0] = [-1.0, 0.0, 1.5, 2.0]
    with open_fp32(model, spec((1, 4), channels=(2, 3))) as engine:
        scores = engine.run(patches)
    assert scores[0, :, 0].tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("windows", [0, 1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("file_batch", ["n", 3])
def test_any_number_of_windows_gives_each_window_its_own_scores(
    open_fp32: Open, windows: int, file_batch: int | str
) -> None:
    model = nets.identity_net(2, size=(3, 2, 4), batch=file_batch)
    patches = patches_of(windows, (windows, 2, 3, 2, 4))
    with open_fp32(model, spec((3, 2, 4), channels=(2, 2)), batch=4) as engine:
        assert engine.spec.batch == (4 if file_batch == "n" else 3)
        np.testing.assert_array_equal(engine.run(patches), patches)


def test_scores_belong_to_the_caller_and_patches_stay_as_they_were(open_fp32: Open) -> None:
    model = nets.identity_net(1, size=(4, 4))
    first, second = patches_of(1, (2, 1, 4, 4)), patches_of(2, (2, 1, 4, 4))
    given = first.copy()
    with open_fp32(model, spec((4, 4)), batch=2) as engine:
        scores = engine.run(first)
        engine.run(second)
    np.testing.assert_array_equal(scores, given)
    np.testing.assert_array_equal(first, given)
    assert not np.shares_memory(scores, first)
    assert scores.flags.owndata
    assert scores.flags.writeable


@pytest.mark.parametrize("kind", ["fortran", "strided", "read-only", "unaligned"])
def test_memory_order_of_patches_does_not_matter(open_fp32: Open, kind: str) -> None:
    patches = patches_of(3, (2, 2, 4, 6))
    if kind == "fortran":
        given = np.asfortranarray(patches)
    elif kind == "strided":
        given = np.repeat(patches, 2, axis=3)[..., ::2]
    elif kind == "read-only":
        given = patches.copy()
        given.flags.writeable = False
    else:
        raw = np.zeros(patches.nbytes + 1, np.uint8)
        given = raw[1:].view(np.float32).reshape(patches.shape)
        given[...] = patches
    with open_fp32(nets.identity_net(2, size=(4, 6)), spec((4, 6), channels=(2, 2)), 2) as engine:
        np.testing.assert_array_equal(engine.run(given), patches)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((1, 1, 4, 5)), "float64 (1, 1, 4, 5)"),
        (np.zeros((1, 1, 4, 5), ">f4"), ">f4 (1, 1, 4, 5)"),
        (np.zeros((1, 4, 5), np.float32), "float32 (1, 4, 5)"),
        (np.zeros((1, 2, 4, 5), np.float32), "float32 (1, 2, 4, 5)"),
        (np.zeros((1, 1, 5, 4), np.float32), "float32 (1, 1, 5, 4)"),
        (np.zeros((), np.float32), "float32 ()"),
    ],
)
def test_patches_that_do_not_fit_are_refused_with_found_and_expected(
    open_fp32: Open, wrong: Array, found: str
) -> None:
    with open_fp32(nets.identity_net(1, size=(4, 5)), spec((4, 5))) as engine:
        with pytest.raises(ValueError, match="tiny") as caught:
            engine.run(wrong)
        assert f"{found}, expected float32 (n, 1, 4, 5)" in str(caught.value)


def test_scores_that_are_not_finite_are_an_error_naming_the_net(open_fp32: Open) -> None:
    patches = np.full((3, 1, 2, 2), np.e, np.float32)
    with open_fp32(nets.unary_net("Log", size=(2, 2)), spec((2, 2)), batch=2) as engine:
        np.testing.assert_allclose(engine.run(patches), 1.0, atol=1e-6)
        patches[2, 0, 1, 1] = -1.0
        with pytest.raises(EngineError, match=r"net tiny.*1 of 12 scores are not finite"):
            engine.run(patches)


def test_scores_near_the_largest_float_are_finite(open_fp32: Open) -> None:
    patches = np.full((1, 1, 2, 2), 3e38, np.float32)
    with open_fp32(nets.identity_net(1, size=(2, 2)), spec((2, 2))) as engine:
        np.testing.assert_array_equal(engine.run(patches), patches)


def test_a_file_gives_the_same_scores_as_its_bytes(open_fp32: Open, tmp_path: Path) -> None:
    weights, bias = weights_of(4, (2, 1, 3, 3))
    model = nets.conv_softmax_net(weights, bias, size=(6, 6))
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model)
    patches, net = patches_of(5, (2, 1, 6, 6)), spec((6, 6), channels=(1, 2))
    with open_fp32(model, net) as from_bytes, open_fp32(path, net) as from_path:
        np.testing.assert_array_equal(from_bytes.run(patches), from_path.run(patches))


def test_free_spatial_axes_are_filled_by_the_spec(open_fp32: Open) -> None:
    weights, bias = weights_of(6, (2, 1, 3, 3, 3))
    model = nets.conv_softmax_net(weights, bias, size=("z", "y", "x"))
    patches = patches_of(7, (1, 1, 3, 4, 5))
    with open_fp32(model, spec((3, 4, 5), channels=(1, 2))) as engine:
        scores = engine.run(patches)
    np.testing.assert_allclose(scores, expected_scores(patches, weights, bias), atol=2e-6)


def test_a_closed_engine_refuses_to_run_and_closes_twice(open_fp32: Open) -> None:
    patches = np.zeros((1, 1, 2, 2), np.float32)
    engine = open_fp32(nets.identity_net(1, size=(2, 2)), spec((2, 2)))
    with engine as entered:
        entered.run(patches)
    with pytest.raises(EngineError, match=r"net tiny .* closed, expected an open one"):
        engine.run(patches)
    engine.close()
    assert engine.spec.net.name == "tiny"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input_name": "volume"}, "no tensor 'volume' but 'patches', expected"),
        ({"output_name": "classes"}, "no tensor 'classes' but 'scores', expected"),
        ({"in_channels": 3}, "'patches' is float32 (free, 2, 4, 5), expected float32 or float16 "),
        ({"out_channels": 3}, "'scores' is float32 (free, 2, 4, 5), expected"),
        ({"size_vox": (4, 6)}, "expected float32 or float16 (n, 2, 4, 6)"),
        ({"size_vox": (1, 4, 5)}, "expected float32 or float16 (n, 2, 1, 4, 5)"),
    ],
)
def test_a_file_that_does_not_fit_the_spec_is_refused_naming_the_tensor(
    open_fp32: Open, change: dict[str, object], said: str
) -> None:
    net = replace(spec((4, 5), channels=(2, 2)), **change)  # type: ignore[arg-type]
    with pytest.raises(EngineIncompatibleError) as caught:
        open_fp32(nets.identity_net(2, size=(4, 5)), net)
    assert said in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_second_input_and_integer_scores_are_refused(open_fp32: Open) -> None:
    with pytest.raises(EngineIncompatibleError, match=r"2 inputs .*'more'"):
        open_fp32(nets.two_input_net(size=(2, 2)), spec((2, 2)))
    with pytest.raises(EngineIncompatibleError, match=r"'scores' is .*i.*64.* expected float32"):
        open_fp32(nets.class_index_net(size=(2, 2)), spec((2, 2), channels=(2, 1)))


def test_scores_of_another_size_never_pass_as_scores(open_fp32: Open) -> None:
    with (
        pytest.raises(EngineError, match="net tiny"),
        open_fp32(nets.shrinking_net(size=(4, 4)), spec((4, 4))) as engine,
    ):
        engine.run(np.zeros((1, 1, 4, 4), np.float32))


def test_openvino_sees_scores_of_another_size_when_it_opens() -> None:
    said = r"'scores' is float32 \(1, 1, 2, 2\), expected float32 or float16 \(n, 1, 4, 4\)"
    with pytest.raises(EngineIncompatibleError, match=said):
        open_engine(nets.shrinking_net(size=(4, 4)), spec((4, 4)), backend="openvino")


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "missing"])
def test_a_damaged_file_is_refused_in_one_line(
    open_fp32: Open, tmp_path: Path, damage: str
) -> None:
    whole = nets.identity_net(1, size=(2, 2))
    model = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "text": b"not a net at all",
        "missing": tmp_path / "absent.onnx",
    }[damage]
    with pytest.raises(EngineIncompatibleError, match=r"net tiny: .* cannot load") as caught:
        open_fp32(model, spec((2, 2)))
    assert "\n" not in str(caught.value)


def test_half_stored_weights_give_the_scores_of_their_rounded_values(open_fp32: Open) -> None:
    weights, bias = weights_of(8, (3, 2, 3, 3))
    patches = patches_of(9, (2, 2, 6, 7))
    model = nets.conv_softmax_net(weights, bias, size=(6, 7), stored="half")
    with open_fp32(model, spec((6, 7), channels=(2, 3)), batch=2) as engine:
        scores = engine.run(patches)
    rounded = (weights.astype(np.float16).astype(np.float32), bias.astype(np.float16))
    np.testing.assert_allclose(
        scores, expected_scores(patches, rounded[0], rounded[1].astype(np.float32)), atol=2e-6
    )
    assert np.abs(scores - expected_scores(patches, weights, bias)).max() > 1e-5


def test_a_float16_file_takes_and_gives_float32(open_fp32: Open) -> None:
    weights, bias = weights_of(8, (3, 2, 3, 3))
    patches = patches_of(9, (3, 2, 6, 7))
    model = nets.conv_softmax_net(weights, bias, size=(6, 7), stored="float16")
    with open_fp32(model, spec((6, 7), channels=(2, 3)), batch=2) as engine:
        scores = engine.run(patches)
    assert scores.dtype == np.float32
    # Patches, weights and sums round at 2**-11; 18 products of numbers near 1 stay below 2**-6.
    np.testing.assert_allclose(scores, expected_scores(patches, weights, bias), atol=2**-6)


def test_onnxruntime_says_that_patches_beyond_half_precision_do_not_fit() -> None:
    weights, bias = weights_of(8, (2, 1, 1, 1))
    model = nets.conv_softmax_net(weights, bias, size=(2, 2), stored="float16")
    with (
        open_engine(model, spec((2, 2), channels=(1, 2)), backend="ort-cpu") as engine,
        pytest.raises(EngineError, match="patches reach 70000, expected at most 65504"),
    ):
        engine.run(np.full((1, 1, 2, 2), 7e4, np.float32))


def test_onnxruntime_folds_the_casts_of_half_stored_weights(tmp_path: Path) -> None:
    onnxruntime = ort_cpu.import_onnxruntime()
    weights, bias = weights_of(8, (3, 2, 3, 3))
    model = nets.conv_softmax_net(weights, bias, size=(6, 7), stored="half")
    options = ort_cpu.session_options(onnxruntime, threads=1)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    before = [node.op_type for node in onnx.load_from_string(model).graph.node]
    after = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert before.count("Cast") == 2
    assert "Cast" not in after


def test_two_threads_get_their_own_answers(open_fp32: Open) -> None:
    model = nets.identity_net(1, size=(16, 16))
    wrong: list[int] = []

    def ask(engine: Engine, seed: int) -> None:
        for turn in range(40):
            patches = patches_of(1000 * seed + turn, (1 + turn % 4, 1, 16, 16))
            if not np.array_equal(engine.run(patches), patches):
                wrong.append(turn)

    with open_fp32(model, spec((16, 16)), batch=3) as engine:
        threads = [threading.Thread(target=ask, args=(engine, seed)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_openvino_runs_calls_beside_each_other_when_asked_to() -> None:
    weights, bias = weights_of(12, (2, 1, 3, 3))
    model, net = (
        nets.conv_softmax_net(weights, bias, size=(64, 64)),
        spec((64, 64), channels=(1, 2)),
    )
    given = [patches_of(seed, (1, 1, 64, 64)) for seed in range(24)]
    one, two = (EngineOptions(threads=2, precision="fp32", at_once=n, batch=1) for n in (1, 2))

    with (
        open_engine(model, net, backend="openvino", options=one) as alone,
        open_engine(model, net, backend="openvino", options=two) as engine,
        ThreadPoolExecutor(4) as pool,
    ):
        assert (alone.spec.at_once, engine.spec.at_once) == (1, 2)
        for patches, scores in zip(given, pool.map(engine.run, given), strict=True):
            np.testing.assert_allclose(scores, alone.run(patches), atol=1e-6)
    with pytest.raises(EngineError, match="closed"):
        engine.run(given[0])


def test_bf16_differs_from_fp32_by_no_more_than_its_rounding() -> None:
    weights, bias = weights_of(10, (3, 2, 3, 3, 3))
    model = nets.conv_softmax_net(weights, bias, size=(6, 6, 6))
    net, patches = spec((6, 6, 6), channels=(2, 3)), patches_of(11, (1, 2, 6, 6, 6))
    try:
        engine = open_engine(
            model, net, backend="openvino", options=EngineOptions(precision="bf16", threads=1)
        )
    except BackendUnavailableError as error:
        pytest.skip(f"the processor has no bf16: {error}")
    with engine:
        assert engine.spec.precision == "bf16"
        scores = engine.run(patches)
    exact = expected_scores(patches, weights, bias)
    # Patches and weights round at 2**-9: 54 random products of size 1 and a rounded sum of size 7
    # give about 0.03, a score changes by at most half of that, and four times that is never seen.
    assert np.abs(scores - exact).max() < 0.06
    # Exact fp32 stays a thousand times closer, so a smaller difference means that bf16 is not on.
    assert np.abs(scores - exact).max() > 1e-4


def test_the_spec_tells_what_the_engine_really_is(backend: str) -> None:
    options = EngineOptions(batch=2, threads=1, precision="fp32")
    with open_engine(
        nets.identity_net(1, size=(2, 2)), spec((2, 2)), backend=backend, options=options
    ) as engine:
        told = engine.spec
    package = {"openvino": "openvino", "trt": "trt"}.get(backend, "onnxruntime")
    assert (told.backend, told.precision, told.batch, told.threads) == (backend, "fp32", 2, 1)
    assert [name for name, version in told.versions if version[0].isdigit()] == [package]


def test_a_precision_that_the_backend_lacks_is_an_error_not_a_fallback() -> None:
    model, net = nets.identity_net(1, size=(2, 2)), spec((2, 2))
    with pytest.raises(BackendUnavailableError, match=r"bf16 was asked for.*fp32") as caught:
        open_engine(model, net, backend="ort-cpu", options=EngineOptions(precision="bf16"))
    assert caught.value.exit_code == 5


def test_a_cache_folder_keeps_scores_and_precision(tmp_path: Path) -> None:
    weights, bias = weights_of(12, (2, 1, 3, 3))
    model = nets.conv_softmax_net(weights, bias, size=(8, 8))
    net, patches = spec((8, 8), channels=(1, 2)), patches_of(13, (1, 1, 8, 8))

    def scores(precision: str, cache: Path | None) -> Array:
        options = EngineOptions(precision=precision, cache_dir=cache)  # type: ignore[arg-type]
        with open_engine(model, net, backend="openvino", options=options) as engine:
            return engine.run(patches)

    scores("auto", tmp_path)
    assert list(tmp_path.iterdir())
    np.testing.assert_array_equal(scores("fp32", tmp_path), scores("fp32", None))
    np.testing.assert_array_equal(scores("auto", tmp_path), scores("auto", None))
