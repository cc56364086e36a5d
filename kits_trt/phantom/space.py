"""How a patient's coordinates and the undeformed anatomy belong together.

Every organ is drawn in an undeformed anatomy; a rotation and a smooth displacement field bend all
of them alike. To paint an organ only where it can be, its box is carried back through both.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from kits_trt.phantom.fields import Axes, Floats
from kits_trt.phantom.model import Organ, Patient
from kits_trt.phantom.shapes import Block, Bounds, Point

Slices = tuple[slice, slice, slice]
_LATTICE_MM = 16.0
_WINDOW = 5
"""The displacement is known on a lattice; a small organ asks for its extremes in a window."""
_SLACK_MM = 0.8
"""What the field can exceed its values on the lattice by, between two lattice points."""
_EXTENT_MM = ((-480.0, 480.0), (-240.0, 240.0), (-320.0, 320.0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """A patient's space with the extremes of its displacement: (6, z, y, x), lows then highs."""

    patient: Patient
    extremes: Floats

    @classmethod
    def of(cls, patient: Patient) -> "Space":
        """The patient's space."""
        axes = tuple(
            np.arange(first, last + 1, _LATTICE_MM, dtype=np.float32) for first, last in _EXTENT_MM
        )
        fields = [field.evaluate((axes[0], axes[1], axes[2])) for field in patient.warp]
        lows = [minimum_filter(values, _WINDOW) - np.float32(_SLACK_MM) for values in fields]
        highs = [maximum_filter(values, _WINDOW) + np.float32(_SLACK_MM) for values in fields]
        return cls(patient=patient, extremes=np.stack([*lows, *highs]))

    def block(self, axes: Axes) -> Block:
        """The grid that the coordinates span, with its points carried into the anatomy."""
        turn = self.patient.turn
        z, y, x = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
        points = np.empty((3, len(axes[0]), len(axes[1]), len(axes[2])), np.float32)
        for row, field in enumerate(self.patient.warp):
            points[row] = field.evaluate(axes)
            points[row] += (turn[row, 0] * z + turn[row, 1] * y) + turn[row, 2] * x
        breath = self.patient.breath
        if breath is not None:
            points[:, axes[0] > breath.below_mm] += np.reshape(
                np.array(breath.shift_mm, np.float32), (3, 1, 1, 1)
            )
        return Block(axes=axes, points=points)

    def locate(self, place: Point) -> Floats:
        """Where a point of the undeformed anatomy lies in the patient, to a fraction of a mm."""
        turn = self.patient.turn
        goal = np.asarray(place, np.float32)
        found = goal @ turn
        for _ in range(6):
            axes = (found[:1], found[1:2], found[2:])
            found = found + (goal - self.block(axes).points[:, 0, 0, 0]) @ turn
        return found

    def boxes(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners (n, 3) in patient coordinates of boxes (n, 3) of the undeformed anatomy."""
        low, high = self._displacement(lower, upper)
        turn = np.asarray(self.patient.turn, np.float64)
        first, last = lower - high, upper - low
        middle = (first + last) / 2 @ turn
        reach = (last - first) / 2 @ np.abs(turn)
        return middle - reach, middle + reach

    def slices(self, bounds: Bounds, axes: Axes, grown_mm: float) -> Slices | None:
        """Where on the grid a box of the anatomy can lie; None where it misses the grid."""
        corners = self.boxes(np.array([bounds[0]]) - grown_mm, np.array([bounds[1]]) + grown_mm)
        parts = []
        for axis, low, high in zip(axes, corners[0][0], corners[1][0], strict=True):
            first, last = np.searchsorted(axis, (low, high))
            if first >= last:
                return None
            parts.append(slice(int(first), int(last)))
        return parts[0], parts[1], parts[2]

    def _displacement(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        middle = (lower + upper) / 2 @ np.asarray(self.patient.turn, np.float64)
        starts = np.array([first for first, _ in _EXTENT_MM])
        counts = np.array(self.extremes.shape[1:])
        place = np.clip(np.rint((middle - starts) / _LATTICE_MM).astype(np.int64), 0, counts - 1)
        found = self.extremes[:, place[:, 0], place[:, 1], place[:, 2]].T.astype(np.float64)
        low, high = found[:, :3], found[:, 3:]
        # The window covers boxes that, displaced, stay within its half width of the middle.
        room = (_WINDOW // 2 - 0.5) * _LATTICE_MM - 9
        far = ((upper - lower).max(axis=1) / 2 > room) | (np.abs(middle) > -starts).any(axis=1)
        low[far] = -max(field.bound() for field in self.patient.warp)
        high[far] = -low[far]
        if self.patient.breath is not None:
            shift = np.array(self.patient.breath.shift_mm)
            return low + np.minimum(shift, 0), high + np.maximum(shift, 0)
        return low, high


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Boxes of many organs, found together, and which shapes (by id) several of them have."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    shared: frozenset[int]

    @classmethod
    def of(cls, organs: Sequence[Organ], space: Space, grown_mm: float) -> "Boxes":
        """Boxes around organs, roughness and soft edges included."""
        bounds = np.array([organ.shape.bounds() for organ in organs]).reshape(-1, 2, 3)
        rough = grown_mm + 2.0 * np.array([organ.rough_mm for organ in organs])[:, None]
        lower, upper = space.boxes(bounds[:, 0] - rough, bounds[:, 1] + rough)
        uses = Counter(id(organ.shape) for organ in organs)
        shared = frozenset(key for key, count in uses.items() if count > 1)
        return cls(lower=lower, upper=upper, shared=shared)

    def meeting(self, organs: Sequence[Organ], axes: Axes) -> Iterator[tuple[Organ, Slices]]:
        """The organs that the grid meets, and where."""
        first = np.stack([np.searchsorted(a, self.lower[:, i]) for i, a in enumerate(axes)], 1)
        last = np.stack([np.searchsorted(a, self.upper[:, i]) for i, a in enumerate(axes)], 1)
        for place in np.flatnonzero((first < last).all(axis=1)).tolist():
            (z0, y0, x0), (z1, y1, x1) = first[place].tolist(), last[place].tolist()
            yield organs[place], (slice(z0, z1), slice(y0, y1), slice(x0, x1))
