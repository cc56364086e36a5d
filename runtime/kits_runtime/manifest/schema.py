"""The words of a manifest: every fact in which systems differ, and no code.

A system is a cascade of stages. Each stage looks at a part of the scan, brings it onto its own
grid, runs its nets over windows of it, decides on labels and cleans them. The classes below are the
whole vocabulary; ``codec`` reads and writes them and ``rules`` checks what a type cannot say.

Axes are (z, y, x), running towards the patient's inferior, posterior and left. Units are in the
names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

SCHEMA_VERSION = "1.0.0"

AxisFloats = tuple[float | None, float | None, float | None]
AxisCounts = tuple[int | None, int | None, int | None]
Shape3 = tuple[int, int, int]
Shape2 = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The whole scan."""

    kind: ClassVar[str] = "whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreground:
    """The smallest box around all voxels above a HU value; the whole scan when there is none."""

    kind: ClassVar[str] = "foreground"
    above_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One half of the scan, in the patient's frame."""

    kind: ClassVar[str] = "part"
    half: Literal["superior", "inferior", "anterior", "posterior", "right", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """A box as long as the grid along this axis."""

    kind: ClassVar[str] = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Voxels:
    """A box of so many voxels of the stage's own grid along this axis."""

    kind: ClassVar[str] = "voxels"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Millimetres:
    """A box of this length along this axis."""

    kind: ClassVar[str] = "millimetres"
    length_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tight:
    """A box as long as what was found, plus a margin at both ends."""

    kind: ClassVar[str] = "tight"
    margin_mm: float


AxisSize = Full | Voxels | Millimetres | Tight


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleOfBox:
    """Boxes sit on the middle of the smallest box around what was found."""

    kind: ClassVar[str] = "middle_of_box"


@dataclass(frozen=True, slots=True, kw_only=True)
class MiddleOfProjections:
    """Boxes sit on the middle of median-filtered projections of what was found.

    The mask is summed along y (coronal map: z, x) and along z (axial map: y, x), each map is
    median-filtered, and the middle of what is left gives z from the first and y, x from the second.
    A map that the filter empties is used unfiltered.
    """

    kind: ClassVar[str] = "middle_of_projections"
    coronal_window_vox: Shape2
    axial_window_vox: Shape2


Centre = MiddleOfBox | MiddleOfProjections


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Boxes around what an earlier stage found.

    ``per`` is one box for all or one for each half of the scan ('side'). A box that leaves the grid
    is clipped or shifted back (``border``). Where nothing was found, ``otherwise`` says what is
    looked at instead: nothing, the whole scan, or (per side) the half in question.
    """

    kind: ClassVar[str] = "boxes"
    of: str
    per: Literal["all", "side"]
    size: tuple[AxisSize, AxisSize, AxisSize]
    centre: Centre
    border: Literal["clip", "shift"]
    otherwise: Literal["empty", "whole", "half"]


Look = Whole | Foreground | Part | Boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
    """Brings the region onto the stage's grid.

    For each axis a spacing, or the size that the *whole scan* gets along it, or neither (as
    scanned).
    The grid covers exactly the scan's extent: size = round(extent / spacing), edges aligned.
    """

    kind: ClassVar[str] = "resample"
    spacing_mm: AxisFloats
    size_vox: AxisCounts
    interpolation: Literal["linear", "nearest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Clips to a HU window."""

    kind: ClassVar[str] = "clip"
    lower_hu: float
    upper_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps one interval onto another, linearly and without clipping."""

    kind: ClassVar[str] = "scale"
    source: tuple[float, float]
    target: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZScore:
    """Subtracts a mean and divides by a standard deviation: given, or (null) the region's own."""

    kind: ClassVar[str] = "z_score"
    mean: float | None
    std: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMeanSigma:
    """Clips to mean +- sigma * std of the region, then maps that interval onto ``target``."""

    kind: ClassVar[str] = "clip_mean_sigma"
    sigma: float
    target: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiplyByMask:
    """Zeroes (0 HU) what lies outside an earlier stage's mask."""

    kind: ClassVar[str] = "multiply_by_mask"
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DimOutsideMask:
    """Multiplies what lies outside an earlier stage's mask by ``share``, farther off by 0.

    Farther off is what the mask does not hold once it is grown by ``within_mm`` along each axis, to
    the nearest voxel: a voxel becomes a brick. A net then sees where the mask ends, and faintly
    what an earlier stage left out there and beside what it lies.
    """

    kind: ClassVar[str] = "dim_outside_mask"
    of: str
    within_mm: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CentreInMask:
    """Shifts the voxels inside an earlier stage's mask to a mean of ``target_hu``, per slice."""

    kind: ClassVar[str] = "centre_in_mask"
    of: str
    target_hu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CentreOnBrighterSide:
    """Shifts everything so that a quantile inside an earlier stage's mask is ``target_hu``.

    Counted are the scan's values at the voxels of that stage's own grid: the one at place
    floor(``quantile`` * (n - 1)) of the n that lie inside, in order. Each side of the scan has its
    own, and the higher one goes, so that both kidneys are measured by the healthier. A side with
    less than a tenth of the mask does not count.
    """

    kind: ClassVar[str] = "centre_on_brighter_side"
    of: str
    quantile: float
    target_hu: float


MaskStep = MultiplyByMask | DimOutsideMask | CentreInMask | CentreOnBrighterSide
Step = Resample | Clip | Scale | ZScore | ClipMeanSigma | MaskStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """3D windows. The last one along an axis is moved back to end at the last voxel.

    ``join``: 'keep_centre' keeps the middle of inner windows, so that every voxel has one answer;
    'mean' and 'gaussian' weigh all windows that see a voxel.
    """

    kind: ClassVar[str] = "patches"
    shape: Shape3
    stride: Shape3
    join: Literal["keep_centre", "mean", "gaussian"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """2.5D windows: ``depth`` neighbouring slices in, the scores of the middle one out.

    ``only`` names a stage whose mask must touch a slice for it to be asked at all; ``neighbours``
    are taken from the kept slices or from the volume. Ends repeat the last slice.
    """

    kind: ClassVar[str] = "slices"
    depth: int
    shape: Shape2
    stride: Shape2
    join: Literal["keep_centre", "mean", "gaussian"]
    only: str | None
    neighbours: Literal["kept", "volume"]


Windows = Patches | Slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax:
    """The label of the channel with the highest score; ties go to the earlier channel."""

    kind: ClassVar[str] = "argmax"
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The label of the last channel whose score reaches ``at_least``, else background."""

    kind: ClassVar[str] = "threshold"
    at_least: float
    labels: tuple[int, ...]


Decide = Argmax | Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepLargest:
    """Keeps the ``count`` largest components, of all or of each side."""

    kind: ClassVar[str] = "keep_largest"
    count: int
    per: Literal["all", "side"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepSurest:
    """Keeps the component with the most voxels in which a class has a score of ``at_least``.

    Of components with equally many the larger one. Scores are those on the model's grid.
    """

    kind: ClassVar[str] = "keep_surest"
    at_least: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSmall:
    """Drops components of fewer voxels."""

    kind: ClassVar[str] = "drop_small"
    min_voxels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FillHoles:
    """Fills holes with the stage's first foreground label."""

    kind: ClassVar[str] = "fill_holes"
    per_slice: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EigenvalueRatio:
    """Keeps components whose two largest principal variances (mm) have a ratio in this range."""

    kind: ClassVar[str] = "eigenvalue_ratio"
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Keeps components of which at least this share lies in an earlier stage's mask."""

    kind: ClassVar[str] = "overlap"
    of: str
    at_least: float


Clean = KeepLargest | KeepSurest | DropSmall | FillHoles | EigenvalueRatio | Overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of the cascade.

    ``join`` says what happens where boxes overlap: the mean or the maximum of their scores, or
    'halves': each box is cut at the scan's middle and answers for its own side.
    """

    name: str
    look: Look
    steps: tuple[Step, ...]
    windows: Windows
    nets: tuple[str, ...]
    combine: Literal["mean", "vote"]
    decide: Decide
    join: Literal["mean", "max", "halves"]
    clean: tuple[Clean, ...]
    clean_on: Literal["model", "scan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetFile:
    """One stored form of a net; ``weights`` narrower than ``tensors`` are widened on load."""

    path: str
    sha256: str
    bytes: int
    tensors: Literal["float32", "float16"]
    weights: Literal["float32", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A net: its tensors, the spatial shape of one window, and its files by precision."""

    input_name: str
    output_name: str
    in_channels: int
    out_channels: int
    size_vox: tuple[int, ...]
    files: Mapping[Literal["fp32", "fp16"], NetFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityLink:
    """One link of the parity chain as measured when the bundle was made."""

    link: str
    measure: str
    value: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the weights come from; null where they come from nowhere (untrained examples)."""

    checkpoint_sha256: str | None
    commit: str | None
    opset: int
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a person should know before use."""

    intended_use: str
    training_data: str
    licence: str
    metrics: Mapping[str, float]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole system.

    ``labels`` names the values of the result, ``overlay`` the stages that make it: a later stage's
    foreground replaces what an earlier one said.
    """

    schema: str
    system: str
    preset: str
    labels: tuple[str, ...]
    nets: Mapping[str, Net]
    stages: tuple[Stage, ...]
    overlay: tuple[str, ...]
    parity: tuple[ParityLink, ...]
    provenance: Provenance
    card: Card
