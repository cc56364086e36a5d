from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from stages import unhurried

from kits_runtime.decide import background_scores, labels_from_scores
from kits_runtime.grid import Box, Grid, box_of, linear_taps
from kits_runtime.infer import Slab
from kits_runtime.manifest.schema import Argmax, Decide, Threshold
from kits_runtime.wayback import WayBack, touching

Shape = tuple[int, int, int]
Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

DECISIONS = [
    Argmax(labels=(0, 1)),
    Argmax(labels=(0, 2, 1)),
    Threshold(at_least=0.5, labels=(1,)),
    Threshold(at_least=0.4, labels=(1, 2)),
]
# Of the grid and of the scan: finer, coarser, as it is, both, and one slab of a scan.
RATIOS: list[tuple[Shape, Shape]] = [
    ((9, 11, 10), (23, 30, 31)),
    ((20, 24, 23), (9, 10, 11)),
    ((9, 12, 10), (9, 12, 10)),
    ((12, 9, 10), (12, 27, 7)),
    ((1, 8, 8), (2, 20, 21)),
]
_UNTOUCHED = 7


def smooth_scores(shape: Shape, decide: Decide, seed: int) -> Scores:
    """Random blobs; probabilities that add up to 1 over an argmax's classes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(len(decide.labels), *shape))
    rough = ndimage.gaussian_filter(noise, (0, 1, 1.5, 1.5)) * 8
    if isinstance(decide, Argmax):
        powers = np.exp(rough)
        return (powers / powers.sum(axis=0)).astype(np.float32)
    return (1 / (1 + np.exp(-rough))).astype(np.float32)


def cut_into_slabs(scores: Scores, depths: Sequence[int]) -> Iterator[Slab]:
    z = 0
    for depth in depths:
        part = scores[:, z : z + depth]
        z += depth
        if part.shape[1]:
            yield Slab(depth=part.shape[1], scores=part)
    if z < scores.shape[1]:
        yield Slab(depth=scores.shape[1] - z, scores=scores[:, z:])


def brought_back(
    grid: Grid, box: Box, decide: Decide, slabs: Iterator[Slab]
) -> tuple[Labels, Labels]:
    """The labels on the box and on the scan, where all outside the box's voxels stays as it was."""
    placed = np.zeros(box.shape, np.uint8)
    on_scan = np.full(grid.scan_shape, _UNTOUCHED, np.uint8)
    on_scan[grid.scan_box(box).slices] = 0
    back = WayBack(
        grid, box, decide=decide, placed=placed, on_scan=on_scan[grid.scan_box(box).slices]
    )
    for slab in slabs:
        back.push(slab)
    return placed, on_scan


def scores_on_scan(grid: Grid, box: Box, scores: Scores) -> npt.NDArray[np.float64]:
    """All scores over the scan voxels of a box at once, by scipy in float64."""
    scan = grid.scan_box(box)
    places = [
        np.clip((np.arange(a, b) + 0.5) * n / m - 0.5, first, last - 1) - first
        for a, b, n, m, first, last in zip(
            scan.start,
            scan.stop,
            grid.shape,
            grid.scan_shape,
            box.start,
            box.stop,
            strict=True,
        )
    ]
    mesh = np.meshgrid(*places, indexing="ij")
    return np.stack([ndimage.map_coordinates(c.astype(np.float64), mesh, order=1) for c in scores])


def is_close_call(scores: npt.NDArray[np.float64], decide: Decide) -> npt.NDArray[np.bool_]:
    """Where rounding may decide."""
    if isinstance(decide, Argmax):
        best, second = np.sort(scores, axis=0)[[-1, -2]]
        return np.asarray(best - second < 1e-5)
    return np.asarray((np.abs(scores - decide.at_least) < 1e-5).any(axis=0))


def assert_plain_definition(
    grid: Grid, box: Box, decide: Decide, scores: Scores, on_scan: Labels
) -> int:
    """Compares voxel for voxel; returns how many voxels are foreground."""
    reference = scores_on_scan(grid, box, scores)
    expected = labels_from_scores(reference.astype(np.float32), decide)
    own = on_scan[grid.scan_box(box).slices]
    sure = ~is_close_call(reference, decide)
    np.testing.assert_array_equal(own[sure], expected[sure])
    assert sure.mean() > 0.99
    outside = np.ones(grid.scan_shape, np.bool_)
    outside[grid.scan_box(box).slices] = False
    assert (on_scan[outside] == _UNTOUCHED).all()
    return int(np.count_nonzero(own))


