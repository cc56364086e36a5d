"""Gates: the mean that a score has to reach."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kits_runtime.errors import KitsError, UsageError
from kits_trt.evaluation.protocols import Protocol


class GateError(KitsError):
    """A mean score below what was asked for."""

    exit_code = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The least that the mean of a score over all cases may be."""

    score: str
    least: float


def gate_from_text(text: str, protocol: Protocol) -> Gate:
    """The gate of ``NAME=VALUE``; the name is a score's, in lower or upper case.

    Raises:
        UsageError: The protocol has no such score, or the value is no number from 0 to 1.
    """
    name, _, value = text.partition("=")
    scores = {score.lower(): score for score in protocol.score_names}
    try:
        least = float(value)
    except ValueError:
        least = math.nan
    if name.strip().lower() not in scores or not 0 <= least <= 1:
        raise UsageError(
            f"--gate: found {text!r}; expected NAME=VALUE with a NAME of {protocol.name} "
            f"({', '.join(scores)}) and a VALUE from 0 to 1; correct it, as in dice_tumor=0.75"
        )
    return Gate(score=scores[name.strip().lower()], least=least)


def check_gates(gates: Sequence[Gate], means: Mapping[str, float]) -> None:
    """Refuses means below their gates.

    Raises:
        GateError: At least one gate is not met; the message names all of them.
    """
    missed = [
        f"{gate.score.lower()} {means[gate.score]:.4f} (expected at least {gate.least:g})"
        for gate in gates
        if not is_met(gate, means)
    ]
    if missed:
        raise GateError(
            f"--gate: found a mean of {', '.join(missed)}; improve the predictions or lower the "
            "gate. The scores are written."
        )


def is_met(gate: Gate, means: Mapping[str, float]) -> bool:
    """Whether a mean reaches its gate."""
    return means[gate.score] >= gate.least
