"""The few shapes that the plots are drawn with, as SVG text."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 400
CHARACTER = 6.8  # width of an 11 px character, on average


def element(name: str, inside: str = "", **attributes: object) -> str:
    """One element; attributes' underscores become hyphens, their numbers short."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{told}>{inside}</{name}>" if inside else f"<{name}{told}/>"


def label(text: str, x: float, y: float, *, end: str = "start", class_: str = "t") -> str:
    """A line of text; ``end`` is its anchor."""
    return element("text", escape(text), x=x, y=y, text_anchor=end, class_=class_)


def picture(title: str, told: str, height: float, parts: Sequence[str]) -> str:
    """A whole drawing that says what it is to those who do not see it."""
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    head = element("title", escape(title), id=f"{name}-title")
    head += element("desc", escape(told), id=f"{name}-desc")
    return element(
        "svg",
        head + "".join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {_short(height)}",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def legend(names: Sequence[str], draw: Callable[[int, float, float], str]) -> tuple[str, float]:
    """A legend from the top, and the height it takes; ``draw`` draws the sign of a row."""
    parts = []
    for place, name in enumerate(names):
        y = 14 + 16 * place
        parts.append(draw(place, 4, y) + label(name, 26, y))
    return "".join(parts), 16.0 * len(names) + 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Values along pixels, evenly or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, here = self.low, self.high, value
        if self.log:
            low, high, here = math.log10(low), math.log10(high), math.log10(value)
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round values between the ends."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return tuple(10.0**power for power in range(first, last + 1))
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return tuple(n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1))


def linear_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis from 0 to a round value above all."""
    most = max(values, default=0.0) or 1.0
    step = _round_step(most / 5)
    return Axis(low=0.0, high=math.ceil(most / step) * step, start=start, end=end)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """An axis of whole powers of ten around all values."""
    low = 10.0 ** math.floor(math.log10(min(values)))
    high = 10.0 ** math.ceil(math.log10(max(values)) + 1e-9)
    return Axis(low=low, high=max(high, low * 10), start=start, end=end, log=True)


def frame(x: Axis, y: Axis, names: tuple[str, str]) -> str:
    """A grid with the numbers of both axes and their names."""
    parts = []
    for tick in x.ticks:
        at = x.at(tick)
        parts.append(element("line", x1=at, x2=at, y1=y.start, y2=y.end, class_="g"))
        parts.append(label(f"{tick:g}", at, y.start + 14, end="middle"))
    for tick in y.ticks:
        at = y.at(tick)
        parts.append(element("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="g"))
        parts.append(label(f"{tick:g}", x.start - 5, at + 4, end="end"))
    parts.append(label(names[0], x.end, y.start + 30, end="end"))
    parts.append(label(names[1], 4, y.end - 9))
    return "".join(parts)


def sign(place: int, x: float, y: float) -> str:
    """The sign of a series: another shape for each, so that colour is not needed."""
    shapes = (
        f"M{x - 4:.1f} {y:.1f}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8z",
        f"M{x:.1f} {y - 5:.1f}l5 9h-10z",
        f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
    )
    return element("path", d=shapes[place % 4], class_=f"c{place % 4}")


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= about * 0.999)


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
