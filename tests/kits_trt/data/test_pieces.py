"""Pieces and samples agree with what the runtime's nets read: the same scan, the same truth."""

from dataclasses import replace

import numpy as np
import pytest
from stages import slices, stage, volume
from training_cases import SPACING_MM, anatomy, lesson, patches, recipe
from training_cases import piece as plain_piece

from kits_runtime.grid import grid_over
from kits_runtime.look import asked_about, boxes_to_look_at
from kits_runtime.manifest.schema import (
    CentreInMask,
    CentreOnBrighterSide,
    Clip,
    ClipMeanSigma,
    DimOutsideMask,
    MultiplyByMask,
    Resample,
    Scale,
    Slices,
    Step,
    ZScore,
)
from kits_runtime.steps import Region, prepared_region, settled
from kits_runtime.volume import Volume
from kits_runtime.windows import padded
from kits_trt.data.make_pieces import pieces_of
from kits_trt.data.plans import SampleKey, lesson_from_system
from kits_trt.data.samples import draw_sample, whole_sample
from kits_trt.data.stage_pieces import CasePieces, Piece
from kits_trt.data.stage_views import StageView, resample_of, stage_view, true_outcome
from kits_trt.systems import SYSTEMS, Preset
from kits_trt.systems.recipe import SliceStacks
from kits_trt.systems.system import NetShape, System

EVERY = [
    (name, preset, net)
    for name, make in SYSTEMS.items()
    for preset in ("small", "paper")
    for net in make(preset).nets
]
OF_SLICES = [
    (name, preset, net)
    for name, preset, net in EVERY
    if isinstance(stage_view(SYSTEMS[name](preset), net).stage.windows, Slices)
]


def scan() -> Volume:
    return volume(anatomy()[0], SPACING_MM)


def read_by_the_runtime(view: StageView) -> list[Region]:
    """The regions that the runtime prepares when earlier stages find the truth."""
    stage, given, labels = view.stage, scan(), anatomy()[1]
    outcomes = {earlier.name: true_outcome(earlier, given, labels) for earlier in view.earlier}
    grid = grid_over(given.shape, given.spacing_mm, resample_of(stage))
    halves = stage.join == "halves"
    boxes = boxes_to_look_at(stage.look, given, grid, outcomes=outcomes, cut_halves=halves)
    asked = asked_about(boxes, stage, grid, outcomes)
    steps = settled(stage.steps, given, outcomes)
    return [prepared_region(given, grid, box, steps=steps, outcomes=outcomes) for box in asked]


def value_of_a_hu(piece: Piece) -> float:
    """What one HU becomes in the steps that are left."""
    gain = 1.0
    for step in piece.steps:
        if isinstance(step, Scale):
            gain *= (step.target[1] - step.target[0]) / (step.source[1] - step.source[0])
        elif isinstance(step, ZScore):
            assert step.std is not None
            gain /= step.std
    return abs(gain)


@pytest.mark.parametrize(("name", "preset", "net"), EVERY)
def test_whole_pieces_are_what_the_runtime_reads(name: str, preset: Preset, net: str) -> None:
    system = SYSTEMS[name](preset)
    view = stage_view(system, net)
    pieces = pieces_of(view, scan(), anatomy()[1])
    regions = read_by_the_runtime(view)
    taught = lesson_from_system(system, net, [CasePieces(name="a", pieces=pieces)])

    assert len(pieces) == len(regions) > 0
    for piece, region in zip(pieces, regions, strict=True):
        # HU are rounded to whole ones, and a mask's share to 1 in 2048 of up to 600 HU. That may
        # move a slice's mean in the mask by as much again, though roundings cancel in a mean.
        tolerance_hu = 0.5 if piece.masked is None else 0.5 + 600 / 4096 + 0.1
        values = whole_sample(taught, taught.cases[0], piece).values[0]
        assert values.dtype == np.float32
        error = np.abs(values - region.values).max()
        assert error <= tolerance_hu * value_of_a_hu(piece) + 1e-5
        assert np.ptp(values) > 20 * value_of_a_hu(piece)


