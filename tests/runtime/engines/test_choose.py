"""Which backend is chosen, what is said about it, and that choosing stays light and silent."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

import nets
import numpy as np
import pytest

from kits_runtime.engines import (
    BACKENDS,
    Choice,
    EngineOptions,
    NetSpec,
    choose,
    choose_backend,
    double_installs,
    open_engine,
)
from kits_runtime.engines.choose import package_missing
from kits_runtime.engines.cuda_driver import Gpu, Gpus
from kits_runtime.errors import BackendUnavailableError

ROOT = Path(__file__).parents[3]
NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=1,
    out_channels=1,
    size_vox=(2, 2),
)


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in packages else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_auto_prefers_openvino_and_rejects_nothing_before_it() -> None:
    choice = choose_backend()
    assert (choice.backend, choice.rejected) == ("openvino", ())
    assert choice.reason


def test_auto_says_why_it_passed_a_better_backend_over(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "openvino")
    choice = choose_backend("auto")
    assert choice.backend == "ort-cpu"
    assert choice.rejected == (("openvino", "the package openvino is not installed"),)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("openvino", "openvino", "kits-trt[openvino]"),
        ("ort-cpu", "onnxruntime", "kits-trt[cpu]"),
        ("auto", "openvino", "kits-trt[openvino]"),
    ],
)
def test_a_backend_that_is_not_installed_is_an_error_naming_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    hide(monkeypatch, "openvino", "onnxruntime")
    with pytest.raises(BackendUnavailableError) as caught:
        choose_backend(name)
    assert f"the package {package} is not installed" in str(caught.value)
    assert f'pip install "{extra}"' in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_folder_left_behind_by_an_uninstall_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "leftover_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_missing("leftover_package") == "the package leftover_package is not installed"
    assert package_missing("numpy") is None


@pytest.mark.parametrize("module", ["openvino", "onnxruntime"])
def test_a_package_that_cannot_be_imported_is_an_error_naming_the_extra(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    backend, extra = {"openvino": ("openvino", "openvino"), "onnxruntime": ("ort-cpu", "cpu")}[
        module
    ]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError, match=rf"kits-trt\[{extra}\]") as caught:
        open_engine(
            nets.identity_net(1, size=(2, 2)), NET, backend=Choice(backend=backend, reason="")
        )
    assert caught.value.exit_code == 5


GPU = Gpu(
    index=0,
    name="NVIDIA A",
    compute_capability=(8, 6),
    memory_mib=8192,
    driver="580.65",
    cuda="13.2",
)
EVERYTHING = {"tensorrt": "10.13.0", "tensorrt_rtx": "1.7", "onnxruntime-gpu": "1.31.0"}


def machine(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, installed: dict[str, str] = EVERYTHING
) -> None:
    """A machine with this GPU and of the packages for GPUs only those."""
    real = importlib.util.find_spec
    hidden = {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        if name in hidden:
            return ModuleSpec(name, None, origin=name) if name in installed else None
        return real(name, package)

    def version(package: str) -> str:
        if package in installed:
            return installed[package]
        raise metadata.PackageNotFoundError(package)

    devices = () if gpu is None else (gpu,)
    why_none = None if gpu else "no NVIDIA driver: libcuda.so.1 cannot be loaded"
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(choose, "visible_gpus", lambda: Gpus(devices=devices, why_none=why_none))


def test_with_a_gpu_auto_prefers_trt_then_trt_rtx_then_ort_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = dict(EVERYTHING)
    for package, backend in (
        ("tensorrt", "trt"),
        ("tensorrt_rtx", "trt-rtx"),
        ("onnxruntime-gpu", "ort-cuda"),
    ):
        machine(monkeypatch, GPU, left)
        assert choose_backend().backend == choose_backend(device="cuda").backend == backend
        del left[package]
    machine(monkeypatch, GPU, left)
    choice = choose_backend()
    assert choice.backend == "openvino"
    assert [name for name, _ in choice.rejected] == ["trt", "trt-rtx", "ort-cuda"]
    with pytest.raises(BackendUnavailableError, match="none can run here"):
        choose_backend(device="cuda")


def test_the_wheels_of_tensorrt_rtx_are_known_by_their_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, GPU, {"tensorrt_rtx_bindings": "1.7"})
    assert choose_backend().backend == "trt-rtx"


def test_the_processor_is_used_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, GPU)
    assert choose_backend(device="cpu").backend == "openvino"
    with pytest.raises(BackendUnavailableError, match="backend trt: does not run on cpu"):
        choose_backend("trt", device="cpu")
    with pytest.raises(BackendUnavailableError, match="backend ort-cpu: does not run on cuda"):
        choose_backend("ort-cpu", device="cuda")


@pytest.mark.parametrize("name", ["trt", "trt-rtx", "ort-cuda"])
def test_packages_without_a_driver_are_no_gpu(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch, None)
    with pytest.raises(BackendUnavailableError, match=f"backend {name}: no NVIDIA driver") as said:
        choose_backend(name)
    assert said.value.exit_code == 5
    assert choose_backend().rejected == ()


@pytest.mark.parametrize(
    ("name", "capability", "tensorrt", "why"),
    [
        ("trt", (7, 0), "10.13.0", "NVIDIA A is SM70, older than SM75"),
        ("trt", (7, 0), "8.6.1", None),
        ("trt-rtx", (7, 0), "10.13.0", "NVIDIA A is SM70, older than SM75"),
        ("trt-rtx", (7, 5), "10.13.0", None),
    ],
)
def test_a_gpu_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    capability: tuple[int, int],
    tensorrt: str,
    why: str | None,
) -> None:
    gpu = replace(GPU, compute_capability=capability)
    machine(monkeypatch, gpu, {**EVERYTHING, "tensorrt": tensorrt})
    row = next(row for row in BACKENDS if row.name == name)
    assert row.why_not() == why


def test_two_onnxruntimes_over_each_other_keep_ort_cuda_from_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, GPU, {**EVERYTHING, "onnxruntime": "1.31.1"})
    said = "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.0 overwrite each other"
    with pytest.raises(BackendUnavailableError, match=said):
        choose_backend("ort-cuda")


def test_an_unknown_name_lists_the_allowed_ones() -> None:
    names = ", ".join(row.name for row in BACKENDS)
    with pytest.raises(ValueError, match=f"'tensorflow', expected one of auto, {names}"):
        choose_backend("tensorflow")


def test_a_choice_or_a_name_or_nothing_opens_an_engine() -> None:
    model, patches = nets.identity_net(1, size=(2, 2)), np.ones((1, 1, 2, 2), np.float32)
    options = EngineOptions(threads=1)
    with (
        open_engine(model, NET, backend=choose_backend("ort-cpu"), options=options) as chosen,
        open_engine(model, NET, backend="ort-cpu", options=options) as named,
        open_engine(model, NET, options=options) as automatic,
    ):
        assert chosen.spec == named.spec
        assert (chosen.spec.backend, automatic.spec.backend) == ("ort-cpu", "openvino")
        np.testing.assert_array_equal(chosen.run(patches), automatic.run(patches))


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({}, ()),
        ({"onnxruntime": "1.31.1"}, ()),
        ({"onnxruntime-gpu": "1.30.0"}, ()),
        (
            {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.30.0"},
            ("onnxruntime 1.31.1", "onnxruntime-gpu 1.30.0"),
        ),
    ],
)
def test_two_packages_that_overwrite_each_other_are_reported(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], expected: tuple[str, ...]
) -> None:
    def version(package: str) -> str:
        if package in installed:
            return installed[package]
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    assert double_installs() == expected


def in_new_process(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT / "runtime"), str(ROOT / "tests")])
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**kept, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_and_choosing_load_no_engine_library() -> None:
    done = in_new_process(
        "import sys, kits_runtime.engines as engines\n"
        "engines.choose_backend(); engines.double_installs(); engines.usable_cores()\n"
        "heavy = {'onnxruntime', 'openvino', 'openvino_telemetry', 'torch', 'onnx', 'tensorrt'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("backend", ["ort-cpu", "openvino"])
def test_an_engine_reports_to_nobody_and_leaves_nothing_in_the_home_folder(
    tmp_path: Path, backend: str
) -> None:
    model, home = tmp_path / "tiny.onnx", tmp_path / "home"
    model.write_bytes(nets.identity_net(1, size=(2, 2)))
    home.mkdir()
    done = in_new_process(
        "import sys, pathlib, numpy as np\n"
        "def hook(event, _arguments):\n"
        "    if event.startswith(('socket.', 'os.fork', 'os.posix_spawn', 'subprocess.')):\n"
        "        print('reached out:', event, file=sys.stderr)\n"
        "from kits_runtime.engines import NetSpec, open_engine\n"
        "sys.addaudithook(hook)\n"
        "net = NetSpec(name='tiny', input_name='patches', output_name='scores', in_channels=1,\n"
        "              out_channels=1, size_vox=(2, 2))\n"
        f"with open_engine(pathlib.Path({str(model)!r}), net, backend={backend!r}) as engine:\n"
        "    assert engine.run(np.ones((1, 1, 2, 2), np.float32)).sum() == 4\n",
        HOME=str(home),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