@pytest.mark.parametrize("decide", DECISIONS, ids=str)
@pytest.mark.parametrize(("shape", "scan_shape"), RATIOS)
@pytest.mark.parametrize("depths", [[], [1] * 40, [3, 1, 2, 5], [2] * 40], ids=str)
def test_labels_are_those_of_the_plain_full_resolution_definition(
    shape: Shape, scan_shape: Shape, decide: Decide, depths: list[int]
) -> None:
    grid, box = Grid(shape, scan_shape, (1, 1, 1)), box_of(shape)
    scores = smooth_scores(shape, decide, seed=3)

    placed, on_scan = brought_back(grid, box, decide, cut_into_slabs(scores, depths))

    np.testing.assert_array_equal(placed, labels_from_scores(scores, decide))
    assert assert_plain_definition(grid, box, decide, scores, on_scan) > 0


@unhurried
@given(data=st.data(), seed=st.integers(0, 2**20), decide=st.sampled_from(DECISIONS))
def test_labels_of_a_box_inside_the_grid_are_those_of_the_plain_definition(
    data: st.DataObject, seed: int, decide: Decide
) -> None:
    sides = st.tuples(*[st.integers(1, 14)] * 3)
    grid = Grid(data.draw(sides), data.draw(sides), (1, 1, 1))
    corners = [
        sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in grid.shape
    ]
    (z, z_end), (y, y_end), (x, x_end) = corners
    box = Box((z, y, x), (z_end, y_end, x_end))
    scores = smooth_scores(box.shape, decide, seed)
    depths = data.draw(st.lists(st.integers(1, 5), max_size=14))

    placed, on_scan = brought_back(grid, box, decide, cut_into_slabs(scores, depths))

    np.testing.assert_array_equal(placed, labels_from_scores(scores, decide))
    reference = scores_on_scan(grid, box, scores)
    sure = ~is_close_call(reference, decide)
    expected = labels_from_scores(reference.astype(np.float32), decide)
    np.testing.assert_array_equal(on_scan[grid.scan_box(box).slices][sure], expected[sure])
    outside = np.ones(grid.scan_shape, np.bool_)
    outside[grid.scan_box(box).slices] = False
    assert (on_scan[outside] == _UNTOUCHED).all()


@pytest.mark.parametrize("decide", DECISIONS, ids=str)
@pytest.mark.parametrize(("shape", "scan_shape"), RATIOS[:4])
def test_slices_that_nobody_asked_about_are_background(
    shape: Shape, scan_shape: Shape, decide: Decide
) -> None:
    grid, box = Grid(shape, scan_shape, (1, 1, 1)), box_of(shape)
    scores = smooth_scores(shape, decide, seed=5)
    gaps = [(0, 1), (3, 5), (shape[0] - 2, shape[0])]
    for first, last in gaps:
        part = scores[:, first:last]
        part[...] = background_scores(part.shape, decide)

    placed, on_scan = brought_back(grid, box, decide, iter(with_gaps(scores, gaps)))

    np.testing.assert_array_equal(placed, labels_from_scores(scores, decide))
    assert assert_plain_definition(grid, box, decide, scores, on_scan) > 0


def with_gaps(scores: Scores, gaps: Sequence[tuple[int, int]]) -> list[Slab]:
    slabs, z = [], 0
    for first, last in gaps:
        slabs += list(cut_into_slabs(scores[:, z:first], [2] * 9)) if first > z else []
        slabs.append(Slab(depth=last - first, scores=None))
        z = last
    return slabs + (list(cut_into_slabs(scores[:, z:], [])) if z < scores.shape[1] else [])


@unhurried
@given(seed=st.integers(0, 2**20), classes=st.integers(2, 4))
def test_labels_as_scores_on_the_scan_s_own_grid_come_back_as_they_were(
    seed: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (5, 6, 7)).astype(np.uint8)
    one_hot = np.stack([labels == c for c in range(classes)]).astype(np.float32)
    grid = Grid(labels.shape, labels.shape, (1, 1, 1))

    placed, on_scan = brought_back(
        grid,
        box_of(labels.shape),
        Argmax(labels=tuple(range(classes))),
        cut_into_slabs(one_hot, [2, 2]),
    )

    np.testing.assert_array_equal(placed, labels)
    np.testing.assert_array_equal(on_scan, labels)


