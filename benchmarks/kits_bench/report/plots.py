"""The plots of a report: bars by case, waterfalls of stages, lines of scaling, rooflines."""

from collections.abc import Sequence
from dataclasses import dataclass

from kits_bench.report.blocks import Facts, duration, figure
from kits_bench.report.drawing import (
    CHARACTER,
    WIDTH,
    Axis,
    element,
    frame,
    label,
    legend,
    linear_axis,
    log_axis,
    picture,
    sign,
)

PUBLISHED = "published unet3d, another machine: context"
_BAR, _GAP, _MARGIN = 11, 24, 52


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A group of bars: what it is of, and seconds by series; None where there is no figure."""

    name: str
    seconds: tuple[float | None, ...]


def bars(title: str, series: Sequence[str], groups: Sequence[Bars], *, most_s: float) -> str:
    """Horizontal bars from 0 to ``most_s``, so that several drawings share one scale."""
    head, top = legend(series, lambda place, x, y: _bar(series[place], place, (x, y - 9, 16)))
    axis = linear_axis([most_s], 0, WIDTH - _MARGIN)
    parts, y = [head], top + 8
    for group in groups:
        parts.append(label(group.name, 0, y + 8, class_="t b"))
        y += 13
        for place, seconds in enumerate(group.seconds):
            if seconds is None:
                parts.append(label("no figure", 3, y + 9))
            else:
                length = max(axis.at(seconds), 1)
                parts.append(_bar(series[place], place, (0, y, length)))
                parts.append(label(duration(seconds * 1e3), length + 4, y + 9))
            y += _BAR + 1
        y += _GAP - _BAR
    told = f"Seconds a case of {', '.join(series)}; the table beside has every number."
    return picture(title, told, y, parts)


def _bar(name: str, place: int, box: tuple[float, float, float]) -> str:
    x, y, length = box
    class_ = "p" if name == PUBLISHED else f"c{place % 4}"
    return element("rect", x=x + 0.5, y=y, width=length, height=_BAR - 1, class_=class_)


def waterfall(title: str, phases: Sequence[tuple[str, float]]) -> str:
    """Stages one after the other: each bar begins where the one before it ended."""
    widest = max(len(name) for name, _ in phases)
    left = min(CHARACTER * widest + 8, WIDTH / 2.2)
    total = sum(ms for _, ms in phases)
    axis = Axis(low=0, high=total or 1.0, start=left, end=WIDTH - 62)
    parts, done, y = [], 0.0, 6.0
    for name, ms in phases:
        x, end = axis.at(done), axis.at(done + ms)
        class_ = "c0" if name.rpartition(".")[2] == "net" else "c1"
        parts.append(label(name, left - 6, y + 11, end="end"))
        parts.append(element("rect", x=x, y=y, width=max(end - x, 1), height=14, class_=class_))
        parts.append(label(duration(ms), max(end, x + 1) + 4, y + 11))
        done += ms
        y += 19
    parts.append(label(f"together {duration(total)}", left - 6, y + 12, class_="t b"))
    told = "; ".join(f"{name} {duration(ms)}" for name, ms in phases)
    return picture(title, told, y + 20, parts)


def scaling_plot(title: str, lines: Sequence[Facts]) -> str:
    """Seconds against slices, with each contestant's line."""
    head, top = legend(
        [_line_name(line) for line in lines], lambda place, x, y: sign(place, x + 7, y - 4)
    )
    points = [point for line in lines for point in line["points"]]
    x = linear_axis([point[0] for point in points], 44, WIDTH - 18)
    y = linear_axis([point[1] / 1e3 for point in points], top + 230, top + 24)
    parts = [head, frame(x, y, ("slices", "seconds a case"))]
    for place, line in enumerate(lines):
        for slices, ms in line["points"]:
            parts.append(sign(place, x.at(slices), y.at(ms / 1e3)))
        if line["state"] == "ok":
            parts.append(_fitted(line, place, x, y))
    told = "; ".join(_line_name(line) for line in lines)
    return picture(title, told, top + 270, parts)


def _line_name(line: Facts) -> str:
    if line["state"] != "ok":
        return f"{line['name']}: no line"
    slope, start = line["slope_ms_per_slice"], line["intercept_ms"]
    return f"{line['name']}: {duration(start)} + {figure(slope)} ms a slice"


def _fitted(line: Facts, place: int, x: Axis, y: Axis) -> str:
    slices = sorted(point[0] for point in line["points"])
    ends = []
    for n in (slices[0], slices[-1]):
        seconds = max((line["intercept_ms"] + line["slope_ms_per_slice"] * n) / 1e3, 0.0)
        ends.append((x.at(n), y.at(seconds)))
    (x1, y1), (x2, y2) = ends
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=f"l{place % 4}")


def roofline_plot(title: str, rows: Sequence[Facts]) -> str:
    """What one backend's nets reached, under the roof that was measured in the same run."""
    names = [f"{row['net']}: {figure(row['gflop_per_s'])} GFLOP/s" for row in rows]
    head, top = legend(names, lambda place, x, y: sign(place, x + 7, y - 4))
    roof, copied = rows[0]["roof_gflop_per_s"], rows[0]["roof_gb_per_s"]
    ridge = roof / copied
    works = [row["flop_per_byte_unfused"] for row in rows]
    x = log_axis([*works, ridge, ridge / 10, ridge * 10], 52, WIDTH - 18)
    reached = [row["gflop_per_s"] for row in rows]
    y = log_axis([*reached, roof, x.low * copied], top + 230, top + 24)
    corner = x.at(ridge), y.at(roof)
    path = (
        f"M{x.start:.1f} {y.at(x.low * copied):.1f}"
        f"L{corner[0]:.1f} {corner[1]:.1f}L{x.end:.1f} {corner[1]:.1f}"
    )
    parts = [
        head,
        frame(x, y, ("FLOP a byte, nothing fused", "GFLOP/s")),
        element("path", d=path, class_="roof"),
        label(f"measured peak {figure(roof)} GFLOP/s", x.end, corner[1] - 5, end="end"),
        *(
            sign(place, x.at(row["flop_per_byte_unfused"]), y.at(row["gflop_per_s"]))
            for place, row in enumerate(rows)
        ),
    ]
    told = f"{'; '.join(names)}; roof {figure(roof)} GFLOP/s, {figure(copied)} GB/s"
    return picture(title, told, top + 270, parts)
