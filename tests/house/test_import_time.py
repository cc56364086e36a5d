"""What `import kits_runtime` costs, alone and with all of its names."""

import subprocess
import sys
from collections.abc import Callable

LIMIT_S = 0.15
REPEATS = 7

# Timed inside each process, so that the start of Python and the noise of numpy's and nibabel's own
# import stay out of the difference; the first process warms the disk cache and compiles. It is the
# processor's time that counts: importing waits for nothing else once the disk cache is warm, and
# waiting for others is not its doing. The least of several is what the import itself costs.
TIMED = """
import time
import numpy, nibabel
start = time.process_time()
from kits_runtime import *
assert Segmenter.from_bundle
print(time.process_time() - start)
"""

# What a command may import before it can say how it ends.
LOADED = """
import sys
before = set(sys.modules)
import kits_runtime
print(*sorted(set(sys.modules) - before))
"""


def test_all_public_names_add_at_most_150_ms_to_numpy_and_nibabel(
    run_in: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    results = [run_in([sys.executable, "-c", TIMED]) for _ in range(1 + REPEATS)]
    assert {result.stderr for result in results} == {""}
    seconds = [float(result.stdout) for result in results][1:]
    assert min(seconds) <= LIMIT_S, seconds


def test_the_package_itself_imports_neither_its_modules_nor_a_library(
    run_in: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    result = run_in([sys.executable, "-c", LOADED])
    loaded = {name.partition(".")[0] for name in result.stdout.split()}
    assert result.stderr == ""
    assert loaded - sys.stdlib_module_names == {"kits_runtime"}
    assert not [name for name in result.stdout.split() if name.startswith("kits_runtime.")]
