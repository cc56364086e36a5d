"""Smooth random fields: periodic cubic B-splines with Gaussian control points.

One field serves any grid, because it is defined in millimetres and evaluated axis by axis: three
small matrix products. The same field therefore deforms a coarse and a fine grid alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Axes = tuple[Floats, Floats, Floats]

# A cubic B-spline over independent unit control points has this standard deviation, averaged over
# the cell: the mean of the summed squared basis functions is 0.479 for each axis.
_SPLINE_STD = 0.479**1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmoothField:
    """A periodic random function of (z, y, x) in mm; the pitch is the distance of its controls."""

    control: Floats
    pitch_mm: float

    def evaluate(self, axes: Axes) -> Floats:
        """Values at every point of the grid that the three coordinate vectors span."""
        weights = [
            _basis(a, self.pitch_mm, n) for a, n in zip(axes, self.control.shape, strict=True)
        ]
        planes = np.tensordot(weights[0], self.control, axes=(1, 0))
        rows = np.matmul(weights[1], planes)
        values: Floats = np.matmul(rows, weights[2].T)
        return values

    def bound(self) -> float:
        """A number that no absolute value of the field exceeds."""
        return float(np.abs(self.control).max())


def draw_field(
    rng: np.random.Generator, amplitude: float, *, pitch_mm: float, controls: int = 12
) -> SmoothField:
    """A field of about the given standard deviation whose features are a pitch or two wide."""
    control = np.clip(rng.standard_normal((controls,) * 3), -2.2, 2.2)
    return SmoothField(
        control=(control * (amplitude / _SPLINE_STD)).astype(np.float32), pitch_mm=pitch_mm
    )


def _basis(positions_mm: Floats, pitch_mm: float, controls: int) -> Floats:
    """Matrix (position, control) of the periodic cubic B-spline."""
    place = np.asarray(positions_mm, np.float64) / pitch_mm
    first = np.floor(place).astype(np.int64)
    t = place - first
    weights: Sequence[NDArray[np.float64]] = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    matrix = np.zeros((len(place), controls), np.float32)
    rows = np.arange(len(place))
    for step, weight in enumerate(weights):
        np.add.at(matrix, (rows, (first + step - 1) % controls), weight.astype(np.float32))
    return matrix
