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
from kits_runtime.engines.engine_cache import EngineCache
from kits_runtime.engines.engine_record import Built, EngineKey

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
    assert lines[place + 2] == "    why_not: the package tensorrt is not installed"


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


def keep_an_engine(folder: Path, onnx_sha256: str) -> Path:
    key = EngineKey(
        net="net",
        onnx_sha256=onnx_sha256,
        flavour="trt",
        library="0.0",
        gpu="no such GPU",
        compute_capability="SM00",
        driver="1",
        profile="1x1x4x4",
        precision="fp16",
        options="{}",
    )
    EngineCache(folder=folder).get_or_build(key, lambda: Built(data=b"1"), report=lambda _: None)
    return folder / f"{key.stem()}.engine"


def test_kept_engines_are_listed_from_where_the_environment_says(
    kits_info: Callable[..., Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITS_CACHE", str(tmp_path))
    path = keep_an_engine(tmp_path / "engines", "ab" * 32)
    _, out, _ = kits_info()
    lines = out.splitlines()
    assert f"  folder: {tmp_path / 'engines'}" in lines
    place = lines.index(f"    {path.name}")
    assert lines[place + 1] == "      used_here: False"
    assert json.loads(kits_info("--json")[1])["engine_cache"]["bytes"] == 1
    elsewhere = json.loads(kits_info("--json", "--cache", tmp_path / "none")[1])
    assert elsewhere["engine_cache"]["engines"] == {}


def test_one_engine_or_a_folder_of_them_says_whether_it_is_used_here(
    kits_info: Callable[..., Told], tmp_path: Path
) -> None:
    path = keep_an_engine(tmp_path, "ab" * 32)
    code, out, _ = kits_info(path)
    assert code == 0
    assert "used_here: False" in out.splitlines()
    facts = json.loads(kits_info(path, "--json")[1])
    assert facts["engine"] == str(path)
    assert facts["differs"].keys() >= {"library", "compute_capability"}
    assert facts["differs"]["library"]["engine"] == "0.0"
    listed = json.loads(kits_info(tmp_path, "--json")[1])["engines"][path.name]
    assert listed["differs"] == facts["differs"]


def test_a_bundle_beside_an_engine_says_whether_it_is_of_its_nets(
    kits_info: Callable[..., Told], tmp_path: Path, one_stage: Path
) -> None:
    manifest = json.loads(kits_info(one_stage, "--json")[1])
    own = keep_an_engine(tmp_path, manifest["nets"]["net"]["files"]["fp32"]["sha256"])
    other = keep_an_engine(tmp_path, "ab" * 32)
    told = [
        json.loads(kits_info(path, "--bundle", one_stage, "--json")[1])["differs"]
        for path in (own, other)
    ]
    assert ["onnx_sha256" in differs for differs in told] == [False, True]


def test_an_engine_that_is_none_has_exit_code_4(
    kits_info: Callable[..., Told], tmp_path: Path
) -> None:
    code, out, err = kits_info(tmp_path / "x.engine")
    assert (code, out) == (4, "")
    assert "found no engine with a readable record" in err
