"""The words for what happens to a training sample, and no code; the first part of a recipe.

Axes are (z, y, x), running towards the patient's inferior, posterior and left.
"""

from dataclasses import dataclass
from typing import Literal

Group = Literal["background", "kidney", "tumour"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Another view in plane: turned, zoomed and shifted, each uniformly within its range.

    ``zoom`` is a range of factors, above 1 enlarging what is seen; ``shift`` a share of the plane.
    """

    degrees: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Mirrors along these axes together: (2,) swaps the patient's sides."""

    axes: tuple[int, ...]
    chance: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Adds independent Gaussian noise of a standard deviation drawn up to this, in HU."""

    up_to_hu: float
    chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Multiplies HU by 1 +- ``gain`` and adds up to +- ``shift_hu``."""

    gain: float
    shift_hu: float
    chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blur:
    """Smooths in plane with a Gaussian of up to this many voxels."""

    up_to_vox: float
    chance: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualiseHistogram:
    """Spreads the HU between two limits so that each is as frequent as any other, in part.

    The result lies between the sample and its equalised form, at a place drawn anew.
    """

    lower_hu: float
    upper_hu: float
    chance: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOut:
    """Turns a rectangle in plane, with sides of up to this share of it, into air and background."""

    up_to: float
    chance: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RoughMask:
    """Moves the border of the masks that steps read, as an earlier stage may have found them.

    Attributes:
        chance: How often.
        lumps: How often such a mask also takes in a lump of what lies beside it, and how often it
            loses one.
        bites: How often it loses a part of a tumour, as an earlier stage does that took the tumour
            for something else.
    """

    chance: float = 0.75
    lumps: float = 0.0
    bites: float = 0.0


Change = Place | Mirror | Noise | Contrast | Blur | EqualiseHistogram | CutOut | RoughMask


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """A change, and the groups of slices that it is kept to (all where none is named)."""

    change: Change
    groups: tuple[Group, ...] = ()
