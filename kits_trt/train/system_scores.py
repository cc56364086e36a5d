"""Validation of a whole system: its cascade on whole scans, scored as a challenge does.

It runs the runtime's executor, look to overlay, with torch in place of the engines. What earlier
stages miss is missed here, which the stages' own validation does not show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.cascade import run_cascade
from kits_runtime.clock import Clock
from kits_runtime.infer import RunNet
from kits_trt.data.case_files import read_case
from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.evaluation.protocols import PROTOCOLS
from kits_trt.evaluation.scores import CaseScores, score_case
from kits_trt.systems import System
from kits_trt.train.compute import memory_told
from kits_trt.train.fixed_mask import best_fixed_mask, on_common_grid

Labels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
KIDNEY_AND_TUMOUR = "Dice_kidney"  # of the KiTS19 protocol: labels 1 and 2 together


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemScores:
    """The scores of each case, and what the best mask does that never looks at the scan."""

    cases: tuple[CaseScores, ...]
    fixed_mask_dice: float

    @property
    def means(self) -> dict[str, float]:
        """The mean of each score over the cases."""
        names = list(self.cases[0].scores)
        return {name: float(np.mean([c.scores[name] for c in self.cases])) for name in names}

    @property
    def dice(self) -> float:
        """The mean Dice of kidney with tumour."""
        return self.means[KIDNEY_AND_TUMOUR]


def score_system(
    system: System,
    nets: Mapping[str, RunNet],
    cases: Sequence[TrainingCase],
    *,
    teaching: Sequence[TrainingCase],
    cyst: Cyst = "kidney",
    progress: Progress = lambda _done, _total: None,
) -> SystemScores:
    """Segment the cases and score them.

    Args:
        system: Whose cascade.
        nets: All nets of it, by name.
        cases: What to segment.
        teaching: The cases that taught the nets, for the fixed mask.
        cyst: What cysts are counted as.
        progress: Is told how many cases of how many are done.

    Raises:
        ScanError: A file cannot be read.
        OutOfMemoryError: A case does not fit.
    """
    protocol = PROTOCOLS["kits23" if cyst == "class" else "kits19"]
    scored, truths = [], []
    for done, case in enumerate(cases):
        with memory_told(f"segmenting {case.name}"):
            volume, truth = read_case(case, cyst)
            found = run_cascade(volume, system, nets=nets, clock=Clock()).labels
        scored.append(
            score_case(
                case.name,
                truth,
                prediction=found,
                spacing_mm=volume.spacing_mm,
                protocol=protocol,
            )
        )
        truths.append(on_common_grid(_kidney_or_tumour(truth)))
        progress(done + 1, len(cases))
    taught = [on_common_grid(_kidney_or_tumour(read_case(case, cyst)[1])) for case in teaching]
    return SystemScores(cases=tuple(scored), fixed_mask_dice=best_fixed_mask(taught, truths))


def _kidney_or_tumour(labels: Labels) -> NDArray[np.bool_]:
    return np.asarray((labels == 1) | (labels == 2))
