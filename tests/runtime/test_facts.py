import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kits_runtime import BundleError
from kits_runtime.engines import choose
from kits_runtime.facts import checkpoint_facts, environment_facts, facts_of

TENSORS = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def write_checkpoint(path: Path, header: Any, *, data: int = 32) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    return path


def test_a_checkpoint_tells_its_metadata_and_tensors(tmp_path: Path) -> None:
    header = {"__metadata__": {"kits": '{"net": "resunet3d"}'}, **TENSORS}
    path = write_checkpoint(tmp_path / "best.safetensors", header)
    assert facts_of(path) == {
        "checkpoint": str(path),
        "metadata": {"kits": '{"net": "resunet3d"}'},
        "tensors": {"a": ["F32", [2, 3]], "b": ["F16", [4]]},
    }


def test_what_the_safetensors_library_writes_is_understood(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    library.save_file({"w": np.zeros((3, 4), np.float32)}, path, metadata={"who": "me"})
    facts = checkpoint_facts(path)
    assert facts["tensors"] == {"w": ["F32", [3, 4]]}
    assert facts["metadata"] == {"who": "me"}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (TENSORS, 31),
        (TENSORS, 33),
        (b"not json", 0),
        (b"[1]", 0),
        (b"\xff\xfe", 0),
        (b"[" * 100_000, 0),
        ({"a": 5}, 0),
        ({"a": {"dtype": "F32"}}, 0),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, 4),
    ],
)
def test_damaged_checkpoints_are_refused_in_one_sentence(
    tmp_path: Path, header: Any, data: int
) -> None:
    path = write_checkpoint(tmp_path / "x.safetensors", header, data=data)
    with pytest.raises(BundleError, match=r"found .*, expected a safetensors checkpoint\. Check"):
        checkpoint_facts(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x01", b"\xff" * 8 + b"{}", struct.pack("<Q", 50) + b"{}"]
)
def test_files_too_short_for_their_header_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected a safetensors checkpoint"):
        checkpoint_facts(path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found No such file or directory"):
        facts_of(tmp_path / "gone.safetensors")


def test_a_bundle_tells_its_card_and_that_all_files_are_whole(one_stage: Path) -> None:
    facts = facts_of(one_stage)
    with zipfile.ZipFile(one_stage) as archive:
        assert set(facts["verified_files"]) == set(archive.namelist())  # type: ignore[call-overload]
    assert (facts["system"], facts["labels"]) == ("tiny", ["background", "kidney", "tumour"])
    assert facts["card"]["intended_use"] == "tests"  # type: ignore[index]
    json.dumps(facts)


def test_a_bundle_with_a_flipped_byte_is_refused(one_stage: Path, tmp_path: Path) -> None:
    content = bytearray(one_stage.read_bytes())
    content[content.index(b"GreaterOrEqual")] ^= 1
    damaged = tmp_path / "damaged.kits"
    damaged.write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        facts_of(damaged)


def test_the_environment_says_of_each_backend_whether_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts: Any = environment_facts()
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["processors"] >= 1
    assert list(facts["backends"]) == [row.name for row in choose.BACKENDS]
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda _: None)
    facts = environment_facts()
    assert facts["backends"]["openvino"]["why_not"] == "the package openvino is not installed"
    assert facts["chosen"] is None
    json.dumps(facts)


def test_the_environment_names_the_backend_that_auto_takes() -> None:
    assert environment_facts()["chosen"] == choose.choose_backend().backend
