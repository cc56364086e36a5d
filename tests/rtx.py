"""The real tensorrt_rtx for tests, or the reason why they are skipped."""

import pytest

from kits_runtime.engines.tensorrt import Library, open_library
from kits_runtime.errors import BackendUnavailableError

REASON = 'tensorrt_rtx is not installed; pip install "kits-trt[trt-rtx]"'


def rtx_or_skip() -> Library:
    """The library; without its wheels the test is skipped, a broken one fails it."""
    try:
        return open_library("trt-rtx")
    except BackendUnavailableError as error:
        if "No module named" not in str(error):
            raise
        pytest.skip(REASON)
