"""Arithmetic of benchmarks: percentiles, ratios with bootstrap intervals, least squares."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
_SEED = 7
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and the 95 % interval around it."""

    value: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether there is an interval: one measurement alone has none, but for rounding."""
        plain = self.to_plain()
        return plain["low"] != plain["high"]

    def to_plain(self) -> dict[str, float]:
        """The figure as JSON takes it."""
        return {name: round(getattr(self, name), 4) for name in ("value", "low", "high")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A straight line by least squares; ``r2`` is the share of the variance that it explains."""

    slope: float
    intercept: float
    r2: float


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th percentile, interpolated linearly."""
    found = np.percentile(np.asarray(values, np.float64), (50, 90, 99))
    return dict(zip(("p50", "p90", "p99"), (round(float(v), 2) for v in found), strict=True))


def ratio_of_medians(slower: Sequence[float], faster: Sequence[float]) -> Interval:
    """How many times as long one took as the other, of one case.

    Round by round both ran one after the other, so rounds are drawn together.

    Raises:
        ValueError: nothing was measured, or not as many rounds of both.
    """
    pairs = np.array([slower, faster], np.float64)
    if pairs.ndim != 2 or not pairs.shape[1]:
        raise ValueError(f"found {len(slower)} and {len(faster)} rounds, expected some of both")
    rounds = pairs.shape[1]
    drawn = pairs[:, _draws(rounds)]
    ratios = np.median(drawn[0], axis=1) / np.median(drawn[1], axis=1)
    value = float(np.median(pairs[0]) / np.median(pairs[1]))
    return _interval(value, ratios)


def ratio_of_totals(slower: Sequence[float], faster: Sequence[float]) -> Interval:
    """The same for the sum over cases, each given by its median; cases are drawn."""
    pairs = np.array([slower, faster], np.float64)
    if pairs.ndim != 2 or not pairs.shape[1]:
        raise ValueError(f"found {len(slower)} and {len(faster)} cases, expected some of both")
    sums = pairs[:, _draws(pairs.shape[1])].sum(axis=2)
    return _interval(float(pairs[0].sum() / pairs[1].sum()), sums[0] / sums[1])


def least_squares(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through points with the least squared error along y.

    Raises:
        ValueError: all points have one x.
    """
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    away = xs - xs.mean()
    spread = float(away @ away)
    if not spread:
        raise ValueError(f"found x of {len(xs)} points all equal, expected two different ones")
    slope = float(away @ ys) / spread
    intercept = float(ys.mean() - slope * xs.mean())
    missed = ys - slope * xs - intercept
    whole = float(((ys - ys.mean()) ** 2).sum())
    r2 = 1 - float(missed @ missed) / whole if whole else 1.0
    return Line(slope=slope, intercept=intercept, r2=r2)


def _draws(count: int) -> NDArray[np.intp]:
    """Which of so many things each draw takes, with repetition: (draws, count)."""
    return np.random.default_rng(_SEED).integers(0, count, (DRAWS, count))


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, _TAILS)
    return Interval(value=value, low=float(low), high=float(high))
