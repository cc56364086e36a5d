"""The first run of an engine, in a process of its own: a crash there is an error here.

One window of known values is computed. Its scores must be finite and, where ONNX Runtime is
installed, near those of the net's file on the processor. That is a test for engines that are
broken; how close an engine really is, kits-export measures.

The process gets a folder with the engine and what to ask, and leaves the scores there.
"""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kits_runtime.engines.border import one_line
from kits_runtime.engines.cuda_memory import CudaDevice
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.ort_cpu import OrtCpuEngine
from kits_runtime.engines.protocol import Array, EngineOptions, EngineSpec, NetSpec
from kits_runtime.engines.tensorrt.library import Flavour, open_library
from kits_runtime.engines.tensorrt.running import TensorRtCompute
from kits_runtime.errors import EngineError, KitsError, ParityError

# Of the largest score: a chain of some fifty layers that each round at 2**-11 stays below 2**-5
# with fp16, at 2**-23 and with other orders of summing below 2**-10 with fp32. A wrong net is off
# by about 1.
_TOLERANCES = {"fp32": 2.0**-10, "fp16": 2.0**-4}
_ENGINE, _ASKED, _SCORES = "engine", "asked.json", "scores.npy"
_LONGEST_S = 300
_CHILD = f"from {__name__} import run_as_process; run_as_process()"


def tried(data: bytes, net: NetSpec, *, flavour: Flavour, device: int) -> Array:
    """The scores that an engine gives for ``trial_patches`` in a process of its own.

    Raises:
        EngineError: the process crashed, or the engine failed in it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _ENGINE).write_bytes(data)
        asked = {"flavour": flavour, "device": device, "net": dataclasses.asdict(net)}
        (folder / _ASKED).write_text(json.dumps(asked))
        run_apart([sys.executable, "-c", _CHILD, str(folder)], net)
        scores: Array = np.load(folder / _SCORES, allow_pickle=False)
    return scores


def run_apart(command: Sequence[str], net: NetSpec) -> None:
    """Run a trial's process to its end.

    Raises:
        EngineError: it did not end well.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"net {net.name}: the engine's first run took over {_LONGEST_S} s, expected an end; "
            "look at nvidia-smi for other programs"
        ) from error
    if done.returncode == 0:
        return
    last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
    found = f"'{one_line(RuntimeError(last[0]))}'"
    if done.returncode < 0:
        found = f"a crash ({signal.Signals(-done.returncode).name})"
    raise EngineError(
        f"net {net.name}: the engine's first run ended with {found}, expected scores; "
        "update the driver, or choose another backend"
    )


def check_trial(scores: Array, model: bytes, net: NetSpec, precision: str) -> None:
    """Check a trial's scores against the net's own file.

    Raises:
        EngineError: some are not finite.
        ParityError: they are not near those of ONNX Runtime on the processor.
    """
    if not np.isfinite(scores).all():
        raise EngineError(
            f"net {net.name}: the engine's first run gave scores that are not finite, expected all "
            "to be; run in fp32"
        )
    if importlib.util.find_spec("onnxruntime") is None:
        return
    with OrtCpuEngine.open(model, net, EngineOptions()) as reference:
        expected = reference.run(trial_patches(net))
    size = float(np.abs(expected).max()) or 1.0
    off, allowed = float(np.abs(scores - expected).max()) / size, _TOLERANCES[precision]
    if off > allowed:
        raise ParityError(
            f"net {net.name}: the engine's scores are off by {off:.2g} of the largest, expected at "
            f"most {allowed:.2g} in {precision}; update the driver, or choose another backend"
        )


def trial_patches(net: NetSpec) -> Array:
    """One window of values between 0 and 1, always the same."""
    random = np.random.default_rng(0)
    return random.random(net.input_shape(1), np.float32)


def main(folder: Path) -> None:
    """Computes what the folder asks for and leaves the scores there."""
    asked = json.loads((folder / _ASKED).read_text())
    net = NetSpec(**{**asked["net"], "size_vox": tuple(asked["net"]["size_vox"])})
    library = open_library(asked["flavour"])
    device = CudaDevice(asked["device"])
    compute = TensorRtCompute((folder / _ENGINE).read_bytes(), net, library=library, device=device)
    spec = EngineSpec(
        net=net,
        backend=library.flavour,
        precision="trial",
        batch=compute.batches[0],
        threads=1,
    )
    with GpuEngine(spec, device, compute) as engine:
        np.save(folder / _SCORES, engine.run(trial_patches(net)))


def run_as_process() -> None:
    """``main`` for the folder on the command line; a problem is the last line on stderr."""
    try:
        main(Path(sys.argv[1]))
    except KitsError as problem:
        sys.exit(str(problem))
