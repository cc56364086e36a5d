"""Pieces as files: plain .npy arrays and an index that says what they must be."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from kits_runtime.errors import ManifestError
from kits_runtime.manifest.codec import from_plain, to_plain
from kits_runtime.manifest.schema import Step
from kits_trt.data.stage_pieces import Piece, PieceMask

_INDEX = "index.json"
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArray:
    """One file: its bytes, and the CRC-32 of them."""

    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPiece:
    """What a piece is beside its arrays."""

    shape: tuple[int, int, int]
    corner: tuple[int, int]
    masks: tuple[str, ...]
    masked: str | None
    counts: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The pieces of a case, and every file that belongs to them."""

    pieces: tuple[StoredPiece, ...]
    files: Mapping[str, StoredArray]


def write_pieces(folder: Path, pieces: Sequence[Piece]) -> None:
    """Writes pieces into a folder that is empty; the index comes last."""
    files = {}
    for number, piece in enumerate(pieces):
        for name, array in _arrays(piece):
            path = folder / f"{number}-{name}.npy"
            np.save(path, array)
            files[path.name] = _stored(path)
    index = Index(pieces=tuple(_facts(piece) for piece in pieces), files=files)
    (folder / _INDEX).write_text(json.dumps(to_plain(index), indent=1), encoding="utf-8")


def checked(folder: Path) -> str | None:
    """What is wrong with a folder of pieces; None for one that is as it was written."""
    try:
        index = _index(folder)
        for name, expected in index.files.items():
            found = _stored(folder / name)
            if found.bytes != expected.bytes:
                return f"found {found.bytes} bytes in {name}, expected {expected.bytes}"
            if found.crc32 != expected.crc32:
                return f"found another content of {name} than was written"
    except (OSError, ValueError, ManifestError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        name = Path(str(error.filename)).name if isinstance(error, OSError) else _INDEX
        return f"found {name} unreadable ({' '.join((reason or str(error)).split())})"
    return None


class StoredPieces(Sequence[Piece]):
    """The pieces of a folder that was checked; large arrays are mapped, not read.

    A piece is mapped anew each time it is asked for: a mapping holds a descriptor of its file, and
    those of a few hundred cases would be more than a process may have. Headers and what is small
    are read once.
    """

    def __init__(self, folder: Path) -> None:
        facts = _index(folder).pieces
        self._pieces = [_Unmapped(folder, number, piece) for number, piece in enumerate(facts)]

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, number: int) -> Piece: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Piece, ...]: ...
    def __getitem__(self, number: int | slice) -> Piece | tuple[Piece, ...]:
        if isinstance(number, slice):
            return tuple(self[i] for i in range(len(self))[number])
        return self._pieces[number].mapped()


def _index(folder: Path) -> Index:
    return from_plain(Index, json.loads((folder / _INDEX).read_text(encoding="utf-8")))


def _arrays(piece: Piece) -> Iterator[tuple[str, NDArray[Any]]]:
    yield "hu", piece.hu
    yield "labels", piece.labels
    yield "kept", piece.kept
    yield "groups", piece.groups
    yield "places", piece.places
    for place, name in enumerate(sorted(piece.masks)):
        yield f"share-{place}", piece.masks[name].share
        yield f"inside-{place}", piece.masks[name].inside


def _facts(piece: Piece) -> StoredPiece:
    return StoredPiece(
        shape=piece.shape,
        corner=piece.corner,
        masks=tuple(sorted(piece.masks)),
        masked=piece.masked,
        counts=piece.counts,
        spacing_mm=piece.spacing_mm,
        steps=piece.steps,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array lies in its file."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    order: Literal["C", "F"]

    def mapped(self) -> NDArray[Any]:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)


class _Unmapped:
    """A piece without its large arrays."""

    def __init__(self, folder: Path, number: int, facts: StoredPiece) -> None:
        def place(name: str) -> _Place:
            return _place_of(folder / f"{number}-{name}.npy")

        self._facts = facts
        self._hu, self._labels, self._places = place("hu"), place("labels"), place("places")
        self._masks = {
            name: (place(f"share-{i}"), place(f"inside-{i}")) for i, name in enumerate(facts.masks)
        }
        self._kept = np.array(place("kept").mapped())
        self._groups = np.array(place("groups").mapped())

    def mapped(self) -> Piece:
        facts = self._facts
        return Piece(
            shape=facts.shape,
            corner=facts.corner,
            hu=self._hu.mapped(),
            labels=self._labels.mapped(),
            masks={
                name: PieceMask(share=share.mapped(), inside=inside.mapped())
                for name, (share, inside) in self._masks.items()
            },
            masked=facts.masked,
            kept=self._kept,
            groups=self._groups,
            places=self._places.mapped(),
            counts=facts.counts,
            spacing_mm=facts.spacing_mm,
            steps=facts.steps,
        )


def _place_of(path: Path) -> _Place:
    array: np.memmap[Any, np.dtype[Any]] = np.load(path, mmap_mode="r")
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    return _Place(path, array.dtype, array.shape, array.offset, order)


def _stored(path: Path) -> StoredArray:
    size, crc = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            crc = isal_zlib.crc32(chunk, crc)
    return StoredArray(bytes=size, crc32=crc)