def test_labels_by_hand() -> None:
    # One row of 3 voxels becomes 6: scores at -0.25 (held), 0.25, 0.75, 1.25, 1.75, 2.25 (held).
    foreground = np.array([0.0, 0.9, 0.2], np.float32)
    scores = foreground.reshape(1, 1, 1, 3)
    grid = Grid((1, 1, 3), (1, 1, 6), (1, 1, 1))

    _, on_scan = brought_back(
        grid, box_of(grid.shape), Threshold(at_least=0.5, labels=(2,)), cut_into_slabs(scores, [])
    )

    # 0, 0.225, 0.675, 0.725, 0.375, 0.2
    assert on_scan.ravel().tolist() == [0, 0, 2, 2, 0, 0]


def test_a_class_may_win_between_two_voxels_of_other_classes() -> None:
    row = np.array([[0.5, 0.1], [0.4, 0.4], [0.1, 0.5]], np.float32)
    grid = Grid((1, 1, 2), (1, 1, 10), (1, 1, 1))

    _, on_scan = brought_back(
        grid, box_of(grid.shape), Argmax(labels=(0, 1, 2)), cut_into_slabs(row[:, None, None], [])
    )

    # Along the way w (0, 0, 0, .2, .4, .6, .8, 1, 1, 1) scores are 0.5 - 0.4 w, 0.4, 0.1 + 0.4 w.
    assert on_scan.ravel().tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]


@unhurried
@given(n=st.integers(2, 30), m=st.integers(1, 60), middle=st.data(), axis=st.integers(0, 2))
def test_each_scan_voxel_is_written_by_one_of_two_adjacent_boxes(
    n: int, m: int, middle: st.DataObject, axis: int
) -> None:
    cut = middle.draw(st.integers(1, n - 1))
    shape, scan_shape = [2, 2, 2], [3, 3, 3]
    shape[axis], scan_shape[axis] = n, m
    grid = Grid(tuple(shape), tuple(scan_shape), (1, 1, 1))  # type: ignore[arg-type]
    on_scan = np.zeros(grid.scan_shape, np.uint8)

    for label, (a, b) in ((1, (0, cut)), (2, (cut, n))):
        start, stop = [0, 0, 0], shape.copy()
        start[axis], stop[axis] = a, b
        box = Box(tuple(start), tuple(stop))  # type: ignore[arg-type]
        back = WayBack(
            grid,
            box,
            decide=Threshold(at_least=0.5, labels=(label,)),
            placed=np.zeros(box.shape, np.uint8),
            on_scan=on_scan[grid.scan_box(box).slices],
        )
        back.push(Slab(depth=box.shape[0], scores=np.ones((1, *box.shape), np.float32)))

    in_second = (2 * np.arange(m) + 1) * n >= 2 * m * cut
    along = np.moveaxis(on_scan, axis, -1)
    np.testing.assert_array_equal(along, np.broadcast_to(1 + in_second, along.shape))


def test_without_a_scan_to_write_only_the_box_is_filled() -> None:
    decide = Argmax(labels=(0, 1))
    scores = smooth_scores((4, 5, 6), decide, seed=1)
    placed = np.zeros((4, 5, 6), np.uint8)

    back = WayBack(
        Grid((4, 5, 6), (9, 9, 9), (1, 1, 1)),
        box_of((4, 5, 6)),
        decide=decide,
        placed=placed,
        on_scan=None,
    )
    back.push(Slab(depth=4, scores=scores))

    np.testing.assert_array_equal(placed, labels_from_scores(scores, decide))
    assert placed.any()


def test_slabs_may_reuse_their_memory() -> None:
    decide = Argmax(labels=(0, 1))
    grid = Grid((6, 5, 5), (15, 9, 9), (1, 1, 1))
    scores = smooth_scores(grid.shape, decide, seed=2)
    buffer = np.empty((2, 2, 5, 5), np.float32)

    def reusing() -> Iterator[Slab]:
        for z in (0, 2, 4):
            buffer[...] = scores[:, z : z + 2]
            yield Slab(depth=2, scores=buffer)
            buffer.fill(np.nan)

    _, on_scan = brought_back(grid, box_of(grid.shape), decide, reusing())

    assert assert_plain_definition(grid, box_of(grid.shape), decide, scores, on_scan) > 0


@unhurried
@given(
    target=st.integers(1, 30),
    source=st.integers(1, 30),
    ends=st.tuples(st.integers(0, 29), st.integers(0, 29)),
)
def test_touching_voxels_are_those_that_read_the_range(
    target: int, source: int, ends: tuple[int, int]
) -> None:
    first, last = sorted(min(end, source - 1) for end in ends)
    taps = linear_taps(target, source, start=0, stop=target, first=0, last=source - 1)

    start, stop = touching(taps, first, last)

    reading = [i for i in range(target) if first <= taps.upper[i] and taps.lower[i] <= last]
    assert list(range(start, stop)) == reading
