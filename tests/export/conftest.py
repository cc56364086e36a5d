"""One export of each net for all tests here."""

from collections.abc import Iterator

import pytest
from exported_nets import cached_onnx_from_net

from kits_export import sides


@pytest.fixture(scope="session", autouse=True)
def _cached_exporter() -> Iterator[None]:
    """Bundles are made of graphs that were exported once in this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "onnx_from_net", cached_onnx_from_net)
        yield
