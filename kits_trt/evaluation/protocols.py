"""What each challenge scores: its regions, its tolerances, the names of its scores.

KiTS23 (as KiTS21): Dice and surface Dice of kidney with masses, masses, and tumour. KiTS19: Dice of
kidney with tumour and of tumour, and their mean, the challenge's composite score.

In both, a region that is empty in truth and prediction scores 1 and one that is empty in one of
them 0. That is KiTS23's rule. KiTS19, all of whose cases have a tumour, has no rule: its script
divides by zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Labels that are scored as one.

    Attributes:
        name: As in the names of the scores.
        labels: Whose voxels belong to it.
        tolerance_mm: For its surface Dice; None where the challenge has none.
    """

    name: str
    labels: tuple[int, ...]
    tolerance_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """The rules of one challenge.

    Attributes:
        name: As the command takes it.
        highest_label: Labels are the whole numbers from 0 to this.
        regions: In the order of the scores.
        has_composite: Whether the mean of the Dice scores is a score as well.
    """

    name: str
    highest_label: int
    regions: tuple[Region, ...]
    has_composite: bool

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores of a case, in the order of the table."""
        dice = [f"Dice_{region.name}" for region in self.regions]
        surface = [f"SD_{region.name}" for region in self.regions if region.tolerance_mm]
        return (*dice, *surface, *(["Composite"] if self.has_composite else []))


# The tolerances are the challenge's own, from the disagreement of its annotators; to four places
# 1.0331, 1.1329 and 1.1498 mm.
_KITS23 = Protocol(
    name="kits23",
    highest_label=3,
    regions=(
        Region(name="kidney", labels=(1, 2, 3), tolerance_mm=1.0330772532390826),
        Region(name="masses", labels=(2, 3), tolerance_mm=1.1328796488598762),
        Region(name="tumor", labels=(2,), tolerance_mm=1.1498198361434828),
    ),
    has_composite=False,
)
_KITS19 = Protocol(
    name="kits19",
    highest_label=2,
    regions=(
        Region(name="kidney", labels=(1, 2), tolerance_mm=None),
        Region(name="tumor", labels=(2,), tolerance_mm=None),
    ),
    has_composite=True,
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (_KITS19, _KITS23)})
