"""What the scanner adds: couch, correlated noise, streaks, shading, reconstruction circle."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from kits_trt.phantom.fields import Axes, Floats, draw_field
from kits_trt.phantom.model import Scanner, Torso

_REFERENCE_MM = (5.0, 0.8)
"""Slice thickness and pixel size at which ``Scanner.noise_hu`` is meant."""
AIR_HU = -1000.0
OUTSIDE_HU = -1024


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A scanner, its dose and its reconstruction."""
    return Scanner(
        noise_hu=float(np.clip(rng.lognormal(np.log(8.5), 0.4), 3.5, 24)),
        noise_grain_mm=float(rng.uniform(0.5, 1.1)),
        streak_hu=float(rng.gamma(1.2, 2.5)),
        bias=draw_field(rng, float(rng.uniform(0.5, 4.0)), pitch_mm=110.0, controls=8),
        blur_mm=float(rng.uniform(0.5, 1.3)),
        gain=float(rng.normal(1.0, 0.01)),
        field_of_view_mm=float(rng.uniform(350, 480)) if rng.random() < 0.35 else np.inf,
        couch_gap_mm=float(rng.uniform(1, 9)),
        couch_radius_mm=float(rng.uniform(260, 900)),
    )


def paint_couch(hu: Floats, axes: Axes, scanner: Scanner, torso: Torso) -> None:
    """Paints mattress and couch into the canvas: two thin shells around foam, under the back."""
    top_mm = torso.back_skin_mm + scanner.couch_gap_mm
    if axes[1][-1] < top_mm - 45:
        return
    x = axes[2]
    radius = scanner.couch_radius_mm
    sag = np.float32(radius) - np.sqrt(np.maximum(radius**2 - x**2, 1.0))
    depth = axes[1][:, None] - np.float32(top_mm) + sag.astype(np.float32)[None, :]
    half = min(205.0, 0.85 * radius)
    edge = np.clip(0.5 - (np.abs(x) - half) / 2, 0, 1)[None, :]
    soft = max(float(axes[1][1] - axes[1][0]), 0.8) if len(axes[1]) > 1 else 1.0
    for first, last, value in ((-2, 12, -930), (12, 15, -120), (15, 42, -965), (42, 44.5, -60)):
        distance = np.abs(depth - (first + last) / 2) - (last - first) / 2
        alpha = (np.clip(0.5 - distance / soft, 0, 1) * edge).astype(np.float32)
        hu += alpha * (np.float32(value) - hu)


class NoiseSource:
    """Noise planes in order from the top; neighbours are correlated where slices are thin."""

    def __init__(
        self,
        scanner: Scanner,
        axes: Axes,
        spacing_mm: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        self._scanner = scanner
        self._rng = rng
        self._axes = axes
        self._pixel_mm = (spacing_mm[1] + spacing_mm[2]) / 2
        self._keep = np.float32(np.exp(-spacing_mm[0] / 0.9))
        thickness = (_REFERENCE_MM[0] / max(spacing_mm[0], 0.6)) ** 0.45
        pixels = min(1.0, _REFERENCE_MM[1] / self._pixel_mm) ** 0.6
        self._strength = min(scanner.noise_hu * thickness * pixels, 60.0)
        y, x = axes[1][:, None], axes[2][None, :]
        # Rays through the middle of the body are attenuated most.
        self._profile = np.float32(0.7) + np.float32(0.55) * np.exp(
            -((y / 110) ** 2 + (x / 140) ** 2)
        )
        self._last: Floats | None = None

    def plane(self, z_mm: float) -> Floats:
        """The next plane (y, x) of noise in HU."""
        fresh = self._grain()
        if self._last is not None:
            fresh = self._keep * self._last + np.sqrt(1 - self._keep**2) * fresh
        self._last = fresh
        noise: Floats = fresh * (self._profile * np.float32(self._strength))
        return noise + self._streaks(z_mm)

    def _grain(self) -> Floats:
        """Band-limited noise of unit strength: fine grain less its own slow part."""
        white = self._rng.standard_normal((len(self._axes[1]), len(self._axes[2])), np.float32)
        sigma = self._scanner.noise_grain_mm / self._pixel_mm
        if sigma < 0.45:
            return white
        fine: Floats = gaussian_filter(white, sigma, truncate=2.5)
        slow = gaussian_filter(fine, 1.6 * sigma, truncate=2.0)
        fine -= np.float32(0.6) * slow
        fine /= np.float32(max(float(fine.std()), 1e-6))
        return fine

    def _streaks(self, z_mm: float) -> Floats:
        """Horizontal streaks, strongest at the hips and the shoulders."""
        y, x = self._axes[1], self._axes[2]
        rows = self._rng.standard_normal(len(y)).astype(np.float32)
        wide = 1 / (1 + np.exp(-(abs(z_mm - 20) - 190) / 25))
        strength = np.float32(self._scanner.streak_hu * (0.25 + 1.5 * wide))
        fall = np.exp(-((x / 190) ** 2))
        return (strength * rows)[:, None] * fall.astype(np.float32)[None, :]


def outside_circle(axes: Axes, scanner: Scanner) -> NDArray[np.bool_]:
    """Pixels (y, x) beyond the circle of reconstruction, which scanners fill with a constant."""
    y, x = axes[1], axes[2]
    away = np.hypot(y[:, None] - (y[0] + y[-1]) / 2, x[None, :] - (x[0] + x[-1]) / 2)
    outside: NDArray[np.bool_] = away > scanner.field_of_view_mm / 2
    return outside
