"""The table of targets: each with what was measured, or why nothing was."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kits_bench.figures import least_squares
from kits_bench.gpu_check.ledger import Result
from kits_bench.gpu_check.plan import Facts, Settings
from kits_bench.gpu_check.subjects import short_name

Results = Mapping[str, Result]
Measured = list[tuple[str, float]]  # who, and the value


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that should be at least, or at most, ``limit``; ``items`` are those that give it."""

    name: str
    limit: float
    at_least: bool
    unit: str
    items: str
    measure: Callable[[Results, str], Measured]
    of_systems: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A target for a system: the best backend's value and whether it is met; else why not."""

    target: str
    system: str
    limit: float
    unit: str
    value: float | None
    who: str
    met: bool | None
    why: str

    def to_plain(self) -> Facts:
        """The row as JSON takes it."""
        return asdict(self)


def rows_of(results: Results, settings: Settings) -> list[Row]:
    """One row a target and headline system."""
    names = [short_name(system) for system in settings.headline]
    return [
        _row(target, system, results, dry=settings.dry)
        for target in TARGETS
        for system in (names if target.of_systems else ("sixth",))
    ]


def _row(target: Target, system: str, results: Results, *, dry: bool) -> Row:
    found = target.measure(results, system)
    blank: Facts = {"target": target.name, "system": system}
    blank |= {"limit": target.limit, "unit": target.unit}
    if not found:
        why = _why(results, f"{target.items}/{system}/")
        return Row(**blank, value=None, who="", met=None, why=why)
    sign = 1 if target.at_least else -1
    who, value = max(found, key=lambda pair: sign * pair[1])
    met = None if dry else sign * value >= sign * target.limit
    return Row(**blank, value=round(value, 4), who=who, met=met, why="")


def _why(results: Results, prefix: str) -> str:
    """The reasons that the items of a prefix gave, or that none was run."""
    own = [result for name, result in results.items() if name.startswith(prefix)]
    if not own:
        return "its part was not run"
    ran = [result for result in own if result["state"] == "ok"]
    first = ["what ran gives no such figure"] if ran else []
    whys = dict.fromkeys(result["why"] for result in own if result.get("why"))
    return "; ".join([*first, *whys])[:400]


def _ratio_to(base: str) -> Callable[[Results, str], Measured]:
    """The nets of a baseline over ours in half precision: sums of milliseconds a window."""

    def measure(results: Results, system: str) -> Measured:
        theirs = results.get(f"nets/{system}/{base}")
        if theirs is None or theirs["state"] != "ok":
            return []
        total = sum(theirs["facts"]["window_ms"].values())
        return [
            (who, total / sum(facts["window_ms"].values()))
            for who, facts in _facts(results, f"nets/{system}/")
            if who.endswith("/fp16")
        ]

    return measure


def _facts(results: Results, prefix: str) -> Iterator[tuple[str, Facts]]:
    """The facts of a prefix's items that ended well, with the rest of their ids."""
    for name, result in results.items():
        if name.startswith(prefix) and result["state"] == "ok":
            yield name.removeprefix(prefix), result["facts"]


def _rows(results: Results, kind: str, system: str, rows: str) -> Iterator[tuple[str, Any, Any]]:
    """Who, row and record of what ran in the records of a mode: ours alone."""
    for where, facts in _facts(results, f"{kind}/{system}/"):
        interpreter = where.partition("/")[0]
        suffix = "" if interpreter == "own" else " (trt86)"
        for record in facts["records"]:
            for row in record[rows]:
                if row["state"] == "ok" and row.get("way", "kits-trt") == "kits-trt":
                    yield str(row.get("name") or row["backend"]) + suffix, row, record


def _at_slices(slices: int) -> Callable[[Results, str], Measured]:
    """Milliseconds at so many slices, on the line through all cases."""

    def measure(results: Results, system: str) -> Measured:
        points: dict[str, list[tuple[float, float]]] = {}
        for who, row, record in _rows(results, "latency", system, "contestants"):
            points.setdefault(who, []).append((record["case"]["size"][0], row["p50"]))
        return [(who, _on_line(found, slices)) for who, found in points.items() if _several(found)]

    return measure


