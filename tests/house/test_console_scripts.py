"""Every command that the distribution installs points to a function that exists."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
SCRIPTS: dict[str, str] = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_command_points_to_a_function(name: str) -> None:
    entry = EntryPoint(name=name, value=SCRIPTS[name], group="console_scripts")
    assert callable(entry.load())
