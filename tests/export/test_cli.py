"""``kits-export`` on the command line: exit codes, messages, and that nothing is left behind."""

from pathlib import Path

import pytest
import torch
from bundles import write_scan
from safetensors.torch import load_file
from torch import nn

from kits_export import targets
from kits_export.cli import main
from kits_runtime.bundle import open_bundle
from kits_runtime.engines.cuda_driver import Gpus
from kits_trt.nets import SYSTEM_NETS, SegmentationNet
from kits_trt.train.checkpoint import write_system_checkpoint

SYSTEM = "unet3d"


@pytest.fixture(scope="module")
def net() -> SegmentationNet:
    torch.manual_seed(0)
    return SYSTEM_NETS[SYSTEM]["unet"]["small"].build()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the bundle goes: a folder of its own, to see that nothing is left in it."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def checkpoint(path: Path, net: nn.Module) -> Path:
    assert isinstance(net, SegmentationNet)
    write_system_checkpoint(path, {"unet": net}, {"system": SYSTEM, "preset": "small"})
    return path


def ended(place: Path, *arguments: object) -> int:
    """The exit code of a run into an empty place, which must stay empty if it is not 0."""
    code = main([*map(str, arguments), "-o", str(place / "made.kits"), "-q"])
    assert code == 0 or not list(place.iterdir())
    return code


def test_a_checkpoint_becomes_a_verified_bundle(
    net: SegmentationNet, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(tmp_path / "best.safetensors", net)
    scan = write_scan(tmp_path / "scan.nii.gz")
    arguments = ["--ckpt", file, "--verify", scan, "--allow-unverified", "--precision", "fp32"]
    assert main([*map(str, arguments), "-o", str(place / "made"), "--no-progress"]) == 0
    manifest = open_bundle(place / "made").manifest
    assert (manifest.system, manifest.preset) == (SYSTEM, "small")
    weights = sum(value.numel() for value in net.parameters()) * 4
    assert manifest.nets["unet"].files["fp32"].bytes <= 1.05 * weights + (64 << 10)
    told = capsys.readouterr()
    assert not told.out
    assert told.err.splitlines()[0].split()[:2] == ["link", "of"]
    assert f"{place / 'made'}: unet3d small, 1 nets, verified" in told.err
    assert [path.name for path in place.iterdir()] == ["made"]
    assert main([*map(str, arguments), "-o", str(place / "made"), "-q"]) == 2


def test_a_truncated_checkpoint_ends_with_4(
    net: SegmentationNet, place: Path, tmp_path: Path
) -> None:
    file = checkpoint(tmp_path / "best.safetensors", net)
    file.write_bytes(file.read_bytes()[:-4])
    assert ended(place, "--ckpt", file) == 4
    assert ended(place, "--ckpt", tmp_path / "none.safetensors") == 4


def test_a_checkpoint_of_another_system_ends_with_4(
    net: SegmentationNet, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint(tmp_path / "best.safetensors", net)
    assert ended(place, "--ckpt", file, "--system", "unet2d-pair") == 4
    assert ended(place, "--ckpt", file, "--preset", "paper") == 4
    assert "found a checkpoint of unet3d small, expected unet3d paper" in capsys.readouterr().err


def test_a_plain_state_dict_of_missing_and_broken_tensors_ends_with_4(
    net: SegmentationNet, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = dict(net.state_dict())
    key = next(iter(state))
    file = tmp_path / "net.pt"
    plain = ("--system", SYSTEM, "--preset", "small", "--net", f"unet={file}")
    for change, said in (
        ({"renamed": state[key]}, f"{key}: missing tensor (found 'renamed' instead)"),
        ({key: torch.full_like(state[key], float("nan"))}, f"{key}: found"),
        ({key: torch.full_like(state[key], 7e4)}, f"unet/{key}: found 70000, expected at most"),
    ):
        broken = {**state, **change}
        if "renamed" in change:
            del broken[key]
        torch.save(broken, file)
        assert ended(place, *plain) == 4
        assert said in capsys.readouterr().err


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("touched"),))


def test_nothing_but_tensors_is_unpickled(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": _Harmful()}, tmp_path / "net.pt")
    plain = ("--system", SYSTEM, "--preset", "small", "--ckpt", tmp_path / "net.pt")
    assert ended(place, *plain, "--net", "unet") == 4
    assert not (tmp_path / "touched").exists()
    (tmp_path / "net.pt").write_bytes(b"no archive")
    assert ended(place, *plain, "--net", "unet") == 4


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--ckpt", "a.pt"],
        ["--net", "unet=a.pt"],
        ["--system", SYSTEM, "--preset", "small", "--net", "unet"],
        ["--system", SYSTEM, "--preset", "small", "--net", "liver=a.pt"],
        ["--system", SYSTEM, "--preset", "small", "--net", "unet=a.pt", "--net", "unet=b.pt"],
        ["--ckpt", "a.safetensors", "--compute-capability", "86"],
    ],
)
def test_options_that_make_no_sense_end_with_2(arguments: list[str], place: Path) -> None:
    assert ended(place, *arguments) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--targets", "onnx,gpu"],
        ["--max-disagree", "2"],
        ["--workspace", "-1"],
        ["--targets", "trt-rtx", "--compute-capability", "ampere"],
    ],
)
def test_values_that_nobody_knows_end_with_2(arguments: list[str], place: Path) -> None:
    with pytest.raises(SystemExit) as ending:
        ended(place, "--ckpt", "a.safetensors", *arguments)
    assert ending.value.code == 2


@pytest.mark.parametrize("target", ["trt", "trt-rtx"])
def test_engines_without_a_gpu_end_with_5_and_say_what_can_be_done(
    target: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(targets, "visible_gpus", lambda: Gpus(devices=(), why_none="no driver"))
    assert ended(place, "--ckpt", "a.safetensors", "--targets", target) == 5
    told = capsys.readouterr().err
    assert f"--targets {target}: found no GPU (no driver)" in told
    assert "--compute-capability 86,89" in told


def test_an_output_that_is_there_or_cannot_be_written_is_refused(
    net: SegmentationNet, place: Path, tmp_path: Path
) -> None:
    file = checkpoint(tmp_path / "best.safetensors", net)
    assert main(["--ckpt", str(file), "-o", str(file), "-q"]) == 2
    assert main(["--ckpt", str(file), "-o", str(file / "made"), "-q"]) == 1
    assert set(load_file(file)) == {f"unet/{key}" for key in net.state_dict()}
    assert not list(place.iterdir())
