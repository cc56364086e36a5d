"""What a run of ``kits-train`` is asked for, and what its trainings share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kits_trt.data.datasets import TrainingCase
from kits_trt.data.label_values import Cyst
from kits_trt.nets import SegmentationNet
from kits_trt.systems import System
from kits_trt.train.compute import Compute
from kits_trt.train.course import Budget
from kits_trt.train.provenance import (
    DataFacts,
)
from kits_trt.train.ranks import Ranks
from kits_trt.train.run_folder import RunFolder
from kits_trt.train.split import SplitCases, split_cases
from kits_trt.train.state_file import (
    TrainingState,
)
from kits_trt.train.teller import Teller


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Cases and what is known of them; cases to validate on where a set of its own has them."""

    cases: tuple[TrainingCase, ...]
    facts: DataFacts
    validating: tuple[TrainingCase, ...] = ()
    validating_facts: DataFacts | None = None
    cyst: Cyst = "kidney"

    @property
    def sha256(self) -> str:
        """A hash of all that takes part."""
        other = self.validating_facts
        return self.facts.sha256 + (f"+{other.sha256}" if other else "")

    def split(self, system: System, net: str, *, seed: int) -> SplitCases:
        """The cases that teach a net and those that validate it."""
        if self.validating:
            return SplitCases(teaching=self.cases, validating=self.validating)
        return split_cases(self.cases, system.recipes[net].split, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a run is asked for.

    Attributes:
        system: Its recipes are as they shall be followed.
        data: What to learn from.
        out: The run's folder.
        cache: The folder of prepared cases.
        budget: How long each net is trained.
        nets: Those to train; the others are left as they are.
        resume: Whether to go on with what is in the folder.
        start: A checkpoint whose weights training begins from.
    """

    system: System
    data: Data
    out: Path
    cache: Path
    budget: Budget
    nets: tuple[str, ...]
    resume: bool = False
    start: Path | None = None


@dataclass(slots=True, kw_only=True)
class Run:
    """What the trainings of one run share."""

    wanted: Wanted
    compute: Compute
    ranks: Ranks
    teller: Teller
    folder: RunFolder
    start: Mapping[str, SegmentationNet] = field(default_factory=dict)
    state: TrainingState | None = None
