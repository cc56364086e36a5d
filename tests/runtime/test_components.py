import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from kits_runtime.components import (
    NEIGHBOURS_4,
    NEIGHBOURS_6,
    NEIGHBOURS_26,
    Neighbours,
    components_of,
)

Mask = npt.NDArray[np.bool_]

FACES = ndimage.generate_binary_structure(3, 1)
FACES_IN_SLICE = FACES & np.array([False, True, False])[:, None, None]
STRUCTURES = [
    (NEIGHBOURS_26, np.ones((3, 3, 3), bool)),
    (NEIGHBOURS_6, FACES),
    (NEIGHBOURS_4, FACES_IN_SLICE),
]
every_neighbourhood = pytest.mark.parametrize(
    ("neighbours", "structure"), STRUCTURES, ids=["26", "6", "4"]
)


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    shape = draw(arrays.array_shapes(min_dims=3, max_dims=3, max_side=12))
    share = draw(st.sampled_from([0.0, 0.05, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 2**32))).random(shape) < share


def snake(width: int) -> Mask:
    """One path through every other row, joined at alternating ends: the most rounds of joining."""
    mask = np.zeros((1, 2 * width + 1, width), bool)
    mask[:, ::2] = True
    mask[:, 1::4, -1] = True
    mask[:, 3::4, 0] = True
    return mask


@every_neighbourhood
@given(mask=masks())
@example(mask=snake(40))
@example(mask=snake(9).transpose(1, 2, 0))
def test_components_their_numbers_and_their_sizes_are_those_of_scipy(
    neighbours: Neighbours, structure: Mask, mask: Mask
) -> None:
    expected, count = ndimage.label(mask, structure)
    found = components_of(mask, neighbours)
    assert found.count == count
    np.testing.assert_array_equal(found.owner_of_voxels + 1, expected[mask])
    np.testing.assert_array_equal(found.sizes, np.bincount(expected[mask], minlength=count + 1)[1:])


@given(mask=masks())
def test_runs_say_where_the_voxels_are(mask: Mask) -> None:
    found = components_of(mask, NEIGHBOURS_6)
    drawn = np.zeros_like(mask)
    for z, y, start, stop in zip(found.z, found.y, found.start, found.stop, strict=True):
        assert not drawn[z, y, max(0, start - 1) : stop].any()
        drawn[z, y, start:stop] = True
    np.testing.assert_array_equal(drawn, mask)


def test_a_choice_of_components_is_a_choice_of_their_voxels() -> None:
    mask = np.array([[[1, 1, 0, 1, 0, 1, 1]]], bool)
    chosen = components_of(mask, NEIGHBOURS_26).chosen_of_voxels(np.array([True, False, True]))
    assert chosen.tolist() == [True, True, False, True, True]


def test_the_end_of_a_row_does_not_touch_the_start_of_the_next_but_one() -> None:
    mask = np.zeros((2, 3, 4), bool)
    mask[0, 0, 3] = mask[0, 2, 0] = mask[1, 0, 0] = True
    assert components_of(mask, NEIGHBOURS_26).count == 3


def test_neither_the_runtime_nor_its_commands_import_scipy() -> None:
    code = (
        "import sys, kits_runtime.cli.infer, kits_runtime.preview, kits_runtime.statistics; "
        "assert 'scipy.ndimage' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=True
    )
