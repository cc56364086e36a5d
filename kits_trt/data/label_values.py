"""A case's label map in our values: 0 background, 1 kidney, 2 tumour, 3 cyst."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Cyst = Literal["background", "kidney", "class"]

_CYST_BECOMES: Mapping[Cyst, int] = {"background": 0, "kidney": 1, "class": 3}


def labels_from_stored(
    stored: NDArray[np.uint8], classes: Mapping[int, int], cyst: Cyst
) -> NDArray[np.uint8]:
    """Labels whose values mean what ``classes`` says, cysts told as ``cyst`` asks.

    Values that ``classes`` does not name must not occur.
    """
    table = np.zeros(256, np.uint8)
    for value, label in classes.items():
        table[value] = _CYST_BECOMES[cyst] if label == 3 else label
    told: NDArray[np.uint8] = table[stored]
    return told