def _several(points: Sequence[tuple[float, float]]) -> bool:
    return len({x for x, _ in points}) > 1


def _on_line(points: Sequence[tuple[float, float]], x: float) -> float:
    line = least_squares([point[0] for point in points], [point[1] for point in points])
    return line.intercept + line.slope * x


def _beside_the_longest(results: Results, system: str) -> Measured:
    """The worst case's milliseconds beyond reading or nets, whichever takes longer."""
    extra: dict[str, list[float]] = {}
    for who, row, _ in _rows(results, "latency", system, "contestants"):
        longest = max(row["phase_ms"].get("read", 0.0), row["net_ms"])
        extra.setdefault(who, []).append(row["p50"] - longest)
    return [(who, max(values)) for who, values in extra.items()]


def _cohort(results: Results, system: str) -> Measured:
    found = _rows(results, "throughput", system, "backends")
    return [(who, row["net_ms"] / row["wall_ms"]) for who, row, _ in found]


def _cold(results: Results, system: str) -> Measured:
    """Seconds to the first window, the median of cases."""
    found: dict[str, list[float]] = {}
    for who, row, _ in _rows(results, "cold", system, "backends"):
        found.setdefault(who, []).append(row["first_window_s"])
    return [(who, statistics.median(values)) for who, values in found.items()]


def _memory(results: Results, system: str) -> Measured:
    found: dict[str, list[float]] = {}
    for who, facts in _facts(results, f"gpu-memory/{system}/"):
        found.setdefault(who.rpartition("/")[0], []).append(facts["own_mib"])
    return [(who, max(values)) for who, values in found.items()]


def _sixth(results: Results, system: str) -> Measured:
    return [
        (who, facts["scans"]["samples_per_s"])
        for who, facts in _facts(results, f"windows/{system}/")
        if who.endswith("/fp16")
    ]


def _target(name: str, bound: str, items: str, measure: Callable[..., Measured]) -> Target:
    """A target from a bound as it is written: a sign, a number and its unit."""
    sign, limit, unit = (*bound.split(maxsplit=2), "")[:3]
    return Target(
        name=name,
        limit=float(limit),
        at_least=sign == ">=",
        unit=unit,
        items=items,
        measure=measure,
        of_systems=items != "windows",
    )


TARGETS = (
    _target("nets in FP16 against B1", ">= 2.5 x", "nets", _ratio_to("b1")),
    _target("nets in FP16 against B0", ">= 8 x", "nets", _ratio_to("b0")),
    _target("warm, file to file, 108 slices", "<= 150 ms", "latency", _at_slices(108)),
    _target("warm, file to file, 216 slices", "<= 250 ms", "latency", _at_slices(216)),
    _target("beyond reading or nets", "<= 40 ms", "latency", _beside_the_longest),
    _target("cohort's share of the nets' rate", ">= 0.95", "throughput", _cohort),
    _target("cold start, engine kept", "<= 1 s", "cold", _cold),
    _target("sixth net in FP16", ">= 4.1 samples/s", "windows", _sixth),
    _target("GPU memory", "<= 2048 MiB", "gpu-memory", _memory),
)


def table(rows: Sequence[Row], *, dry: bool) -> str:
    """The rows as Markdown."""
    lines = ["**A dry run: no figure here was measured on a GPU.**", ""] if dry else []
    lines += ["| target | system | limit | measured | met | backend |", "| --- |" + " --- |" * 5]
    at_least = {target.name: target.at_least for target in TARGETS}
    for row in rows:
        sign = ">=" if at_least[row.target] else "<="
        limit = f"{sign} {row.limit:g} {row.unit}".rstrip()
        value = f"unrun: {row.why}" if row.value is None else f"{row.value:g} {row.unit}".rstrip()
        met = "" if row.met is None else "yes" if row.met else "no"
        lines.append(f"| {row.target} | {row.system} | {limit} | {value} | {met} | {row.who} |")
    return "\n".join(lines) + "\n"
