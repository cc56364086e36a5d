"""How many windows go together, by hand for the published windows."""

import pytest

from kits_runtime.engines.batches import gpu_windows_a_call, windows_a_call


@pytest.mark.parametrize(
    ("window", "processor", "gpu"),
    [
        ((32, 128, 128), 1, 4),
        ((128, 128, 128), 1, 1),
        ((64, 256, 256), 1, 1),
        ((40, 128, 128), 1, 2),  # three would fit, but batches are halved to 1
        ((512, 512), 4, 4),
        ((128, 256), 4, 4),
    ],
)
def test_published_windows(window: tuple[int, ...], processor: int, gpu: int) -> None:
    assert (windows_a_call(window), gpu_windows_a_call(window)) == (processor, gpu)
