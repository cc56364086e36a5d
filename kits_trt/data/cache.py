"""Pieces of cases, made once and kept as plain arrays on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path

from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.systems.system import System

Progress = Callable[[int, int, str], None]


def cached_pieces(
    root: Path,
    system: System,
    net: str,
    cases: Sequence[TrainingCase],
    *,
    cyst: Cyst = "background",
    workers: int = 1,
    progress: Progress = lambda _done, _total, _case: None,
) -> tuple[CasePieces, ...]:
    """The pieces of the net's stage for each case, in order; arrays are mapped, not read."""
    raise NotImplementedError
