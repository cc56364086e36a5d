"""A report as one HTML page that needs nothing but itself."""

import re
from collections.abc import Iterator
from html import escape

from kits_bench.report.blocks import Answers, Code, Figure, Part, Report, Section, Table, Text
from kits_bench.report.style import STYLE

_LONG_FROM = 40  # characters
_TALL_FROM = 30  # rows; longer tables scroll in their box, but not on paper


def page(report: Report) -> str:
    """The page's text."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    title = escape(report.title)
    yield from (
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{title}</title>",
        f"<style>\n{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{title}</h1>",
        f'<p class="story">{escape(report.story)}</p>',
    )
    yield from (_part(text) for text in report.first)
    yield _contents(report.sections)
    for section in report.sections:
        yield f'<section id="{_id(section.title)}">\n<h2>{escape(section.title)}</h2>'
        yield from (_part(part) for part in section.parts)
        yield "</section>"
    yield "</main>\n</body>\n</html>"


def _contents(sections: tuple[Section, ...]) -> str:
    items = "".join(
        f'<li><a href="#{_id(section.title)}">{escape(section.title)}</a></li>'
        for section in sections
    )
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _part(part: Part) -> str:
    if isinstance(part, Text):
        return f'<p class="{"warning" if part.warning else "plain"}">{escape(part.text)}</p>'
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Figure):
        caption = escape(part.caption)
        return f"<figure>{part.svg}<figcaption>{caption}</figcaption></figure>"
    if isinstance(part, Code):
        return f'<pre tabindex="0"><code>{escape(chr(10).join(part.lines))}</code></pre>'
    assert isinstance(part, Answers)
    pairs = (f"<dt>{escape(asked)}</dt><dd>{escape(told)}</dd>" for asked, told in part.pairs)
    return f"<dl>{''.join(pairs)}</dl>"


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{_left(table, place)}>{escape(name)}</th>'
        for place, name in enumerate(table.columns)
    )
    wide = len(table.columns)
    rows = "\n".join(f"<tr>{_cells(row, wide)}</tr>" for row in table.rows)
    box = "box tall" if len(table.rows) > _TALL_FROM else "box two" if wide == 2 else "box"
    title = escape(table.title)
    return (
        f'<div class="{box}" role="region" tabindex="0" aria-label="{title}"><table>\n'
        f"<caption>{title}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(row: tuple[str, ...], wide: int) -> str:
    first, *rest = row
    if len(row) < wide:
        why = f'<td class="why" colspan="{wide - 1}"><div>{escape(rest[0])}</div></td>'
        return f'<th scope="row">{escape(first)}</th>{why}'
    cells = [f'<th scope="row">{escape(first)}</th>']
    cells += [f"<td{_class(cell)}>{escape(cell)}</td>" for cell in rest]
    return "".join(cells)


def _left(table: Table, place: int) -> str:
    """The heading of a column of text stands where the text begins."""
    full = (row for row in table.rows if len(row) == len(table.columns))
    return ' class="left"' if any(len(row[place]) > _LONG_FROM for row in full) else ""


def _class(cell: str) -> str:
    """Long text may wrap, shorter text on paper; figures may not."""
    return ' class="long"' if len(cell) > _LONG_FROM else ' class="mid"' if len(cell) > 12 else ""


def _id(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
