"""What a report is made of, apart from how it is written: sections of paragraphs and tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kits_bench.figures import Interval

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph; a warning is shown in a box of its own."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of cells as they are shown; the first cell of a row names it.

    A row of two cells in a wider table says in its second why it has no figures.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        """Refuse rows that do not fit their columns."""
        for row in self.rows:
            if len(row) not in (2, len(self.columns)):
                raise ValueError(
                    f"{self.title}: found {len(row)} cells, expected {len(self.columns)}"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing as SVG, and what it shows; Markdown has the caption alone."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Questions and what the records answer."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Lines for a shell."""

    lines: tuple[str, ...]


Part: TypeAlias = Text | Table | Figure | Answers | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole: a title, the story in one sentence, what must be known first, and sections."""

    title: str
    story: str
    first: tuple[Text, ...]
    sections: tuple[Section, ...]


def figure(value: float) -> str:
    """A number to three significant digits; above a thousand without a point."""
    if not math.isfinite(value) or not value:
        return f"{value:g}"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 1000:
        return f"{value:.0f}"
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def duration(ms: float) -> str:
    """Milliseconds as one reads them: seconds from one second on."""
    return f"{figure(ms / 1e3)} s" if abs(ms) >= 999.5 else f"{figure(ms)} ms"


def share(value: float) -> str:
    """A share as percent."""
    return f"{figure(100 * value)} %"


def ratio(interval: Interval | Facts) -> str:
    """A ratio and the 95 % interval around it; one measurement alone has none."""
    known = interval if isinstance(interval, Interval) else Interval(**interval)
    value, low, high = (figure(n) for n in (known.value, known.low, known.high))
    return f"{value} x ({low} to {high})" if known.is_known else f"{value} x"


def times(interval: Interval) -> str:
    """The same in words."""
    value, low, high = (figure(n) for n in (interval.value, interval.low, interval.high))
    told = f"{value} times as long"
    return f"{told} (95 % interval {low} to {high})" if interval.is_known else told


def counted(count: int, name: str) -> str:
    """So many of something."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def listed(names: list[str] | tuple[str, ...]) -> str:
    """Names with commas and an 'and'."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
