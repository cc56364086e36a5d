"""What GPU engines do beyond the promises of all engines, in host memory."""

import ctypes

import nets
import numpy as np
import pytest
from host_device import HostDevice, open_like_cuda, open_like_tensorrt

from kits_runtime.engines import EngineOptions, NetSpec
from kits_runtime.engines.ort_cuda import open_session, require_provider
from kits_runtime.errors import BackendUnavailableError, EngineError

NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=1,
    out_channels=1,
    size_vox=(2, 3),
)
IDENTITY = nets.identity_net(1, size=(2, 3))


def windows(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(count).random(NET.input_shape(count), np.float32)


def test_each_call_launches_the_graph_of_its_batch_and_leftovers_use_that_of_one() -> None:
    device = HostDevice()
    options = EngineOptions(batch=4)
    with open_like_tensorrt(IDENTITY, NET, options, device=device) as engine:
        for count, launches in ((4, 1), (1, 1), (8, 2), (6, 3), (3, 3)):
            before = device.launches
            np.testing.assert_array_equal(engine.run(windows(count)), windows(count))
            assert device.launches - before == launches
        assert engine.spec.notes == ()


def test_work_that_cannot_be_recorded_runs_step_by_step_and_the_spec_says_so() -> None:
    device = HostDevice(records=False)
    with open_like_tensorrt(IDENTITY, NET, EngineOptions(batch=2), device=device) as engine:
        np.testing.assert_array_equal(engine.run(windows(5)), windows(5))
        first, second = engine.spec.notes
    assert device.launches == 0
    assert first.startswith("net tiny: batch 2 runs without a CUDA graph (GPU 0: cuStreamEndC")
    assert second.startswith("net tiny: batch 1 runs")


def test_a_session_s_run_is_recorded_at_its_first_windows_and_launched_afterwards() -> None:
    device = HostDevice()
    with open_like_cuda(IDENTITY, NET, EngineOptions(batch=4), device=device) as engine:
        # At the first windows of a size the recorded run is launched once, to compare.
        for count, launches in ((4, 1), (4, 1), (6, 2), (6, 2), (1, 1)):
            before = device.launches
            np.testing.assert_array_equal(engine.run(windows(count)), windows(count))
            assert device.launches - before == launches
        assert engine.spec.notes == ()


class Wrong(HostDevice):
    """Graphs that compute something else, or that the library cannot make."""

    def __init__(self, kind: str) -> None:
        super().__init__(records=kind != "refused")
        self.places: list[tuple[int, int]] = []

    def launch(self, graph: int) -> None:
        super().launch(graph)
        for address, size in self.places:
            ctypes.memset(address, 0, size)

    def allocate(self, size: int) -> int:
        address = super().allocate(size)
        self.places.append((address, size))
        return address


@pytest.mark.parametrize("kind", ["refused", "wrong"])
def test_a_session_without_a_good_graph_runs_step_by_step_and_the_spec_says_so(kind: str) -> None:
    device = Wrong(kind)
    with open_like_cuda(IDENTITY, NET, EngineOptions(batch=2), device=device) as engine:
        if kind == "wrong":
            device.places = device.places[1:]  # the graph spoils scores alone
        for _ in range(2):
            np.testing.assert_array_equal(engine.run(windows(2)), windows(2))
        (note,) = engine.spec.notes
    why = {"refused": "GPU 0: cuStreamEndC", "wrong": "the recorded run gave other scores"}[kind]
    assert note.startswith(f"net tiny: batch 2 runs without a CUDA graph ({why}")
    assert engine.spec.notes == (note,)
    assert device.launches == (kind == "wrong")


@pytest.mark.parametrize("batches", [(2, 1), (1,), (3,)])
def test_the_batches_are_those_that_the_engine_was_built_for(batches: tuple[int, ...]) -> None:
    with open_like_tensorrt(IDENTITY, NET, EngineOptions(batch=8), batches=batches) as engine:
        assert engine.spec.batch == batches[0]
        for count in (1, 2, 5):
            np.testing.assert_array_equal(engine.run(windows(count)), windows(count))


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_windows_on_the_device_are_computed_where_they_lie(batch: int) -> None:
    given, scores = windows(7), np.zeros((7, 1, 2, 3), np.float32)
    with open_like_tensorrt(IDENTITY, NET, EngineOptions(batch=batch)) as engine:
        engine.run_at(given.ctypes.data, scores.ctypes.data, 7)
    np.testing.assert_array_equal(scores, given)
    with pytest.raises(EngineError, match="closed"):
        engine.run_at(given.ctypes.data, scores.ctypes.data, 7)


def test_the_device_is_given_back_once_with_nothing_written_beyond_its_buffers() -> None:
    device = HostDevice()
    engine = open_like_tensorrt(IDENTITY, NET, EngineOptions(batch=4), device=device)
    engine.run(windows(7))
    engine.close()
    engine.close()
    assert device.closed == 1


def test_a_session_that_fell_back_to_the_processor_is_an_error() -> None:
    said = "came up with CPUExecutionProvider, expected CUDAExecutionProvider"
    with pytest.raises(BackendUnavailableError, match=said) as caught:
        require_provider(["CPUExecutionProvider"], "CUDAExecutionProvider")
    assert caught.value.exit_code == 5
    require_provider(["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider")


def test_onnxruntime_without_cuda_does_not_pass_for_ort_cuda() -> None:
    device = HostDevice()
    providers = [("CUDAExecutionProvider", {"device_id": "0"})]
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendUnavailableError, match="expected CUDAExecutionProvider"),
    ):
        open_session(IDENTITY, NET, EngineOptions(), device=device, providers=providers)
