import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from open_files import open_files
from training_cases import anatomy, write_case

from kits_runtime.errors import OutOfMemoryError, ScanError
from kits_trt.data import cache
from kits_trt.data.cache import cached_pieces
from kits_trt.data.case_files import read_case
from kits_trt.data.datasets import TrainingCase, find_training_cases
from kits_trt.data.make_pieces import pieces_of
from kits_trt.data.stage_pieces import CasePieces, Piece
from kits_trt.data.stage_views import stage_view
from kits_trt.systems import SYSTEMS

Cases = tuple[TrainingCase, ...]

SYSTEM, NET = SYSTEMS["resunet-msvnet"]("small"), "msvnet"


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    write_case(tmp_path / "data" / "a")
    write_case(tmp_path / "data" / "b", anatomy()[0] + np.int16(3))
    return find_training_cases(tmp_path / "data")


def from_cache(tmp_path: Path, cases: Cases, **more: int) -> tuple[CasePieces, ...]:
    return cached_pieces(tmp_path / "cache", SYSTEM, NET, cases, **more)


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").iterdir())


def assert_equal(found: Piece, expected: Piece) -> None:
    for field in ("shape", "corner", "masked", "counts", "spacing_mm", "steps"):
        assert getattr(found, field) == getattr(expected, field)
    for field in ("hu", "labels", "kept", "groups", "places"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), strict=True)
    assert found.masks.keys() == expected.masks.keys()
    for name, mask in expected.masks.items():
        np.testing.assert_array_equal(found.masks[name].share, mask.share, strict=True)
        np.testing.assert_array_equal(found.masks[name].inside, mask.inside, strict=True)


def test_what_is_read_is_what_was_made(tmp_path: Path, cases: Cases) -> None:
    made = [pieces_of(stage_view(SYSTEM, NET), *read_case(case, "background")) for case in cases]
    for _ in range(2):
        found = from_cache(tmp_path, cases)
        assert [case.name for case in found] == ["a", "b"]
        for case, pieces in zip(found, made, strict=True):
            assert len(case.pieces) == len(pieces) == 2
            for piece, expected in zip(case.pieces, pieces, strict=True):
                assert_equal(piece, expected)
                assert isinstance(piece.hu, np.memmap)
                assert not piece.hu.flags.writeable


def test_cases_hold_no_file_open(tmp_path: Path, cases: Cases) -> None:
    before = open_files()
    found = from_cache(tmp_path, cases)
    for case in found:
        assert [piece.shape for piece in case.pieces[:]] == [piece.shape for piece in case.pieces]
        assert case.pieces[-1].shape == case.pieces[1].shape
        with pytest.raises(IndexError):
            case.pieces[2]
    assert not open_files() - before
    kept = found[0].pieces[0]
    assert {path.name for _, path in open_files() - before} >= {"0-hu.npy", "0-labels.npy"}
    del kept


def test_what_is_there_is_not_made_again(
    tmp_path: Path, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_cache(tmp_path, cases)
    before = entries(tmp_path)
    monkeypatch.setattr(cache, "read_case", None)  # it would be called
    told: list[tuple[int, int, str]] = []
    cached_pieces(tmp_path / "cache", SYSTEM, NET, cases, progress=lambda *news: told.append(news))
    assert entries(tmp_path) == before
    assert told == [(1, 2, "a"), (2, 2, "b")]


def test_two_processes_make_what_one_makes(tmp_path: Path, cases: Cases) -> None:
    alone = from_cache(tmp_path / "alone", cases)
    together = from_cache(tmp_path / "together", cases, workers=2)
    assert [path.name for path in entries(tmp_path / "alone")] == [
        path.name for path in entries(tmp_path / "together")
    ]
    for one, other in zip(alone, together, strict=True):
        for found, expected in zip(one.pieces, other.pieces, strict=True):
            assert_equal(found, expected)


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("0-hu.npy", Path.unlink, r"found 0-hu.npy unreadable \(No such file"),
        ("1-labels.npy", shorten, r"found \d+ bytes in 1-labels.npy, expected \d+"),
        ("0-hu.npy", flip_a_bit, "found another content of 0-hu.npy than was written"),
        ("index.json", Path.unlink, r"found index.json unreadable \(No such file"),
        ("index.json", shorten, "found index.json unreadable"),
        ("index.json", lambda path: path.write_text("{}"), "found index.json unreadable"),
    ],
)
def test_a_damaged_entry_is_made_again_and_told_in_one_line(
    tmp_path: Path,
    cases: Cases,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], object],
    told: str,
) -> None:
    (sound,) = from_cache(tmp_path, cases[:1])
    expected = [np.array(piece.hu) for piece in sound.pieces]
    (entry,) = entries(tmp_path)
    damage(entry / name)

    with caplog.at_level(logging.INFO):
        (found,) = from_cache(tmp_path, cases[:1])

    (line,) = caplog.messages
    assert line.startswith(str(entry))
    assert "\n" not in line
    assert re.search(told, line)
    for piece, hu in zip(found.pieces, expected, strict=True):
        np.testing.assert_array_equal(piece.hu, hu)
    assert entries(tmp_path) == [entry]


def test_another_file_another_cyst_and_another_step_have_places_of_their_own(
    tmp_path: Path, cases: Cases
) -> None:
    case = cases[:1]
    from_cache(tmp_path, case)
    cached_pieces(tmp_path / "cache", SYSTEM, NET, case, cyst="background")
    *steps, scale = SYSTEM.stages[1].steps
    other = replace(
        SYSTEM, stages=(SYSTEM.stages[0], replace(SYSTEM.stages[1], steps=tuple(steps)))
    )
    cached_pieces(tmp_path / "cache", other, NET, case)
    write_case(tmp_path / "data" / "a", anatomy()[0] + np.int16(1))
    from_cache(tmp_path, case)
    assert scale.kind == "scale"
    assert len(entries(tmp_path)) == 4


def test_nets_of_one_stage_share_an_entry(tmp_path: Path, cases: Cases) -> None:
    system = SYSTEMS["multistage25d"]("small")
    for net in ("res-unet-2", "res-net"):
        cached_pieces(tmp_path / "cache", system, net, cases[:1])
    assert len(entries(tmp_path)) == 1


def test_an_interrupted_case_leaves_nothing(
    tmp_path: Path, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "pieces_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        from_cache(tmp_path, cases)
    assert not (tmp_path / "cache").exists() or entries(tmp_path) == []


def test_a_case_that_does_not_fit_into_memory_is_named_and_leaves_nothing(
    tmp_path: Path, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("kits_trt.data.cache.pieces_of", too_large)
    with pytest.raises(OutOfMemoryError, match=f"^{cases[0].name}: found too little memory"):
        from_cache(tmp_path, cases)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_case_without_labels_is_refused_by_name(tmp_path: Path, cases: Cases) -> None:
    with pytest.raises(ScanError, match=r"a/imaging.nii.gz: found no segmentation"):
        from_cache(tmp_path, (replace(cases[0], labels=None),))
