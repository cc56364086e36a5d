"""One training sample: what the net reads, and the classes it is to say."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_trt.data.plans import Lesson, SampleKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A sample of the net's window.

    Attributes:
        values: Float32, (channels, *window): exactly what the net reads.
        labels: Uint8, (*window): classes after ``Recipe.target``, of slice stacks those of the
            middle slice.
        case: The name of the case it was drawn from.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.uint8]
    case: str


def draw_sample(lesson: Lesson, key: SampleKey) -> Sample:
    """The sample of a key: a function of the key and the lesson alone."""
    raise NotImplementedError
