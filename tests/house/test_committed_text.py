"""What is committed names no path of one machine, no package host and no private document."""

import re
from pathlib import Path

import pytest

# A character class around one letter keeps each pattern from matching its own source.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.)}*~-])/(?:home|root|Users|work|tmp|opt|mnt)/[\w.$<{]",
    "a package host": r"(?i)py[p]i|pythonhoste[d]|anacond[a]\.|download\.pytorc[h]|devp[i]\b",
    "a private document": r"\.\./share[d]|DESIG[N]\.md|STYL[E]\.md|BRIE[F]\.md",
}


def findings(text: str) -> list[str]:
    return [
        f"line {number}: {what}: {match[0]}"
        for what, pattern in FORBIDDEN.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in [re.search(pattern, line)]
        if match
    ]


def text_of(path: Path) -> str:
    """Returns a file's text; nothing for a file that is not text."""
    content = path.read_bytes()
    return "" if b"\0" in content else content.decode(errors="replace")


def test_no_committed_file_names_what_is_forbidden(root: Path, own_files: list[Path]) -> None:
    found = [
        f"{path.relative_to(root)}, {finding}"
        for path in own_files
        for finding in findings(text_of(path))
    ]
    assert found == []


def test_the_scan_sees_the_repository(root: Path, own_files: list[Path]) -> None:
    seen = {path for path in own_files if text_of(path)}
    assert {root / "pyproject.toml", root / "Makefile", Path(__file__)} <= seen


@pytest.mark.parametrize(
    "words",
    [
        ("open('/", "home", "/someone/scan.nii')"),
        ("see /", "tmp", "/out"),
        ("--index-url https://", "py", "pi", ".example"),
        ("files.", "python", "hosted", ".org"),
        ("as ..", "/sha", "red/x says"),
        ("DES", "IGN.md"),
    ],
)
def test_forbidden_text_is_noticed(words: tuple[str, ...]) -> None:
    assert len(findings("fine\n" + "".join(words))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "#!/usr/bin/env bash",
        "docs/work/plan.md",
        "$(VENV)/opt/x",
        "/dev/null",
        "https://a.b/home/c",
    ],
)
def test_ordinary_text_passes(text: str) -> None:
    assert findings(text) == []
