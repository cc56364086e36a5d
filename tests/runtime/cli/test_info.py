import json
import struct
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from kits_runtime.cli import info
from kits_runtime.engines import choose

Start = Callable[..., "subprocess.Popen[str]"]
Told = tuple[int, str, str]


@pytest.fixture
def kits_info(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    def run(*arguments: object) -> Told:
        try:
            code = info.main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = int(ending.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    header = {
        "__metadata__": {"kits": '{"net": "msvnet", "preset": "small"}'},
        "stem.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "best.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    return path


def test_alone_it_tells_of_the_environment(kits_info: Callable[..., Told]) -> None:
    code, out, err = kits_info()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert f"  numpy: {np.__version__}" in lines
    assert f"  kits-trt: {metadata.version('kits-trt')}" in lines
    assert f"chosen: {choose.choose_backend().backend}" in lines
    place = lines.index("  trt")
    assert lines[place + 2] == "    why_not: not built into this version yet"


def test_the_environment_is_json_when_asked(kits_info: Callable[..., Told]) -> None:
    code, out, _ = kits_info("--json")
    facts = json.loads(out)
    assert code == 0
    assert set(facts["backends"]) == {row.name for row in choose.BACKENDS}
    assert facts["double_installs"] == list(choose.double_installs())


def test_packages_that_overwrite_each_other_are_told(
    kits_info: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kits_runtime.facts.double_installs", lambda: ("onnxruntime 1", "onnxruntime-gpu 2")
    )
    _, out, _ = kits_info()
    assert "double_installs: onnxruntime 1, onnxruntime-gpu 2" in out.splitlines()


def test_a_bundle_shows_its_card(kits_info: Callable[..., Told], one_stage: Path) -> None:
    code, out, _ = kits_info(one_stage)
    lines = out.splitlines()
    assert code == 0
    assert {"system: tiny", "preset: small", "labels: background, kidney, tumour"} <= set(lines)
    assert "  licence: Apache-2.0" in lines
    facts = json.loads(kits_info(one_stage, "--json")[1])
    assert facts["nets"]["net"]["files"]["fp32"]["bytes"] > 0
    assert facts["card"]["training_data"] == "none"


def test_a_checkpoint_shows_its_metadata_and_tensors(
    kits_info: Callable[..., Told], checkpoint: Path
) -> None:
    code, out, _ = kits_info(checkpoint)
    assert code == 0
    assert '  kits: {"net": "msvnet", "preset": "small"}' in out.splitlines()
    assert "  stem.weight: F32, [2, 3]" in out.splitlines()
    facts = json.loads(kits_info(checkpoint, "--json")[1])
    assert facts["tensors"] == {"stem.weight": ["F32", [2, 3]]}


def test_damaged_files_end_with_4_and_one_line(
    kits_info: Callable[..., Told], one_stage: Path, checkpoint: Path, tmp_path: Path
) -> None:
    content = bytearray(one_stage.read_bytes())
    content[content.index(b"GreaterOrEqual")] ^= 1
    flipped, short = tmp_path / "flipped.kits", tmp_path / "short.safetensors"
    flipped.write_bytes(content)
    short.write_bytes(checkpoint.read_bytes()[:-1])
    for path in (flipped, short, tmp_path / "gone.kits", tmp_path / "gone.safetensors"):
        code, out, err = kits_info(path)
        assert (code, out) == (4, "")
        assert err.startswith(f"kits-info: {path}: ")
        assert err.count("\n") == 1


def test_the_version_is_the_packages(kits_info: Callable[..., Told]) -> None:
    assert kits_info("--version")[1] == f"kits-info {metadata.version('kits-trt')}\n"


def test_two_paths_are_wrong_usage(kits_info: Callable[..., Told]) -> None:
    assert kits_info("a", "b")[0] == 2


PROBE = """
import atexit
engines = {"onnxruntime", "openvino", "tensorrt", "cupy", "torch", "onnx"}
atexit.register(lambda: print("loaded", sorted(engines & set(sys.modules)), file=sys.stderr))
"""


def test_no_engine_is_loaded_to_tell_of_them(in_process_of_its_own: Start, one_stage: Path) -> None:
    process = in_process_of_its_own("info", one_stage, "--json", before=PROBE)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "loaded []\n")
    assert json.loads(out)["bundle"] == str(one_stage)
    process = in_process_of_its_own("info", before=PROBE)
    assert process.communicate(timeout=120)[1] == "loaded []\n"


def test_paths_whose_bytes_are_no_utf8_are_shown(
    in_process_of_its_own: Start, one_stage: Path, tmp_path: Path
) -> None:
    odd = tmp_path / b"m\xfcller.kits".decode(errors="surrogateescape")
    odd.write_bytes(one_stage.read_bytes())
    process = in_process_of_its_own("info", odd)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"bundle: {tmp_path}/m\\udcfcller.kits\n")
