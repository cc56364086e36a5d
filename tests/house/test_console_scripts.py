"""Every command that the distribution installs points to a function that exists."""

import importlib.util
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


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


@pytest.mark.parametrize("name", SCRIPTS)
def test_command_points_to_a_function(name: str) -> None:
    entry = EntryPoint(name=name, value=SCRIPTS[name], group="console_scripts")
    if not is_there(entry.module):
        pytest.skip(f"{entry.module} is not here")
    assert callable(entry.load())
