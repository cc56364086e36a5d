"""Which batch is best by a clock that is set by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from host_device import engine_of

from kits_runtime.engines import NetSpec
from kits_runtime.engines.calibration import best_batch, calibrate, kept_batch


class Watch:
    """Runs take as long as they are told; the first of each batch takes ten times as long."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self.now = 0.0
        self._seconds = seconds
        self._warm: set[int] = set()

    def run(self, batch: int) -> None:
        self.now += self._seconds[batch] * (1 if batch in self._warm else 10)
        self._warm.add(batch)


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing gained
        ({1: 1.0, 2: 1.96, 4: 3.9}, 1),  # less than can be told from noise
        ({1: 1.0, 2: 1.2, 4: 2.38}, 2),
        ({1: 1.0, 2: 1.2, 4: 1.6}, 4),
    ],
)
def test_the_smallest_batch_near_the_best_time_a_window_is_taken(
    seconds: Mapping[int, float], best: int
) -> None:
    watch = Watch(seconds)
    assert best_batch(list(seconds), watch.run, lambda: watch.now) == best


def test_a_measured_batch_is_kept_for_this_machine(tmp_path: Path) -> None:
    path, measured = tmp_path / "net.batch", []

    def measure(answer: int) -> Callable[[], int]:
        def run() -> int:
            measured.append(answer)
            return answer

        return run

    assert kept_batch(path, "A", measure(4)) == 4
    assert kept_batch(path, "A", measure(8)) == 4
    assert kept_batch(path, "B", measure(2)) == 2
    path.write_text("{")
    assert kept_batch(path, "B", measure(1)) == 1
    path.write_text('{"machine": "B", "batch": 0}')
    assert kept_batch(path, "B", measure(16)) == 16
    assert measured == [4, 2, 1, 16]


NET = NetSpec(
    name="tiny",
    input_name="patches",
    output_name="scores",
    in_channels=1,
    out_channels=1,
    size_vox=(2, 2),
)


def test_an_engine_takes_the_batch_that_was_best_here_and_still_all_windows(
    tmp_path: Path,
) -> None:
    watch = Watch({1: 1.0, 2: 1.2, 4: 2.4})
    asked: list[int] = []

    def net(patches: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        asked.append(len(patches))
        watch.run(len(patches))
        return patches

    folder = tmp_path / "engines"
    for tries in (12, 0):  # three batches, each four times; then it is known
        engine = engine_of(NET, net, (4, 3, 2, 1))
        asked.clear()
        calibrate(engine, folder, model=b"net", machine="A", clock=lambda: watch.now)
        assert len(asked) == tries
        assert (engine.batches, engine.spec.batch) == ((2, 1), 2)
        asked.clear()
        patches = np.arange(20, dtype=np.float32).reshape(5, 1, 2, 2)
        np.testing.assert_array_equal(engine.run(patches), patches)
        assert asked == [2, 2, 1]


def test_an_engine_of_one_batch_is_not_measured(tmp_path: Path) -> None:
    engine = engine_of(NET, lambda patches: patches, (3,))
    calibrate(engine, tmp_path, model=b"net", machine="A", clock=lambda: 0.0)
    assert engine.batches == (3,)
    assert list(tmp_path.iterdir()) == []
