"""What the renderer makes of a small map, so that a change of it cannot go unnoticed."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from kits_runtime.errors import KitsError
from kits_trt.phantom.phases import PHASES
from kits_trt.phantom.real_anatomy import patient_from_labels
from kits_trt.phantom.rendering import render

SHAPE, SPACING_MM, SEED = (16, 48, 48), (10.0, 8.0, 8.0), 11
_BLOCK = (4, 12, 12)
# Other processors round other ways, which moves a block's mean by far less; other random numbers
# or organs move some block by far more.
TOLERANCE_HU = 2


def probe_renderer() -> dict[str, list[int]]:
    """The means of blocks, in HU, of a small map rendered in each phase."""
    labels = _labels()
    means: dict[str, list[int]] = {}
    for case, phase in enumerate(PHASES):
        patient = patient_from_labels(labels, SPACING_MM, seed=SEED, case=case, phase=phase)
        hu, _ = render(patient, shape=SHAPE, spacing_mm=SPACING_MM)
        means[phase] = _block_means(hu)
    return means


def check_renderer(expected: Mapping[str, Sequence[int]]) -> None:
    """Refuses a renderer other than the one that was frozen.

    Raises:
        KitsError: A block's mean has moved.
    """
    for phase, means in probe_renderer().items():
        apart = max(abs(a - b) for a, b in zip(means, expected[phase], strict=True))
        if apart > TOLERANCE_HU:
            raise KitsError(
                f"frozen test, {phase} probe: found a block {apart} HU away, expected at most "
                f"{TOLERANCE_HU}. The renderer has changed: freeze a new version with "
                "python -m kits_bench.frozen_test.freeze and publish both figures."
            )


def _labels() -> NDArray[np.uint8]:
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    labels = np.zeros(SHAPE, np.uint8)
    for middle in (14, 33):
        labels[((z - 8) / 6) ** 2 + ((y - 28) / 4) ** 2 + ((x - middle) / 4) ** 2 <= 1] = 1
    labels[((z - 8) / 2.5) ** 2 + ((y - 26) / 3) ** 2 + ((x - 36) / 3) ** 2 <= 1] = 2
    return labels


def _block_means(hu: NDArray[np.int16]) -> list[int]:
    (a, p), (b, q), (c, r) = ((n // size, size) for n, size in zip(SHAPE, _BLOCK, strict=True))
    blocks = hu.reshape(a, p, b, q, c, r).mean(axis=(1, 3, 5))
    return [int(value) for value in np.rint(blocks).ravel()]
