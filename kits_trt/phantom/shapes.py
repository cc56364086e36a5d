"""Shapes as signed distances in mm: negative inside, positive outside, zero on the surface.

Distances of ellipsoids and drums are first-order: exact on the surface, good near it, which is all
that soft edges and shells of a few millimetres need.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kits_trt.phantom.fields import Axes, Floats

Point = tuple[float, float, float]
Bounds = tuple[Point, Point]

_TINY = np.float32(1e-6)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A piece of the grid: its coordinate vectors, and where the deformation carries its points.

    ``points`` is (3, z, y, x): the coordinates in the undeformed anatomy.
    """

    axes: Axes
    points: Floats

    def crop(self, where: tuple[slice, slice, slice]) -> "Block":
        """The part of the block inside the slices."""
        z, y, x = (axis[part] for axis, part in zip(self.axes, where, strict=True))
        return Block(axes=(z, y, x), points=self.points[(slice(None), *where)])


class Shape(Protocol):
    """Anything with a surface."""

    def bounds(self) -> Bounds:
        """Lower and upper corner of a box around the shape."""

    def signed_distance(self, block: Block) -> Floats:
        """Distance to the surface at every point of the block."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ellipsoid:
    """An ellipsoid, or with ``boxy`` its rounder-cornered relative of the fourth power.

    ``turn`` has the shape's own axes as rows; ``semi_mm`` is measured along them.
    """

    centre: Point
    semi_mm: Point
    turn: Floats | None = None
    boxy: bool = False

    def bounds(self) -> Bounds:
        """Box around the shape; the turned box is bounded by its projections."""
        return _turned_bounds(self.centre, self.semi_mm, self.turn, tight=not self.boxy)

    def signed_distance(self, block: Block) -> Floats:
        """First-order distance (r - 1) / |grad r| of the norm r that is 1 on the surface."""
        local = local_points(block.points, self.centre, self.turn)
        semi = np.asarray(self.semi_mm, np.float32).reshape(3, 1, 1, 1)
        local /= semi
        return _norm_distance(local, semi, boxy=self.boxy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drum:
    """An elliptic cylinder with rounded rims along its first own axis (vertebrae, discs)."""

    centre: Point
    semi_mm: Point
    turn: Floats | None = None

    def bounds(self) -> Bounds:
        """Box around the turned drum."""
        return _turned_bounds(self.centre, self.semi_mm, self.turn, tight=False)

    def signed_distance(self, block: Block) -> Floats:
        """The larger of the distances to the mantle and to the two end plates."""
        local = local_points(block.points, self.centre, self.turn)
        ends = np.abs(local[0]) - np.float32(self.semi_mm[0])
        semi = np.asarray(self.semi_mm[1:], np.float32).reshape(2, 1, 1, 1)
        mantle = _norm_distance(local[1:] / semi, semi, boxy=False)
        distance: Floats = np.maximum(mantle, ends)
        return distance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capsule:
    """A segment from start to end with a radius at each end; tubes are chains of these."""

    start: Point
    end: Point
    radius_mm: tuple[float, float]

    def bounds(self) -> Bounds:
        """Box around both end balls."""
        ends = np.array([self.start, self.end])
        radii = np.array(self.radius_mm)[:, None]
        return _corners((ends - radii).min(axis=0), (ends + radii).max(axis=0))

    def signed_distance(self, block: Block) -> Floats:
        """Distance to the nearest point of the segment, less the radius there."""
        start = np.asarray(self.start, np.float32)
        along = np.asarray(self.end, np.float32) - start
        away = block.points - start.reshape(3, 1, 1, 1)
        flat = away.reshape(3, -1)
        share = (along / np.float32(max(float(along @ along), 1e-6))) @ flat
        np.clip(share, 0.0, 1.0, out=share)
        flat -= along[:, None] * share
        first, last = self.radius_mm
        radius = np.float32(first) + share * np.float32(last - first)
        distance: Floats = np.sqrt(np.einsum("in,in->n", flat, flat)) - radius
        shaped: Floats = distance.reshape(away.shape[1:])
        return shaped


def tube(points: NDArray[np.float64], radii_mm: NDArray[np.float64]) -> tuple[Capsule, ...]:
    """The capsules along a path of points (n, 3) with a radius at each."""
    ends = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
    return tuple(
        Capsule(start=a, end=b, radius_mm=(float(r), float(s)))
        for a, b, r, s in zip(ends[:-1], ends[1:], radii_mm[:-1], radii_mm[1:], strict=True)
    )


def rotation(about_z: float, about_y: float, about_x: float) -> Floats:
    """Matrix whose rows are the shape's own z, y, x axes after turns in degrees (z, then y, x)."""
    a, b, c = np.deg2rad([about_z, about_y, about_x])
    turn_z = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
    turn_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn_x = np.array([[np.cos(c), np.sin(c), 0], [-np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(turn_z @ turn_y @ turn_x, np.float32)


def local_points(points: Floats, centre: Point, turn: Floats | None) -> Floats:
    """A new (3, z, y, x) array of coordinates along the shape's own axes."""
    local = points - np.asarray(centre, np.float32).reshape(3, 1, 1, 1)
    if turn is None:
        return local
    turned: Floats = (turn @ local.reshape(3, -1)).reshape(local.shape)
    return turned


def _norm_distance(scaled: Floats, semi: Floats, *, boxy: bool) -> Floats:
    square = scaled * scaled
    if not boxy:
        norm = np.sqrt(square.sum(axis=0))
        slope = np.sqrt((square / (semi * semi)).sum(axis=0))
        round_one: Floats = norm * (norm - 1) / np.maximum(slope, _TINY)
        return round_one
    norm = np.sqrt(np.sqrt((square * square).sum(axis=0)))
    slope = np.sqrt((square * square * square / (semi * semi)).sum(axis=0))
    boxy_one: Floats = (norm - 1) * norm**3 / np.maximum(slope, _TINY)
    return boxy_one


def _turned_bounds(centre: Point, semi: Point, turn: Floats | None, *, tight: bool) -> Bounds:
    middle = np.asarray(centre)
    axes = np.eye(3) if turn is None else np.asarray(turn, np.float64)
    reach = axes * np.asarray(semi)[:, None]
    half = np.sqrt((reach**2).sum(axis=0)) if tight else np.abs(reach).sum(axis=0)
    return _corners(middle - half, middle + half)


def _corners(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Bounds:
    return (
        (float(lower[0]), float(lower[1]), float(lower[2])),
        (float(upper[0]), float(upper[1]), float(upper[2])),
    )
