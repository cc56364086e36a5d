"""Random fields and shapes against SciPy and against distances derived by hand."""

import numpy as np
import pytest
from scipy.interpolate import BSpline

from kits_trt.phantom.fields import Axes, draw_field
from kits_trt.phantom.sampled import Grown, Sampled, distance_from_mask
from kits_trt.phantom.shapes import (
    Block,
    Capsule,
    Drum,
    Ellipsoid,
    Shape,
    rotation,
    tube,
)


def axes(*ranges: tuple[float, float, int]) -> Axes:
    z, y, x = (np.linspace(*part).astype(np.float32) for part in ranges)
    return z, y, x


def block_of(grid: Axes) -> Block:
    return Block(axes=grid, points=np.stack(np.meshgrid(*grid, indexing="ij")))


def at(shape: Shape, z: float, y: float, x: float) -> float:
    point = block_of(axes((z, z, 1), (y, y, 1), (x, x, 1)))
    return float(shape.signed_distance(point)[0, 0, 0])


def test_field_is_the_cubic_b_spline_of_its_controls() -> None:
    field = draw_field(np.random.default_rng(1), 2.0, pitch_mm=10.0, controls=5)
    z = np.array([3.0, 17.0, 44.5])
    found = field.evaluate((z.astype(np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)))
    basis = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)

    def weights(position: float) -> np.ndarray:
        total = np.zeros(5)
        for node in range(-10, 15):
            total[node % 5] += np.nan_to_num(basis(position / 10.0 - node))
        return total

    expected = [
        np.einsum("abc,a,b,c->", field.control, weights(p), weights(0), weights(0)) for p in z
    ]
    np.testing.assert_allclose(found[:, 0, 0], expected, atol=1e-5)


def test_field_repeats_after_its_period() -> None:
    field = draw_field(np.random.default_rng(2), 1.0, pitch_mm=7.0, controls=6)
    grid = axes((0, 30, 9), (-5, 9, 4), (2, 3, 3))
    moved = (grid[0] + np.float32(42), grid[1], grid[2] - np.float32(84))
    np.testing.assert_allclose(field.evaluate(grid), field.evaluate(moved), atol=2e-4)


def test_field_has_about_the_asked_deviation_and_stays_within_its_bound() -> None:
    field = draw_field(np.random.default_rng(3), 3.0, pitch_mm=5.0, controls=24)
    values = field.evaluate(axes((0, 119, 60), (0, 119, 60), (0, 119, 60)))
    assert float(values.std()) == pytest.approx(3.0, rel=0.12)
    assert float(np.abs(values).max()) <= field.bound()


@pytest.mark.parametrize(
    ("point", "expected"),
    [((0, 0, 0), -3.0), ((0, 0, 5), 2.0), ((-4, 0, 0), 1.0), ((14, 0, 0), 1.0), ((5, 4, 0), 1.0)],
)
def test_capsule_distance_is_to_the_segment_less_the_radius(
    point: tuple[float, float, float], expected: float
) -> None:
    capsule = Capsule(start=(0, 0, 0), end=(10, 0, 0), radius_mm=(3.0, 3.0))
    assert at(capsule, *point) == pytest.approx(expected, abs=1e-4)


def test_capsule_radius_runs_linearly_from_end_to_end() -> None:
    capsule = Capsule(start=(0, 0, 0), end=(10, 0, 0), radius_mm=(2.0, 4.0))
    assert at(capsule, 5, 7, 0) == pytest.approx(7 - 3.0, abs=1e-4)


@pytest.mark.parametrize("boxy", [False, True])
def test_ball_distance_is_exact_on_its_axes(boxy: bool) -> None:
    ball = Ellipsoid(centre=(1, 2, 3), semi_mm=(10, 10, 10), boxy=boxy)
    assert at(ball, 1, 2, 15) == pytest.approx(2.0, abs=0.8 if boxy else 1e-3)
    assert at(ball, 11, 2, 3) == pytest.approx(0.0, abs=1e-3)
    assert at(ball, 1, 2, 3) <= 0


def test_turned_ellipsoid_reaches_along_its_own_axes() -> None:
    turn = rotation(90.0, 0.0, 0.0)  # about z: what was along y now lies along x
    slab = Ellipsoid(centre=(0, 0, 0), semi_mm=(5, 20, 8), turn=turn)
    assert at(slab, 0, 0, 20) == pytest.approx(0.0, abs=1e-3)
    assert at(slab, 0, 8, 0) == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(slab.bounds()[1], (5, 8, 20), atol=1e-4)


def test_drum_has_flat_ends_and_an_elliptic_mantle() -> None:
    drum = Drum(centre=(0, 0, 0), semi_mm=(12, 16, 23))
    assert at(drum, 15, 3, 3) == pytest.approx(3.0, abs=1e-3)
    assert at(drum, 0, 16, 0) == pytest.approx(0.0, abs=1e-3)
    assert at(drum, 0, 0, 23) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    "shape",
    [
        Ellipsoid(centre=(3, -4, 5), semi_mm=(9, 14, 6), turn=rotation(20, 30, 40)),
        Ellipsoid(centre=(3, -4, 5), semi_mm=(9, 14, 6), turn=rotation(-50, 10, 70), boxy=True),
        Drum(centre=(0, 1, 2), semi_mm=(7, 12, 10), turn=rotation(15, -25, 35)),
        tube(np.array([[0, 0, 0], [9, 4, -7]]), np.array([3.0, 5.0]))[0],
    ],
)
def test_bounds_hold_the_whole_shape(shape: Shape) -> None:
    grid = axes((-30, 30, 41), (-30, 30, 41), (-30, 30, 41))
    inside = np.argwhere(shape.signed_distance(block_of(grid)) < 0)
    lower, upper = shape.bounds()
    for axis in range(3):
        reached = grid[axis][inside[:, axis]]
        assert lower[axis] <= reached.min()
        assert reached.max() <= upper[axis]


def test_sampled_ball_has_the_distance_of_the_ball() -> None:
    grid = axes((-20, 20, 41), (-20, 20, 41), (-20, 20, 41))
    block = block_of(grid)
    mask = (block.points**2).sum(axis=0) < 12.0**2
    ball = Sampled(
        distance=distance_from_mask(mask, (1, 1, 1)),
        first_mm=(-20, -20, -20),
        spacing_mm=(1, 1, 1),
        reach_mm=0,
    )
    assert at(ball, 0, 0, 12.0) == pytest.approx(0.0, abs=0.6)
    assert at(ball, 0, 16.0, 0) == pytest.approx(4.0, abs=0.6)
    assert at(ball, 4.5, 0, 0) == pytest.approx(-7.5, abs=0.6)
    assert at(Grown(shape=ball, by_mm=3.0), 0, 16.0, 0) == pytest.approx(1.0, abs=0.6)
