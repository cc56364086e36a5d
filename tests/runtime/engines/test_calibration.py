"""Which batch is best by a clock that is set by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kits_runtime.engines.calibration import best_batch, kept_batch


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
