"""What the scores of all cases say together."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_trt.evaluation.protocols import Protocol
from kits_trt.evaluation.scores import CaseScores

SEED = 20230
RESAMPLES = 10_000
_CHUNK = 1 << 22  # drawn cases held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """One score over all cases; ``interval`` holds its mean in 95 of 100 resamplings."""

    mean: float
    median: float
    interval: tuple[float, float]
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyCount:
    """In how many cases a region is empty: in the truth, in the prediction, in both."""

    truth: int
    prediction: int
    both: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All cases together; ``worst_first`` orders them by the mean of their scores."""

    scores: Mapping[str, ScoreSummary]
    empty: Mapping[str, EmptyCount]
    worst_first: tuple[CaseScores, ...]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each score."""
        return {name: score.mean for name, score in self.scores.items()}


def summarise(cases: Sequence[CaseScores], protocol: Protocol) -> Summary:
    """The summary of at least one case."""
    names = protocol.score_names
    table = np.asarray([[case.scores[name] for name in names] for case in cases])
    intervals = mean_intervals(table)
    scores = {
        name: ScoreSummary(
            mean=math.fsum(column) / len(column),
            median=statistics.median(column),
            interval=interval,
            lowest=min(column),
            highest=max(column),
        )
        for name, column, interval in zip(names, table.T.tolist(), intervals, strict=True)
    }
    return Summary(
        scores=scores,
        empty={region.name: _empty_count(cases, region.name) for region in protocol.regions},
        worst_first=tuple(sorted(cases, key=lambda case: (case.mean, case.case))),
    )


def mean_intervals(table: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The 95 % percentile-bootstrap interval of each column's mean; rows are cases.

    As many cases as there are, are drawn with replacement, again and again with a fixed seed; the
    columns share the draws.
    """
    rows = len(table)
    random = np.random.default_rng(SEED)
    means = []
    step = max(1, _CHUNK // rows)
    for start in range(0, RESAMPLES, step):
        draws = random.integers(rows, size=(min(step, RESAMPLES - start), rows))
        means.append(np.stack([column[draws].mean(axis=1) for column in table.T], axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _empty_count(cases: Sequence[CaseScores], region: str) -> EmptyCount:
    truth = [region in case.empty_truth for case in cases]
    prediction = [region in case.empty_prediction for case in cases]
    both = [a and b for a, b in zip(truth, prediction, strict=True)]
    return EmptyCount(truth=sum(truth), prediction=sum(prediction), both=sum(both))
