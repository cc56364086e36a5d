"""Where a sample lies: the piece, and the cut of it that the draw of the recipe asks for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kits_runtime.infer import neighbour_slices
from kits_runtime.manifest.schema import Patches, Shape3, Slices
from kits_runtime.windows import padding
from kits_trt.data.frames import Cut
from kits_trt.data.plans import Lesson, SampleKey
from kits_trt.data.stage_pieces import Piece
from kits_trt.systems.recipe import Crops, SliceRuns

_ON_TARGET = 2 / 3  # of the parts of a plane
_TRIES = 100  # to meet a voxel that is not of the target; nearly all are not


def cut_of(lesson: Lesson, key: SampleKey, rng: np.random.Generator) -> tuple[Piece, Cut]:
    """The piece of a key's sample, and the cut of it.

    Raises:
        ValueError: The recipe's draw is not one for the windows of its stage.
    """
    windows, draw, pieces = lesson.stage.windows, lesson.recipe.draw, lesson.cases[key.case].pieces
    if isinstance(windows, Slices) and key.middle is not None:
        piece = pieces[key.middle[0]]
        return piece, _stack(piece, windows, key.middle[1])
    if isinstance(windows, Patches) and isinstance(draw, Crops):
        return _crop(lesson, key, windows, rng)
    if isinstance(windows, Patches) and isinstance(draw, SliceRuns):
        piece = pieces[int(rng.integers(len(pieces)))]
        return piece, _run(lesson, piece, windows.shape, draw, rng)
    raise ValueError(
        f"{lesson.stage.name}: found draw {type(draw).__name__} with windows {windows.kind!r}; "
        "expected slice stacks with slices, crops or slice runs with patches"
    )


def _stack(piece: Piece, windows: Slices, middle: int) -> Cut:
    """A slice and its neighbours, whole in plane and at least as large as a window."""
    axes = list(zip(piece.shape[1:], windows.shape, strict=True))
    before = [padding(length, size)[0] for length, size in axes]
    sizes = [max(length, size) for length, size in axes]
    centre = windows.depth // 2
    return Cut(
        rows=neighbour_slices(piece.kept, windows)[middle],
        corner=(-before[0], -before[1]),
        size=(sizes[0], sizes[1]),
        asked=slice(centre, centre + 1),
    )


def _crop(
    lesson: Lesson, key: SampleKey, windows: Patches, rng: np.random.Generator
) -> tuple[Piece, Cut]:
    pieces = lesson.cases[key.case].pieces
    holding = [piece for piece in pieces if _target_parts(lesson, piece)]
    among = holding if key.centred and holding else pieces
    piece = among[int(rng.integers(len(among)))]
    voxel = None
    if key.centred and holding:
        voxel = _drawn_from(piece, _target_parts(lesson, piece), rng)
    elif key.centred is not None:
        voxel = _away_from(lesson, piece, rng)
    starts = []
    for axis, (length, size) in enumerate(zip(piece.shape, windows.shape, strict=True)):
        if length < size:
            starts.append(-padding(length, size)[0])
        elif voxel is None:
            starts.append(int(rng.integers(0, length - size + 1)))
        else:
            starts.append(min(max(voxel[axis] - size // 2, 0), length - size))
    return piece, _cut_from(starts, windows.shape)


def _run(
    lesson: Lesson, piece: Piece, window: Shape3, draw: SliceRuns, rng: np.random.Generator
) -> Cut:
    shape = (window[0], *(draw.part_vox or window[1:]))
    parts = _target_parts(lesson, piece)
    starts = [-padding(n, size)[0] for n, size in zip(piece.shape, shape, strict=True)]
    if piece.shape[0] > shape[0]:
        starts[0] = _first_slice(piece, parts, shape[0], draw.margin_slices, rng)
    if draw.part_vox is not None:
        voxel = _drawn_from(piece, parts, rng) if parts and rng.random() < _ON_TARGET else None
        for axis in (1, 2):
            starts[axis] = _first_of_part(
                piece.shape[axis], shape[axis], voxel and voxel[axis], rng
            )
    return _cut_from(starts, shape)


def _first_slice(
    piece: Piece,
    parts: Sequence[NDArray[np.int64]],
    depth: int,
    margin: int,
    rng: np.random.Generator,
) -> int:
    low, high, length = 0, piece.shape[0], piece.shape[0]
    plane = piece.labels.shape[1] * piece.labels.shape[2]
    if parts:  # positions rise within a label
        low = min(int(part[0]) for part in parts) // plane - margin
        high = max(int(part[-1]) for part in parts) // plane + 1 + margin
    # Of slices that are fewer than a window's, all are in it.
    ends = np.clip(sorted((max(low, 0), min(high, length) - depth)), 0, length - depth)
    return int(rng.integers(ends[0], ends[1] + 1))


def _first_of_part(length: int, size: int, around: int | None, rng: np.random.Generator) -> int:
    """Where a part of an axis begins: a quarter of it or less off the middle, or anywhere."""
    if length <= size:
        return -padding(length, size)[0]
    if around is None:
        return int(rng.integers(0, length - size + 1))
    off = int(rng.integers(-(size // 4), size // 4 + 1))
    return min(max(around + off - size // 2, 0), length - size)


def _cut_from(starts: list[int], shape: Shape3) -> Cut:
    depth, height, width = shape
    return Cut(
        rows=np.arange(starts[0], starts[0] + depth),
        corner=(starts[1], starts[2]),
        size=(height, width),
        asked=slice(None),
    )


def _target_parts(lesson: Lesson, piece: Piece) -> list[NDArray[np.int64]]:
    """The flat positions of the target in a piece's arrays, label by label; no empty ones."""
    ends = np.cumsum(piece.counts)
    parts = np.split(piece.places, ends[:-1])
    told = [lesson.recipe.target.get(label, 0) for label in (1, 2, 3)]
    return [part for part, as_class in zip(parts, told, strict=True) if as_class and len(part)]


def _drawn_from(
    piece: Piece, parts: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> tuple[int, int, int]:
    """One of these positions, in voxels of the piece."""
    number = int(rng.integers(sum(len(part) for part in parts)))
    for part in parts:
        if number < len(part):
            break
        number -= len(part)
    z, y, x = np.unravel_index(int(part[number]), piece.labels.shape)
    return int(z), int(y) + piece.corner[0], int(x) + piece.corner[1]


def _away_from(lesson: Lesson, piece: Piece, rng: np.random.Generator) -> tuple[int, int, int]:
    """Any voxel of the piece that is not of the target."""
    for _ in range(_TRIES):
        z, y, x = (int(rng.integers(length)) for length in piece.shape)
        row, column = y - piece.corner[0], x - piece.corner[1]
        _, height, width = piece.labels.shape
        stored = 0 <= row < height and 0 <= column < width
        if not stored or lesson.recipe.target.get(int(piece.labels[z, row, column]), 0) == 0:
            break
    return z, y, x
