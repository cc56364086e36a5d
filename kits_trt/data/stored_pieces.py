"""Pieces as files: plain .npy arrays and an index that says what they must be."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

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
    those of a few hundred cases would be more than a process may have.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._facts = _index(folder).pieces

    def __len__(self) -> int:
        return len(self._facts)

    @overload
    def __getitem__(self, number: int) -> Piece: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Piece, ...]: ...
    def __getitem__(self, number: int | slice) -> Piece | tuple[Piece, ...]:
        if isinstance(number, slice):
            return tuple(self[i] for i in range(len(self))[number])
        number = range(len(self))[number]
        return _read(self._folder, number, self._facts[number])


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


def _read(folder: Path, number: int, facts: StoredPiece) -> Piece:
    def mapped(name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(folder / f"{number}-{name}.npy", mmap_mode="r")
        return array

    return Piece(
        shape=facts.shape,
        corner=facts.corner,
        hu=mapped("hu"),
        labels=mapped("labels"),
        masks={
            name: PieceMask(share=mapped(f"share-{place}"), inside=mapped(f"inside-{place}"))
            for place, name in enumerate(facts.masks)
        },
        masked=facts.masked,
        kept=np.array(mapped("kept")),
        groups=np.array(mapped("groups")),
        places=mapped("places"),
        counts=facts.counts,
        spacing_mm=facts.spacing_mm,
        steps=facts.steps,
    )


def _stored(path: Path) -> StoredArray:
    size, crc = 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            crc = isal_zlib.crc32(chunk, crc)
    return StoredArray(bytes=size, crc32=crc)
