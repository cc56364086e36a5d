"""What is known of the sixth net without building it: its windows, and what their speed means."""

import math
from collections.abc import Mapping, Sequence

from kits_bench.shapes import PUBLISHED

NAME = "mlperf-shaped-unet3d"
REMARK = "not an MLPerf result: random weights, speed only"
WINDOW_VOX = (128, 128, 128)
OVERLAP = 0.5
SPACING_MM = (1.6, 1.2, 1.2)
# What the suite's results list says of one H200 (INT8, offline): samples, that is scans, a second.
PUBLIC_H200_SAMPLES_PER_S = 6.84


def windows_of(size: Sequence[int], spacing_mm: Sequence[float]) -> int:
    """How many windows a scan needs on the net's grid."""
    count = 1
    for voxels, own_mm, mm, window in zip(size, spacing_mm, SPACING_MM, WINDOW_VOX, strict=True):
        length = max(round(voxels * own_mm / mm), window)
        count *= 1 + math.ceil((length - window) / (window * (1 - OVERLAP)))
    return count


def samples_per_second(windows_per_second: float) -> Mapping[str, object]:
    """What so many windows a second mean for scans of the published shapes, nets alone."""
    mean = sum(windows_of(shape.size, shape.spacing_mm) for shape in PUBLISHED) / len(PUBLISHED)
    return {
        "windows_per_sample": round(mean, 1),
        "samples_per_s": round(windows_per_second / mean, 4),
        "public_h200_samples_per_s": PUBLIC_H200_SAMPLES_PER_S,
        "remark": REMARK + "; the public figure is of other scans, hardware and precision",
    }
