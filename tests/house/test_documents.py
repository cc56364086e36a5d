"""The documents agree with the code and with each other."""

import re
from collections import Counter
from pathlib import Path

DECISION_PARTS = ("## Context", "## Decision", "## Consequences", "## Evidence")


def targets_in(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))


def make_commands_in(text: str) -> set[str]:
    """Returns the targets that a text tells its reader to make, in code marks or code blocks."""
    blocks = re.findall(r"^```.*?^```", text, flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", text)
    return set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(blocks + spans)))


def decisions(root: Path) -> list[Path]:
    return sorted((root / "docs" / "adr").glob("*.md"))


def test_every_make_command_in_the_documents_exists(root: Path) -> None:
    targets = targets_in((root / "Makefile").read_text())
    named = {
        f"{path.name}: make {target}"
        for path in root.glob("*.md")
        for target in make_commands_in(path.read_text()) - targets
    }
    assert named == set()


def test_make_commands_are_read_from_marks_and_blocks_only() -> None:
    text = "We make sense. Call `make one`, or:\n```\n$ make two-b X=1  # make three\n```\n"
    assert make_commands_in(text) == {"one", "two-b", "three"}


def test_readme_says_how_to_try_and_how_to_check(root: Path) -> None:
    assert {"demo", "test"} <= make_commands_in((root / "README.md").read_text())


def test_ci_calls_the_test_command_of_the_readme(root: Path) -> None:
    lines = (root / ".ci" / "run").read_text().splitlines()
    assert lines[-1] == "exec make test"
    assert (root / ".ci" / "run").stat().st_mode & 0o111


def test_every_decision_has_a_number_of_its_own(root: Path) -> None:
    numbers = Counter(path.name[:4] for path in decisions(root))
    assert [number for number, count in numbers.items() if count > 1] == []


def test_every_decision_is_named_number_and_title(root: Path) -> None:
    names = [path.name for path in decisions(root)]
    assert "0000-template.md" in names
    assert [n for n in names if not re.fullmatch(r"\d{4}(-[a-z0-9]+)+\.md", n)] == []


def test_every_decision_has_the_parts_of_the_template(root: Path) -> None:
    missing = [
        f"{path.name}: {part}"
        for path in decisions(root)
        for part in DECISION_PARTS
        if part not in path.read_text().splitlines()
    ]
    assert missing == []


def test_changelog_keeps_what_is_coming_and_the_schema_apart(root: Path) -> None:
    lines = (root / "CHANGELOG.md").read_text().splitlines()
    assert "## [Unreleased]" in lines
    assert "### Manifest schema" in lines


def test_hooks_need_no_download(root: Path) -> None:
    hooks = (root / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    assert set(re.findall(r"language: (\S+)", hooks)) == {"system"}
