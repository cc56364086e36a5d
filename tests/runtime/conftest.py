"""Bundles that are written once for all tests."""

from pathlib import Path

import pytest
from bundles import write_one_stage, write_two_stages


@pytest.fixture(scope="session")
def one_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_one_stage(tmp_path_factory.mktemp("bundles") / "one.kits")


@pytest.fixture(scope="session")
def two_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_stages(tmp_path_factory.mktemp("bundles") / "two.kits")