@pytest.mark.parametrize(("name", "preset", "net"), OF_SLICES)
def test_unchanged_slices_are_those_of_the_runtime_s_windows(
    name: str, preset: Preset, net: str
) -> None:
    system = SYSTEMS[name](preset)
    view = stage_view(system, net)
    windows = view.stage.windows
    (piece, *_) = pieces = pieces_of(view, scan(), anatomy()[1])
    (region, *_) = read_by_the_runtime(view)
    taught = lesson_from_system(system, net, [CasePieces(name="a", pieces=pieces)])
    values, _ = padded(region.values, windows.shape, region.air)
    kept = np.flatnonzero(piece.kept)
    middle = int(kept[len(kept) // 2])
    key = SampleKey(seed=0, epoch=0, index=0, case=0, middle=(0, middle), augmented=False)

    sample = draw_sample(taught, key)

    half = sample.values.shape[0] // 2
    expected = values[middle - half : middle + half + 1]
    assert sample.values.shape == expected.shape == (2 * half + 1, *windows.shape)
    np.testing.assert_allclose(sample.values, expected, atol=0.8 * value_of_a_hu(piece) + 1e-5)


def two_stages(*steps: Step) -> System:
    """A stage of patches on a grid of its own, after one that finds kidneys with tumours."""
    resample = Resample(
        spacing_mm=(6.0, 3.0, 3.0), size_vox=(None, None, None), interpolation="linear"
    )
    last = stage(name="last", steps=steps, windows=patches(8, 8, 8))
    net = NetShape(in_channels=1, out_channels=2, size_vox=(8, 8, 8))
    return System(
        name="two",
        preset="small",
        labels=("background", "kidney", "tumour"),
        nets={"net": net, "other": net},
        stages=(stage(name="first", steps=(resample,)), last),
        overlay=("last",),
        recipes={
            "other": recipe(target={1: 1, 2: 1}, stage="first"),
            "net": recipe(target={2: 1}, stage="last"),
        },
    )


COARSE = Resample(spacing_mm=(8.0, 5.0, 5.0), size_vox=(None, None, None), interpolation="linear")
NEAREST = replace(COARSE, interpolation="nearest")


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (ZScore(mean=None, std=None),),
        (MultiplyByMask(of="first"), ClipMeanSigma(sigma=1.0, target=(0.0, 1.0))),
        (COARSE, MultiplyByMask(of="first"), ZScore(mean=None, std=None)),
        (MultiplyByMask(of="first"), NEAREST, Clip(lower_hu=-99.0, upper_hu=99.0)),
        (Clip(lower_hu=-99.5, upper_hu=99.0), MultiplyByMask(of="first"), COARSE),
        (MultiplyByMask(of="first"), CentreInMask(of="first", target_hu=50.0), COARSE),
        (COARSE, CentreInMask(of="first", target_hu=50.0), ZScore(mean=3.0, std=9.0)),
        (CentreOnBrighterSide(of="first", quantile=0.75, target_hu=50.0), COARSE),
        (COARSE, DimOutsideMask(of="first", within_mm=9.0, share=0.3)),
    ],
)
def test_any_order_of_steps_agrees_with_the_runtime(steps: tuple[Step, ...]) -> None:
    system = two_stages(*steps)
    view = stage_view(system, "net")
    pieces = pieces_of(view, scan(), anatomy()[1])
    taught = lesson_from_system(system, "net", [CasePieces(name="a", pieces=pieces)])

    (piece,), (region,) = pieces, read_by_the_runtime(view)

    values = whole_sample(taught, taught.cases[0], piece).values[0]
    np.testing.assert_allclose(values, region.values, atol=0.75 * value_of_a_hu(piece) + 1e-5)


