"""Which cases teach a net and which validate it, as its recipe says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kits_runtime.errors import ScanError
from kits_trt.data.datasets import TrainingCase
from kits_trt.systems.recipe import FirstCases, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCases:
    """The two parts, each by name."""

    teaching: tuple[TrainingCase, ...]
    validating: tuple[TrainingCase, ...]


def split_cases(cases: Sequence[TrainingCase], split: Split, *, seed: int) -> SplitCases:
    """The two parts of a data set; neither is empty.

    Raises:
        ScanError: There are fewer than two cases.
    """
    if len(cases) < 2:
        raise ScanError(
            f"training data: found {len(cases)} case, expected at least two, one to validate on; "
            "add cases or give --validation-data"
        )
    count = min(max(_teaching(len(cases), split), 1), len(cases) - 1)
    order = list(range(len(cases)))
    if not isinstance(split, FirstCases):
        order = [int(place) for place in np.random.default_rng(seed).permutation(len(cases))]
    chosen = set(order[:count])
    return SplitCases(
        teaching=tuple(case for place, case in enumerate(cases) if place in chosen),
        validating=tuple(case for place, case in enumerate(cases) if place not in chosen),
    )


def _teaching(cases: int, split: Split) -> int:
    if isinstance(split, FirstCases):
        return split.count if cases > split.count else round(cases * split.count / split.of)
    return round(cases * split.train_share)
