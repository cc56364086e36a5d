"""Draws docs/images/phantoms.png: six phantoms, axial and coronal, with their label contours.

Usage: python scripts/phantom_pictures.py [OUT.png]
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from kits_trt.phantom import Patient, Phase, draw_patient, render

SEED = 2019
# Six cases with a phase each, so that all four phases show.
CASES: tuple[tuple[int, Phase], ...] = (
    (0, "arterial"),
    (1, "nephrographic"),
    (2, "unenhanced"),
    (3, "excretory"),
    (4, "arterial"),
    (5, "nephrographic"),
)
SHAPE = (150, 288, 320)
SPACING_MM = (2.5, 1.25, 1.25)
WINDOW_HU = (-160, 240)
CONTOURS = ((1, "#38d060"), (2, "#ff4040"))


def main(argv: Sequence[str]) -> int:
    """Renders the cases and writes the picture."""
    out = Path(argv[1]) if len(argv) > 1 else Path("docs/images/phantoms.png")
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, rows = plt.subplots(
        2, len(CASES), figsize=(18, 5.9), height_ratios=(288, 300), facecolor="black"
    )
    for column, (case, phase) in enumerate(CASES):
        patient = draw_patient(SEED, case, phase=phase)
        hu, labels = render(patient, shape=SHAPE, spacing_mm=SPACING_MM)
        draw_case(rows[:, column], patient, hu, labels)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.95, wspace=0.01, hspace=0.01)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=76, facecolor="black", pil_kwargs={"optimize": True})
    print(out)
    return 0


def draw_case(
    axes: NDArray[Any], patient: Patient, hu: NDArray[np.int16], labels: NDArray[np.uint8]
) -> None:
    """One column: the axial and the coronal plane with the most tumour, or kidney without one."""
    shown = labels == (2 if (labels == 2).any() else 1)
    z = int(np.argmax(shown.sum(axis=(1, 2))))
    y = int(np.argmax(shown.sum(axis=(0, 2))))
    draw_plane(axes[0], hu[z], labels[z], 1.0)
    draw_plane(axes[1], hu[:, y], labels[:, y], SPACING_MM[0] / SPACING_MM[2])
    axes[0].set_title(f"case {patient.case}, {patient.phase}", color="white", fontsize=13)


def draw_plane(axis: Axes, hu: NDArray[np.int16], labels: NDArray[np.uint8], aspect: float) -> None:
    """One plane in an abdominal window, contours over it."""
    low, high = WINDOW_HU
    axis.imshow(hu, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
    for value, colour in CONTOURS:
        if (labels == value).any():
            axis.contour(labels == value, [0.5], colors=colour, linewidths=0.9)
    axis.axis("off")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
