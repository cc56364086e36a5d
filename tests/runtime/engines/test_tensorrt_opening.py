"""Engines are tried before they are trusted, once on each machine."""

import sys
from pathlib import Path

import nets
import numpy as np
import pytest
from tensorrt_stand_ins import stand_in

from kits_runtime.engines import EngineOptions, NetSpec
from kits_runtime.engines.cuda_driver import Gpu, Gpus
from kits_runtime.engines.tensorrt import Library, build, opening
from kits_runtime.engines.tensorrt.opening import Place, engine_for, open_tensorrt
from kits_runtime.engines.tensorrt.trial import check_trial, run_apart, trial_patches
from kits_runtime.errors import BackendUnavailableError, EngineError, ParityError

NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=1,
    out_channels=2,
    size_vox=(4, 4),
)
MODEL = nets.conv_softmax_net(
    np.ones((2, 1, 1, 1), np.float32), np.zeros(2, np.float32), size=(4, 4)
)
HALF_EACH = np.full(NET.output_shape(1), 0.5, np.float32)
GPU = Gpu(
    index=0,
    name="NVIDIA A",
    compute_capability=(8, 6),
    memory_mib=8192,
    driver="580.65",
    cuda="13.2",
)


def test_a_process_that_crashes_is_an_error_and_not_the_end_of_ours() -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(EngineError, match=r"first run ended with a crash \(SIGSEGV\), expected"):
        run_apart([sys.executable, "-c", crash], NET)


def test_what_a_failed_trial_says_is_passed_on() -> None:
    failing = "import sys; sys.exit('no such symbol')"
    with pytest.raises(EngineError, match="ended with 'no such symbol', expected scores"):
        run_apart([sys.executable, "-c", failing], NET)
    run_apart([sys.executable, "-c", "pass"], NET)


def test_a_trial_where_no_driver_is_says_so_in_one_line() -> None:
    """The real child, as far as a machine without a GPU lets it go."""
    with pytest.raises(EngineError, match="the engine's first run ended with '") as caught:
        opening.tried(MODEL, NET, flavour="trt", device=0)
    assert "tensorrt cannot be imported" in str(caught.value)


def test_scores_of_a_trial_are_held_against_those_of_the_file() -> None:
    check_trial(HALF_EACH, MODEL, NET, "fp32")
    near = HALF_EACH + np.float32(0.01)
    check_trial(near, MODEL, NET, "fp16")
    with pytest.raises(
        ParityError, match=r"off by 0\.02 of the largest, expected at most 0\.00098"
    ):
        check_trial(near, MODEL, NET, "fp32")
    broken = HALF_EACH.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(EngineError, match="not finite"):
        check_trial(broken, MODEL, NET, "fp16")


def test_the_window_of_a_trial_is_always_the_same() -> None:
    patches = trial_patches(NET)
    np.testing.assert_array_equal(patches, trial_patches(NET))
    assert 0 <= patches.min() < patches.max() < 1


def place(driver: str = "580.65") -> Place:
    gpu = Gpu(
        index=0,
        name="NVIDIA A",
        compute_capability=(8, 6),
        memory_mib=8192,
        driver=driver,
        cuda="13.2",
    )
    return Place(library=Library(flavour="trt", module=stand_in("10.13.0")), gpu=gpu)


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The engines that were tried; each gives the right scores."""
    seen: list[bytes] = []

    def tried(data: bytes, *_args: object, **_named: object) -> object:
        seen.append(data)
        return HALF_EACH

    monkeypatch.setattr(opening, "tried", tried)
    monkeypatch.setattr(build, "visible_gpus", lambda: Gpus(devices=(GPU,)))
    return seen


def test_an_engine_is_built_and_tried_once_and_then_comes_from_the_cache(
    tmp_path: Path, trials: list[bytes]
) -> None:
    options = EngineOptions(engine_cache=tmp_path / "engines", batch=2)
    here = place()
    for _ in range(2):
        data = engine_for(MODEL, NET, options, place=here, precision="fp32")
        assert data == b"engine"
    assert trials == [b"engine"]
    assert len(here.library.module.made) == 1


def test_an_engine_that_fails_its_trial_is_tried_again_next_time(
    tmp_path: Path, trials: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = EngineOptions(engine_cache=tmp_path / "engines")
    here = place()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(opening, "tried", lambda *_a, **_n: HALF_EACH * 3)
            with pytest.raises(ParityError):
                engine_for(MODEL, NET, options, place=here, precision="fp32")
    engine_for(MODEL, NET, options, place=here, precision="fp32")
    assert trials == [b"engine"]
    assert len(here.library.module.made) == 1


def test_without_a_cache_an_engine_is_built_and_tried_each_time(trials: list[bytes]) -> None:
    here = place()
    for _ in range(2):
        engine_for(MODEL, NET, EngineOptions(), place=here, precision="fp32")
    assert len(trials) == len(here.library.module.made) == 2


def test_bf16_and_a_gpu_that_is_not_here_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="bf16 was asked for, expected fp32 or fp16"):
        open_tensorrt("trt", MODEL, NET, EngineOptions(precision="bf16"))
    monkeypatch.setattr(opening, "open_library", lambda _flavour: place().library)
    monkeypatch.setattr(opening, "visible_gpus", lambda: Gpus(devices=(GPU,)))
    with pytest.raises(BackendUnavailableError, match=r"found no GPU 3 \(1 here\), expected one"):
        open_tensorrt("trt", MODEL, NET, EngineOptions(device=3))
