"""A report as Markdown."""

import re
from collections.abc import Iterator

from kits_bench.report.blocks import Answers, Code, Figure, Part, Report, Table, Text


def markdown(report: Report) -> str:
    """The report's text; drawings are named by their captions and stand in the HTML page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield from (f"# {plain(report.title)}", "", f"**{plain(report.story)}**")
    for text in report.first:
        yield from ("", _part(text))
    for section in report.sections:
        yield from ("", f"## {plain(section.title)}")
        for part in section.parts:
            yield from ("", _part(part))


def _part(part: Part) -> str:
    if isinstance(part, Text):
        return f"> **Note.** {plain(part.text)}" if part.warning else plain(part.text)
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Figure):
        return f"*Drawn in report.html: {plain(part.caption)}*"
    if isinstance(part, Code):
        return "\n".join(("```", *part.lines, "```"))
    assert isinstance(part, Answers)
    return "\n".join(f"- **{plain(asked)}** {plain(told)}" for asked, told in part.pairs)


def _table(table: Table) -> str:
    wide = len(table.columns)
    rows = [table.columns, *((*row, *[""] * (wide - len(row))) for row in table.rows)]
    lines = ["| " + " | ".join(plain(cell) for cell in row) + " |" for row in rows]
    rule = "| " + " | ".join("---" for _ in table.columns) + " |"
    return "\n".join((f"### {plain(table.title)}", "", lines[0], rule, *lines[1:]))


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
