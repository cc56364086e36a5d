"""The values of the protocol, the fake engine and the count of cores."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kits_runtime.engines import EngineOptions, EngineSpec, FakeEngine, NetSpec, usable_cores
from kits_runtime.errors import EngineError

Array = npt.NDArray[np.float32]
NET = NetSpec(
    name="fake-net",
    input_name="in",
    output_name="out",
    in_channels=1,
    out_channels=2,
    size_vox=(2, 3),
)
SPEC = EngineSpec(net=NET, backend="trt", precision="fp32", batch=2, threads=1)


def two_classes(patches: Array) -> Array:
    return np.concatenate([patches, -patches], axis=1)


def test_shapes_put_windows_first_then_channels() -> None:
    assert NET.input_shape(4) == (4, 1, 2, 3)
    assert NET.output_shape(5) == (5, 2, 2, 3)


@pytest.mark.parametrize("size", [(), (4,), (1, 2, 3, 4), (0, 4), (4, -1)])
def test_a_window_has_two_or_three_axes_of_at_least_one_voxel(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"net odd: .*size_vox"):
        NetSpec(
            name="odd",
            input_name="in",
            output_name="out",
            in_channels=1,
            out_channels=1,
            size_vox=size,
        )


def test_options_refuse_values_outside_their_range() -> None:
    with pytest.raises(ValueError, match="batch is 0, expected at least 1"):
        EngineOptions(batch=0)
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        EngineOptions(threads=0)
    with pytest.raises(ValueError, match="'int8', expected one of auto, fp32, bf16, fp16"):
        EngineOptions(precision="int8")  # type: ignore[arg-type]


def test_the_fake_engine_deals_windows_out_in_calls_of_at_most_its_batch() -> None:
    calls: list[int] = []

    def counted(patches: Array) -> Array:
        calls.append(len(patches))
        return two_classes(patches)

    patches = np.arange(30, dtype=np.float32).reshape(5, 1, 2, 3)
    with FakeEngine(SPEC, counted) as engine:
        scores = engine.run(patches)
    assert calls == [2, 2, 1]
    np.testing.assert_array_equal(scores[:, 0], patches[:, 0])
    np.testing.assert_array_equal(scores[:, 1], -patches[:, 0])


def test_the_fake_engine_never_passes_for_a_real_one() -> None:
    assert FakeEngine(SPEC, two_classes).spec.backend == "fake"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda patches: patches, r"\(1, 1, 2, 3\), expected \(1, 2, 2, 3\)"),
        (lambda patches: two_classes(patches)[0], r"\(2, 2, 3\), expected \(1, 2, 2, 3\)"),
        (lambda patches: two_classes(patches) + np.nan, "12 of 12 scores are not finite"),
        (lambda patches: two_classes(patches) / np.float32(0), "12 of 12 scores are not finite"),
    ],
)
def test_wrong_answers_of_a_function_are_errors_naming_the_net(function: object, said: str) -> None:
    patches = np.ones((1, 1, 2, 3), np.float32)
    with (
        np.errstate(divide="ignore"),
        FakeEngine(SPEC, function) as engine,  # type: ignore[arg-type]
        pytest.raises(EngineError, match=f"fake-net.*{said}"),
    ):
        engine.run(patches)


def test_a_closed_fake_engine_refuses_to_run() -> None:
    with FakeEngine(SPEC, two_classes) as engine:
        pass
    with pytest.raises(EngineError, match="fake-net on fake: the engine is closed"):
        engine.run(np.zeros((1, 1, 2, 3), np.float32))


def topology(folder: Path, siblings: dict[int, str]) -> Path:
    for cpu, text in siblings.items():
        file = folder / f"cpu{cpu}/topology/thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("allowed", "granted", "expected"),
    [
        ({0, 1, 2, 3}, None, 2),
        ({0, 2}, None, 1),
        ({0, 1}, None, 2),
        ({0, 1, 2, 3}, "100000 100000", 1),
        ({0, 1, 2, 3}, "50000 100000", 1),
        ({0, 1, 2, 3}, "900000 100000", 2),
        ({0, 1, 2, 3}, "max 100000", 2),
    ],
)
def test_cores_are_physical_allowed_and_within_the_quota(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: set[int],
    granted: str | None,
    expected: int,
) -> None:
    # Two cores of two hyper-threads each: processors 0 and 2 share one, 1 and 3 the other.
    folder = topology(tmp_path / "cpu", {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"})
    quota = tmp_path / "cpu.max"
    if granted is not None:
        quota.write_text(granted + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: allowed)
    assert usable_cores(folder, quota) == expected


def test_without_a_topology_every_processor_counts_as_a_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 5})
    assert usable_cores(tmp_path, tmp_path / "absent") == 3
