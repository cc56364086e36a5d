"""Validation against the runtime's own cascade, by hand, and against an independent loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lessons import tiny_lesson
from training_cases import anatomy

from kits_runtime.cascade import run_cascade
from kits_runtime.clock import Clock
from kits_runtime.errors import OutOfMemoryError
from kits_runtime.infer import Scores
from kits_runtime.volume import volume_from_array
from kits_trt.data.make_pieces import pieces_of
from kits_trt.data.plans import lesson_from_system
from kits_trt.data.stage_pieces import CasePieces
from kits_trt.data.stage_views import stage_view
from kits_trt.phantom.cases import kits_affine
from kits_trt.systems import SYSTEMS
from kits_trt.train.fixed_mask import GRID, best_fixed_mask, on_common_grid
from kits_trt.train.losses import soft_dice
from kits_trt.train.stage_scores import found_classes, validate_stage


def brightness(patches: Scores) -> Scores:
    """Scores of two classes that follow what the net reads, here of one channel."""
    bright = np.clip(patches[:, :1], 0.01, 0.99)
    return np.concatenate([1 - bright, bright], axis=1).astype(np.float32)


def test_dice_is_the_mean_over_cases_of_what_was_found() -> None:
    lesson = tiny_lesson()
    found = validate_stage(brightness, lesson)
    expected = []
    for case in lesson.cases:
        (piece,) = case.pieces
        above, true = np.clip(piece.hu / 100, 0.01, 0.99) > 0.5, piece.labels == 1
        expected.append(2 * (above & true).sum() / (above.sum() + true.sum()))
    assert found.dice == pytest.approx((np.mean(expected),), abs=1e-9)


def test_the_loss_is_that_of_the_scores_of_whole_pieces() -> None:
    lesson = tiny_lesson()
    losses = []
    for case in lesson.cases:
        (piece,) = case.pieces
        scores = torch.from_numpy(brightness(piece.hu[None, None].astype(np.float32) / 100))
        present = torch.from_numpy((piece.labels == 1)[None, None].astype(np.float32))
        losses.append(1 - float(soft_dice(scores[:, 1:], present)))
    found = validate_stage(brightness, lesson)
    assert found.loss == pytest.approx(np.mean(losses), abs=1e-5)


def test_too_little_memory_in_a_validation_names_the_case() -> None:
    taught = tiny_lesson()

    def run(_: Scores) -> Scores:
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"^validation on a: found"):
        validate_stage(run, taught)


def test_a_class_that_is_nowhere_and_not_found_counts_as_met() -> None:
    lesson = tiny_lesson()
    empty = []
    for case in lesson.cases:
        (piece,) = case.pieces
        nothing = replace(piece, labels=0 * piece.labels, hu=0 * piece.hu)
        empty.append(replace(case, pieces=(nothing,)))
    assert validate_stage(brightness, replace(lesson, cases=tuple(empty))).dice == (1.0,)


@pytest.mark.parametrize("name", ["kidney-unet", "tumour-unet"])
def test_a_stage_finds_here_what_it_finds_in_the_cascade(name: str) -> None:
    hu, labels = anatomy()
    volume = volume_from_array(hu, kits_affine((5.0, 4.0, 4.0)))
    system = SYSTEMS["unet2d-pair"]("small")
    plain = tuple(replace(stage, clean=(), clean_on="model") for stage in system.stages)
    pieces = pieces_of(stage_view(system, name), volume, labels)
    lesson = lesson_from_system(system, name, [CasePieces(name="a", pieces=pieces)])

    def bright(patches: Scores) -> Scores:
        return patches[:, :1].astype(np.float32)

    nets = dict.fromkeys(system.nets, bright)
    result = run_cascade(volume, replace(system, stages=plain), nets=nets, clock=Clock())
    outcome = result.outcomes[lesson.stage.name]
    (piece,) = pieces
    found = (outcome.placed > 0).astype(np.uint8)
    truth = np.isin(piece.labels, [k for k, told in lesson.recipe.target.items() if told])
    expected = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert validate_stage(bright, lesson).dice == pytest.approx((expected,), abs=1e-12)


def test_a_threshold_finds_the_last_channel_that_reaches_it() -> None:
    stage = SYSTEMS["unet2d-pair"]("small").stages[1]
    scores = np.array([[0.4, 0.5, 0.6]], np.float32)
    assert found_classes(scores, stage).tolist() == [0, 1, 1]


def test_a_fixed_mask_is_as_good_as_the_cases_are_alike() -> None:
    one = np.zeros(GRID, np.bool_)
    one[:10] = True
    other = np.zeros(GRID, np.bool_)
    other[5:15] = True
    assert best_fixed_mask([one], [one]) == 1.0
    # Two cases of 10 slices that share 5: their union of 15 has Dice 20 / 25 with either.
    assert best_fixed_mask([], [one, other]) == pytest.approx(0.8)
    assert best_fixed_mask([np.zeros(GRID, np.bool_)], [one, other]) == pytest.approx(0.8)


def test_masks_meet_on_a_grid_that_runs_from_end_to_end() -> None:
    mask = np.zeros((128, 48, 96), np.bool_)
    mask[64:] = True
    found = on_common_grid(mask)
    assert found.shape == GRID
    assert found[32:].all()
    assert not found[:32].any()
