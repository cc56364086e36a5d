from pathlib import Path

import pytest

from kits_runtime import ScanError
from kits_runtime.cases import find_cases


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(source: Path) -> list[tuple[str, Path]]:
    return [(case.name, case.scan) for case in find_cases(source)]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_is_one_case_named_without_its_endings(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    assert found(tmp_path / name) == [("a", tmp_path / name)]


def test_dots_in_a_name_stay(tmp_path: Path) -> None:
    touch(tmp_path / "1.2.840.nii.gz")
    assert found(tmp_path / "1.2.840.nii.gz")[0][0] == "1.2.840"


def test_a_folder_is_its_scans_in_order_of_names(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b.nii", "a.nii.gz", ".c.nii", "notes.csv", "d/e.nii")))
    assert found(tmp_path) == [("a", tmp_path / "a.nii.gz"), ("b", tmp_path / "b.nii")]


def test_a_kits_folder_is_its_cases_named_by_their_folders(tmp_path: Path) -> None:
    for name in ("case_00002", "case_00001"):
        touch(tmp_path / name / "imaging.nii.gz", tmp_path / name / "segmentation.nii.gz")
    touch(tmp_path / "kits.json", tmp_path / "case_00003" / "segmentation.nii.gz")
    assert found(tmp_path) == [
        (name, tmp_path / name / "imaging.nii.gz") for name in ("case_00001", "case_00002")
    ]


def test_one_kits_case_is_named_by_its_folder_however_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = tmp_path / "case_00007" / "imaging.nii.gz"
    touch(scan)
    assert found(scan) == [("case_00007", scan)]
    assert found(scan.parent) == [("case_00007", scan)]
    monkeypatch.chdir(scan.parent)
    assert found(Path("imaging.nii.gz"))[0][0] == "case_00007"
    assert found(Path())[0][0] == "case_00007"


def test_a_list_names_scans_beside_it_or_anywhere_in_its_own_order(tmp_path: Path) -> None:
    listing = tmp_path / "cases.txt"
    listing.write_text(f"\ufeff# two\nsub/b.nii\n\n  {tmp_path}/a.nii.gz  \nkits/imaging.nii.gz\n")
    assert found(listing) == [
        ("b", tmp_path / "sub" / "b.nii"),
        ("a", tmp_path / "a.nii.gz"),
        ("kits", tmp_path / "kits" / "imaging.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.nii", "a.nii.gz"], r"several scans named 'a'"),
        (["notes.txt"], r"found no scan, expected \.nii or \.nii\.gz files, or a KiTS folder"),
    ],
)
def test_folders_that_are_no_input_say_why(tmp_path: Path, names: list[str], expected: str) -> None:
    touch(*(tmp_path / name for name in names))
    with pytest.raises(ScanError, match=expected):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# nothing\n\n", "found no line"),
        (b"a.nii\nsub/a.nii.gz\n", "several scans named 'a'"),
        (b"caf\xe9.nii\n", "found byte 0xe9 at 3, expected UTF-8"),
    ],
)
def test_lists_that_are_no_input_say_why(tmp_path: Path, content: bytes, expected: str) -> None:
    listing = tmp_path / "cases.txt"
    listing.write_bytes(content)
    with pytest.raises(ScanError, match=expected):
        find_cases(listing)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"gone\.nii: no such file"):
        find_cases(tmp_path / "gone.nii")


def test_what_cannot_be_looked_into_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ScanError, match=r"found 'Permission denied', expected"):
        find_cases(tmp_path)
