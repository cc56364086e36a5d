"""The links of the parity chain, each with its tolerance and the reason for it, once.

Scores are compared on random patches and on windows that the pipeline cuts from the cases, masks
at the end of the whole pipeline. ``left`` and ``right`` name computations (``sides.py``).
"""

from dataclasses import dataclass
from typing import Literal

SideName = Literal[
    "torch",
    "onnx",
    "bundle",
    "openvino-fp32",
    "openvino-bf16",
    "fp16-emulated",
    "fp16-file",
    "engine",
]
Measure = Literal["largest", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far apart two computations may be, and why so far."""

    measure: Measure
    value: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Two computations that must give the same scores, and the same masks.

    ``masks`` says whether a difference of masks breaks the link, is only written down, or is not
    looked at.
    """

    left: SideName
    right: SideName
    scores: Tolerance
    masks: Literal["gate", "recorded", "none"]
    masks_reason: str

    @property
    def name(self) -> str:
        """The link as tables show it."""
        return f"{self.left} = {self.right}"


_SAME_ARITHMETIC = "both compute in float32 and differ in the order of sums alone"
_MASKS_FOLLOW = "what may differ is the rounding of scores at the border between two classes"

LINKS: tuple[Link, ...] = (
    Link(
        left="torch",
        right="onnx",
        scores=Tolerance(measure="largest", value=1e-4, reason=_SAME_ARITHMETIC),
        masks="none",
        masks_reason="those of the file are compared",
    ),
    Link(
        left="torch",
        right="bundle",
        scores=Tolerance(
            measure="largest",
            value=2e-2,
            reason="weights may be stored as halves, 11 bits, and widened on load; that moves "
            "scores by some 1e-3 where a net is least certain",
        ),
        masks="gate",
        masks_reason=_MASKS_FOLLOW,
    ),
    Link(
        left="bundle",
        right="openvino-fp32",
        scores=Tolerance(
            measure="largest",
            value=1e-3,
            reason=f"{_SAME_ARITHMETIC}; OpenVINO may merge operators of other rounding",
        ),
        masks="gate",
        masks_reason=_MASKS_FOLLOW,
    ),
    Link(
        left="bundle",
        right="openvino-bf16",
        scores=Tolerance(
            measure="mean",
            value=1e-2,
            reason="8 bits a number: the least certain voxels move by 0.2, the mean over a window "
            "by 2e-3 on the packaged nets; a wrong kernel moves it by 0.1 and more",
        ),
        masks="recorded",
        masks_reason="bf16 is how a processor computes the same file, not what the bundle holds. "
        "On the packaged nets it moves 0.5 to 15 % of a class, while a scan that is half a HU "
        "brighter moves 0.1 to 17 %: it is told, and a gate where one is asked for",
    ),
    Link(
        left="bundle",
        right="fp16-emulated",
        scores=Tolerance(
            measure="largest",
            value=5e-2,
            reason="11 bits a number after every half node; an overflow or a sum that drowns moves "
            "scores by 0.5 and more",
        ),
        masks="gate",
        masks_reason=_MASKS_FOLLOW,
    ),
    Link(
        left="fp16-emulated",
        right="fp16-file",
        scores=Tolerance(
            measure="largest",
            value=5e-2,
            reason="the processor computes the file in wider arithmetic than its types say, so "
            "this proves that it loads and is the same graph",
        ),
        masks="none",
        masks_reason="wider arithmetic than an engine's says nothing of masks",
    ),
    Link(
        left="bundle",
        right="engine",
        scores=Tolerance(
            measure="largest",
            value=5e-2,
            reason="as for the emulated file: half precision, sums at least as wide",
        ),
        masks="gate",
        masks_reason=_MASKS_FOLLOW,
    ),
)
