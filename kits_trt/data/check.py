"""Checks training cases before anything is computed from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kits_trt.data.datasets import TrainingCase


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about a case that a person should know; ``bad`` where it cannot be used."""

    case: str
    message: str
    bad: bool


def check_case(case: TrainingCase) -> tuple[Finding, ...]:
    """All that is wrong with a case, and notes; empty for a sound one."""
    raise NotImplementedError


def check_cases(
    cases: Sequence[TrainingCase], *, progress: Callable[[int, int, str], None]
) -> tuple[Finding, ...]:
    """What ``check_case`` finds in each case, one after the other."""
    raise NotImplementedError