def test_a_step_that_leaves_hu_before_the_grid_is_refused() -> None:
    system = two_stages(ZScore(mean=None, std=None), COARSE)
    with pytest.raises(ValueError, match="leaves HU before the resample step"):
        stage_view(system, "net")


def test_an_earlier_stage_that_nobody_teaches_is_refused() -> None:
    system = two_stages(MultiplyByMask(of="first"))
    alone = replace(system, recipes={"net": system.recipes["net"]})
    with pytest.raises(ValueError, match="no recipe for 'first'"):
        stage_view(alone, "net")


def test_the_truth_of_an_earlier_stage_is_what_its_recipe_tells() -> None:
    view = stage_view(two_stages(MultiplyByMask(of="first")), "net")
    (earlier,) = view.earlier
    labels = anatomy()[1]

    outcome = true_outcome(earlier, scan(), labels)

    assert earlier.labels == (1, 2)
    np.testing.assert_array_equal(outcome.on_scan, (labels > 0).astype(np.uint8))
    # 150 mm are 25 voxels of 6 mm; the middle of voxel p is at 6 p + 3 mm, in slice (6 p + 3) // 5.
    assert outcome.placed.shape == (25, 96, 112)
    rows = [(6 * p + 3) // 5 for p in range(25)]
    columns = [(6 * p + 3) // 8 for p in range(96)], [(6 * p + 3) // 8 for p in range(112)]
    np.testing.assert_array_equal(outcome.placed, labels[np.ix_(rows, *columns)] > 0)


def test_facts_of_a_piece_by_hand() -> None:
    labels = np.zeros((4, 6, 5), np.uint8)
    labels[1, 2, 3], labels[2, 2, 3], labels[2, 4, 0] = 1, 2, 3
    system = two_stages()
    view = stage_view(system, "net")

    (piece,) = pieces_of(view, volume(np.full((4, 6, 5), 40, np.int16)), labels)

    assert piece.groups.tolist() == [0, 1, 2, 0]
    assert piece.counts == (1, 1, 1)
    assert piece.places.tolist() == [1 * 30 + 2 * 5 + 3, 2 * 30 + 2 * 5 + 3, 2 * 30 + 4 * 5]
    assert piece.kept.all()


def test_a_masked_piece_holds_only_what_lies_near_its_mask() -> None:
    view = stage_view(SYSTEMS["resunet-msvnet"]("paper"), "msvnet")
    (piece,) = pieces_of(view, scan(), anatomy()[1])

    assert piece.shape[1:] == (512, 512)
    assert piece.masked == "kidney"
    share = piece.masks["kidney"].share
    y, x = (np.flatnonzero(share.any(axis=(0, axis))) for axis in (2, 1))
    margins = [y[0], share.shape[1] - 1 - y[-1], x[0], share.shape[2] - 1 - x[-1]]
    # 15 mm: the plane of 288 x 336 mm has pixels of 0.5625 x 0.65625 mm.
    assert margins == [27, 27, 23, 23]


def test_neighbours_of_kept_slices_skip_what_was_left_out() -> None:
    given = [np.full((2, 2), 10 * z) for z in range(6)]
    windows = slices((2, 2), depth=3, only="kidney", neighbours="kept")
    taught = lesson(recipe(SliceStacks(per_case=1, shares={("background",): 1.0})), windows, [])
    kept = np.array([0, 1, 0, 1, 1, 0], np.bool_)
    case = CasePieces(name="a", pieces=(plain_piece(np.stack(given), kept=kept),))
    taught = replace(taught, cases=(case,))

    def shown(middle: int) -> list[float]:
        key = SampleKey(seed=0, epoch=0, index=0, case=0, middle=(0, middle))
        return [float(value) for value in draw_sample(taught, key).values[:, 0, 0]]

    assert shown(1) == [10, 10, 30]
    assert shown(3) == [10, 30, 40]
    assert shown(4) == [30, 40, 40]
