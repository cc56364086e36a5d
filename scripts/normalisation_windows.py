"""What clipping at mean +- 0.25 standard deviations leaves of kidneys and tumours, on phantoms.

Usage: python scripts/normalisation_windows.py [OUT]

Writes a CSV with one row for each phantom and population whose mean and standard deviation are
taken: the window in HU, and the shares of kidney and tumour voxels that it saturates.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom import draw_patient, render

SEED, PATIENTS, SIGMA = 11, 12, 0.25
SHAPE, SPACING_MM = (80, 192, 192), (4.0, 2.1, 2.1)
BODY_ABOVE_HU = -500
BOX_MM = 200.0
OUT = Path(__file__).parents[1] / "benchmarks/results/normalisation/sigma.csv"
HEADER = (
    "patient", "phase", "population", "from_hu", "to_hu", "kidney_saturated", "tumour_saturated"
)  # fmt: skip


def rows() -> Iterator[tuple[str | int, ...]]:
    """One row a phantom and population."""
    for patient_number in range(PATIENTS):
        patient = draw_patient(SEED, patient_number)
        hu, labels = render(
            patient, shape=SHAPE, spacing_mm=SPACING_MM, centre_mm=patient.centre_mm
        )
        for population, values in populations(hu, labels):
            mean, std = float(values.mean()), float(values.std())
            low, high = mean - SIGMA * std, mean + SIGMA * std
            shares = (_saturated(hu[labels == label], low, high) for label in (1, 2))
            yield (patient_number, patient.phase, population, f"{low:.0f}", f"{high:.0f}", *shares)


def populations(
    hu: NDArray[np.int16], labels: NDArray[np.uint8]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """The whole scan, the body, and a box of 200 mm around the kidneys of one side."""
    values = hu.astype(np.float64)
    yield "whole scan", values
    yield "body", values[hu > BODY_ABOVE_HU]
    half = labels.copy()
    half[:, :, labels.shape[2] // 2 :] = 0
    if half.any():
        middles = np.argwhere(half).mean(axis=0)
        reach = [
            slice(max(0, round(middle - BOX_MM / 2 / step)), round(middle + BOX_MM / 2 / step))
            for middle, step in zip(middles, SPACING_MM, strict=True)
        ]
        yield "box around a kidney", values[tuple(reach)]


def _saturated(values: NDArray[np.int16], low: float, high: float) -> str:
    return f"{np.mean((values < low) | (values > high)):.2f}" if values.size else ""


def main() -> None:
    """Writes the CSV."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(rows())


if __name__ == "__main__":
    main()
