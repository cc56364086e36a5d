"""Every command that the distribution installs exists, and can be ended from its first moment."""

import os
import signal
import subprocess
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


# Loads a command as its script does, and runs it; the first import of an array library says so and
# then takes its time, in naps: a signal between two bytecodes does not end a sleep that follows.
SLOW = """
import sys, time
from importlib.metadata import EntryPoint
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("importing", flush=True)
            for _ in range(600):
                time.sleep(0.1)
sys.meta_path.insert(0, Slow())
try:
    sys.exit(EntryPoint(name="", value=sys.argv[1], group="console_scripts").load()())
except BaseException as error:
    if not isinstance(error, SystemExit):
        print("unwound", type(error).__name__, file=sys.stderr)
    raise
"""


def importing(name: str, folder: Path, *, before: str = "") -> "subprocess.Popen[str]":
    """A command that has begun to import its array library; what it may leave lies in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", before + SLOW, SCRIPTS[name]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    return process


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM], ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_signal_during_the_imports_is_one_line_and_130(
    name: str, kind: signal.Signals, tmp_path: Path
) -> None:
    process = importing(name, tmp_path)
    process.send_signal(kind)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, f"{name}: interrupted\n")


def test_a_signal_that_the_caller_ignores_stays_ignored_during_the_imports(
    tmp_path: Path,
) -> None:
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    process = importing("kits-infer", tmp_path, before=ignore)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 130
