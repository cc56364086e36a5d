"""One training sample: what the net reads, and the classes it is to say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kits_runtime.manifest.schema import Slices
from kits_trt.data.changes import changed
from kits_trt.data.cuts import cut_of
from kits_trt.data.frames import (
    Cut,
    Frame,
    Matrix,
    mirrored_frame,
    placed_frame,
    read_values,
    straight_frame,
)
from kits_trt.data.plans import Lesson, SampleKey, classes_of
from kits_trt.data.stage_pieces import GROUPS, CasePieces, Piece, group_of
from kits_trt.systems.augmentation import Augment, Change, Group, Mirror, Place

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A sample of the net's window.

    Attributes:
        values: Float32, (channels, *window), or a part of it: exactly what the net reads.
        labels: Uint8, (*window): classes after ``Recipe.target``, of slice stacks those of the
            middle slice.
        case: The name of the case it was drawn from.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.uint8]
    case: str


def draw_sample(lesson: Lesson, key: SampleKey) -> Sample:
    """The sample of a key: a function of the key and the lesson alone."""
    rng = np.random.default_rng((key.seed, key.epoch, key.index))
    case = lesson.cases[key.case]
    piece, cut = cut_of(lesson, key, rng)
    frame = straight_frame(piece, cut)
    if key.augmented:
        group = _group(piece, key, frame)
        augment = [one for one in lesson.recipe.augment if not one.groups or group in one.groups]
        frame = _augmented(frame, piece, cut, augment, rng)
    values = read_values(frame, piece)
    labels = classes_of(lesson.recipe, frame.labels)
    if isinstance(lesson.stage.windows, Slices):
        window = _window_in(values.shape[1:], lesson.stage.windows.shape, rng)
        values, labels = values[(slice(None), *window)], labels[(0, *window)]
    else:
        values = values[None]
    return Sample(
        values=np.ascontiguousarray(values), labels=np.ascontiguousarray(labels), case=case.name
    )


def whole_sample(lesson: Lesson, case: CasePieces, piece: Piece) -> Sample:
    """A whole piece (1, z, y, x), from which the runtime cuts its windows, and its classes."""
    depth, *plane = piece.shape
    cut = Cut(rows=np.arange(depth), corner=(0, 0), size=(plane[0], plane[1]), asked=slice(None))
    frame = straight_frame(piece, cut)
    return Sample(
        values=read_values(frame, piece)[None],
        labels=classes_of(lesson.recipe, frame.labels),
        case=case.name,
    )


def _augmented(
    frame: Frame, piece: Piece, cut: Cut, augment: Sequence[Augment], rng: np.random.Generator
) -> Frame:
    """The frame after the changes that chance lets happen: those of place first, as one."""
    changes = [one.change for one in augment if rng.random() < one.change.chance]
    places = [change for change in changes if isinstance(change, Place)]
    mirrors = [change for change in changes if isinstance(change, Mirror)]
    if places:
        frame = placed_frame(piece, cut, view_matrix(changes, cut.size, rng))
        frame = mirrored_frame(frame, [0] if sum(0 in m.axes for m in mirrors) % 2 else [])
    for change in changes:
        if not isinstance(change, Place | Mirror):
            frame = changed(frame, change, piece, rng)
        elif isinstance(change, Mirror) and not places:
            frame = mirrored_frame(frame, change.axes)
    return frame


def view_matrix(
    changes: Sequence[Change], size: tuple[int, int], rng: np.random.Generator
) -> Matrix:
    """Where a frame's (y, x, 1), from its middle, looks after all places and mirrors, in order."""
    matrix: Matrix = np.eye(3)
    for change in changes:
        if isinstance(change, Place):
            matrix = matrix @ _placed(change, size, rng)
        elif isinstance(change, Mirror):
            matrix = matrix @ np.diag([-1.0 if axis in change.axes else 1.0 for axis in (1, 2, 3)])
    return matrix


def _placed(place: Place, size: tuple[int, int], rng: np.random.Generator) -> Matrix:
    angle = np.deg2rad(rng.uniform(-place.degrees, place.degrees))
    zoom = rng.uniform(*place.zoom)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    shifts = [rng.uniform(-place.shift, place.shift) * length for length in size]
    return np.array([[cosine, -sine, shifts[0]], [sine, cosine, shifts[1]], [0, 0, 1]])


def _group(piece: Piece, key: SampleKey, frame: Frame) -> Group:
    if key.middle is not None:
        return GROUPS[int(piece.groups[key.middle[1]])]
    return group_of(frame.labels)


def _window_in(
    plane: Sequence[int], window: Sequence[int], rng: np.random.Generator
) -> tuple[slice, slice]:
    """A window anywhere in a plane that holds it."""
    y, x = (int(rng.integers(0, n - size + 1)) for n, size in zip(plane, window, strict=True))
    return slice(y, y + window[0]), slice(x, x + window[1])
