import os
import subprocess
import sys
from pathlib import Path

import pytest

from kits_runtime import KitsError
from kits_runtime.files import remove_abandoned, replacing, replacing_folder


def test_the_target_appears_when_the_block_ends_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as stream:
        stream.write(b"new")
        assert not target.exists()
        assert len(list(tmp_path.iterdir())) == 1
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write_half() -> None:
        with replacing(target) as stream:
            stream.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        with replacing(target) as stream:
            stream.write(b"new" * 9)
            stream.flush()
            assert target.read_bytes() == b"old"
        assert reader.read() == b"old"


@pytest.mark.parametrize("name", ["missing/file", "a" * 250])
def test_what_cannot_be_written_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with (
        pytest.raises(KitsError, match=r"found '(No such file|File name too long)") as caught,
        replacing(target),
    ):
        pass
    assert str(caught.value).startswith(f"{target}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(KitsError, match="directory"), replacing(tmp_path / "file") as stream:
        stream.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL = """
import resource, signal, sys
from pathlib import Path
from kits_runtime import KitsError
from kits_runtime.files import replacing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with replacing(Path(sys.argv[1])) as stream:
        stream.write(bytes(5000))
except KitsError as error:
    print(error)
"""


def test_a_file_that_may_not_grow_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file"
    ran = subprocess.run(
        [sys.executable, "-c", FULL, target],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.startswith(f"{target}: found 'File too large' while writing")
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_killed_write_of_these_names_left_is_removed(tmp_path: Path) -> None:
    left = [".a.nii.gz.0123abcd.part", ".a.json.ffffffff.part"]
    others = [
        ".b.nii.gz.0123abcd.part",
        ".a.nii.gz.0123abc.part",
        ".a.nii.gz.part",
        "a.nii.gz",
        "a.nii.gz.0123abcd.part",
    ]
    for name in (*left, *others):
        (tmp_path / name).touch()
    remove_abandoned(tmp_path, {"a.nii.gz", "a.json"})
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_what_a_killed_write_leaves_is_recognised(tmp_path: Path) -> None:
    writing = replacing(tmp_path / "a.nii.gz")
    writing.__enter__()  # as if the process ended here
    assert len(list(tmp_path.iterdir())) == 1
    remove_abandoned(tmp_path, {"a.nii.gz"})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KitsError):
        writing.__exit__(None, None, None)


def test_a_folder_appears_when_the_block_ends_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with replacing_folder(target) as part:
        (part / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_folder_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "folder"
    with replacing_folder(target) as part:
        (part / "file").write_text("old")

    def write_half() -> None:
        with replacing_folder(target) as part:
            (part / "file").write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert (target / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(("keep", "stays"), [(False, "second"), (True, "first")])
def test_a_folder_that_is_there_is_replaced_whole_or_kept(
    tmp_path: Path, keep: bool, stays: str
) -> None:
    target = tmp_path / "folder"
    for name in ("first", "second"):
        with replacing_folder(target, keep=keep) as part:
            (part / name).touch()
    assert [path.name for path in target.iterdir()] == [stays]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_is_one_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(KitsError, match="file/folder: found 'Not a directory' while writing"),
        replacing_folder(tmp_path / "file" / "folder"),
    ):
        pass
