import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from digital_phantom import (
    Array,
    Levels,
    Phantom,
    dice,
    manifest_of,
    nets_of,
    phantom,
    scores_of,
)
from nibabel.orientations import apply_orientation, inv_ornt_aff
from stages import slices, stage, volume

from kits_runtime.boxes import Means
from kits_runtime.cascade import CascadeResult, run_cascade, stages_wanted_on_scan
from kits_runtime.clock import Clock
from kits_runtime.errors import EngineError
from kits_runtime.grid import Box, box_of
from kits_runtime.infer import RunNet
from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    CentreInMask,
    CentreOnBrighterSide,
    Decide,
    FillHoles,
    Full,
    KeepLargest,
    KeepSurest,
    Manifest,
    MiddleOfBox,
    MultiplyByMask,
    Overlap,
    Patches,
    Resample,
    Stage,
    Threshold,
    Tight,
    Voxels,
)
from kits_runtime.volume import Volume, labels_in_source_order, volume_from_array
from kits_trt.systems import SYSTEMS, Preset

Labels = npt.NDArray[np.uint8]
PRESETS: tuple[Preset, ...] = get_args(Preset)
every_system = pytest.mark.parametrize("system", SYSTEMS)

# Kidney with tumour, and tumour. The scan's voxels are 4 x 3 x 3 mm: a grid of 4 x 3.24 x 3.24 mm
# loses some.
LIMITS: Mapping[tuple[str, str], tuple[float, float]] = {
    ("cascaded-vnet", "small"): (0.995, 0.995),
    ("cascaded-vnet", "paper"): (0.995, 0.99),
    ("resunet-msvnet", "small"): (0.995, 0.99),
    ("resunet-msvnet", "paper"): (0.995, 0.99),
    ("unet3d", "small"): (0.98, 0.97),
    ("unet3d", "paper"): (0.995, 0.99),
    ("multistage25d", "small"): (0.995, 0.99),
    ("multistage25d", "paper"): (0.995, 0.99),
    ("unet2d-pair", "small"): (0.99, 0.985),
    ("unet2d-pair", "paper"): (0.995, 0.99),
}


def segmented(
    scan: Volume, manifest: Manifest, nets: Mapping[str, RunNet], **options: Any
) -> CascadeResult:
    return run_cascade(scan, manifest, nets=nets, clock=Clock(), **options)


@pytest.fixture(scope="session")
def phantoms() -> Mapping[str, Phantom]:
    plain = phantom(levels=Levels())
    return dict.fromkeys(SYSTEMS, plain)


@pytest.fixture(scope="session")
def results(phantoms: Mapping[str, Phantom]) -> Mapping[tuple[str, str], CascadeResult]:
    """Every system in both presets on its phantom."""
    return {
        (system, preset): segmented(
            volume(phantoms[system].data, phantoms[system].spacing_mm),
            manifest_of(system, preset),
            nets_of(system, preset),
        )
        for system in SYSTEMS
        for preset in PRESETS
    }


@every_system
@pytest.mark.parametrize("preset", PRESETS)
def test_every_system_finds_the_kidneys_and_the_tumour(
    system: str,
    preset: Preset,
    results: Mapping[tuple[str, str], CascadeResult],
    phantoms: Mapping[str, Phantom],
) -> None:
    labels, truth = results[system, preset].labels, phantoms[system].truth
    kidney_limit, tumour_limit = LIMITS[system, preset]

    assert dice(labels > 0, truth > 0) > kidney_limit
    assert dice(labels == 2, truth == 2) > tumour_limit
    assert set(np.unique(labels).tolist()) == {0, 1, 2}
    assert results[system, preset].remarks == ()


@every_system
@pytest.mark.parametrize("preset", PRESETS)
def test_no_foreground_lies_beyond_a_stage_s_reach(
    system: str, preset: Preset, results: Mapping[tuple[str, str], CascadeResult]
) -> None:
    for outcome in results[system, preset].outcomes.values():
        if outcome.on_scan is not None:
            beyond = outcome.on_scan.copy()
            beyond[outcome.reach.seen_from(outcome.window).slices] = 0
            assert not beyond.any()


@every_system
def test_the_scan_is_not_changed(system: str, phantoms: Mapping[str, Phantom]) -> None:
    own = phantoms[system]
    for dtype in (np.int16, np.float32):
        scan = volume(own.data.astype(dtype), own.spacing_mm)

        segmented(scan, manifest_of(system, "small"), nets_of(system))

        np.testing.assert_array_equal(scan.data, own.data)


@every_system
def test_int16_and_float32_scans_give_the_same_labels(
    system: str,
    phantoms: Mapping[str, Phantom],
    results: Mapping[tuple[str, str], CascadeResult],
) -> None:
    own = phantoms[system]
    scan = volume(own.data.astype(np.float32), own.spacing_mm)

    labels = segmented(scan, manifest_of(system, "small"), nets_of(system)).labels

    np.testing.assert_array_equal(labels, results[system, "small"].labels)


ARRANGEMENTS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product([1, -1], repeat=3)
]


@pytest.fixture(scope="session")
def noisy_scans() -> Mapping[str, npt.NDArray[np.int16]]:
    """Small scans whose noise makes irregular masks, so that any difference shows."""
    rng = np.random.default_rng(11)
    noise = rng.integers(-45, 46, (17, 44, 50)).astype(np.int16)
    scan = phantom((17, 44, 50), (9.0, 7.6, 6.7), levels=Levels()).data + noise
    return dict.fromkeys(SYSTEMS, scan)


def tilted_affine(spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    z_mm, y_mm, x_mm = spacing_mm
    affine = np.array([[0, 0, -x_mm, 11], [0, -y_mm, 0, 22], [-z_mm, 0, 0, 33], [0, 0, 0, 1.0]])
    cosine, sine = np.cos(0.3), np.sin(0.3)
    affine[:3, :3] = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ affine[:3, :3]
    return affine


@pytest.mark.parametrize(
    ("system", "arrangements"),
    [
        ("resunet-msvnet", ARRANGEMENTS),
        ("multistage25d", ARRANGEMENTS[::5]),
        ("cascaded-vnet", ARRANGEMENTS[1::5]),
        ("unet3d", ARRANGEMENTS[2::5]),
        ("unet2d-pair", ARRANGEMENTS[3::5]),
    ],
)
def test_arrangements_of_a_scan_give_the_same_mask_in_the_world(
    system: str,
    arrangements: list[npt.NDArray[np.int_]],
    noisy_scans: Mapping[str, npt.NDArray[np.int16]],
) -> None:
    data, manifest = noisy_scans[system], manifest_of(system, "small")
    affine = tilted_affine((9.0, 7.6, 6.7))
    straight = segmented(volume(data, (9.0, 7.6, 6.7)), manifest, nets_of(system)).labels
    assert len(np.unique(straight)) > 1

    for ornt in arrangements:
        stored = np.ascontiguousarray(apply_orientation(data, ornt))
        scan = volume_from_array(stored, affine @ inv_ornt_aff(ornt, data.shape))
        labels = labels_in_source_order(scan, segmented(scan, manifest, nets_of(system)).labels)

        np.testing.assert_array_equal(labels, apply_orientation(straight, ornt))
        assert labels.flags.c_contiguous  # and so is written without a transposition


@every_system
def test_the_memory_order_of_kits_gives_the_same_labels(
    system: str, noisy_scans: Mapping[str, npt.NDArray[np.int16]]
) -> None:
    data, manifest = noisy_scans[system], manifest_of(system, "small")
    rows = segmented(volume(data), manifest, nets_of(system)).labels

    z_fastest = segmented(volume(np.asfortranarray(data)), manifest, nets_of(system)).labels

    np.testing.assert_array_equal(z_fastest, rows)
    assert z_fastest.flags.f_contiguous


def certain_of(channel: int, channels: int) -> RunNet:
    """A net that gives one channel a score of 1 and all others 0."""

    def net(patches: Array) -> Array:
        scores = np.zeros((len(patches), channels, *patches.shape[2:]), np.float32)
        scores[:, channel] = 1
        return scores

    return net


# What each net says everywhere: kidney where it can, tumour nowhere.
KIDNEY_EVERYWHERE: Mapping[str, Mapping[str, RunNet]] = {
    "cascaded-vnet": {
        "roi-vnet": certain_of(1, 2),
        "kidney-vnet": certain_of(1, 2),
        "tumour-vnet": certain_of(0, 2),
    },
    "resunet-msvnet": {"resunet3d": certain_of(1, 2), "msvnet": certain_of(0, 2)},
    "unet3d": {"unet": certain_of(1, 3)},
    "multistage25d": dict.fromkeys(("res-unet-1", "res-unet-2", "res-net"), certain_of(1, 3)),
    "unet2d-pair": {
        "kidney-unet": certain_of(0, 1),
        "tumour-unet": lambda patches: np.zeros((len(patches), 1, *patches.shape[2:]), np.float32),
    },
}


@every_system
@pytest.mark.parametrize("preset", PRESETS)
def test_a_scan_smaller_than_every_window_is_covered(system: str, preset: Preset) -> None:
    scan = volume(np.full((2, 9, 7), 40, np.int16), (5.0, 9.0, 9.0))

    result = segmented(scan, manifest_of(system, preset), KIDNEY_EVERYWHERE[system])

    last = list(result.outcomes.values())[-1] if system == "multistage25d" else None
    expected = np.ones((2, 9, 7), np.uint8)
    if last is not None:
        # Its boxes are shorter than the small preset's plane; too small an object is dropped.
        expected[...] = 0
        if last.placed.any():
            expected[last.grid.scan_box(last.box).slices] = 1
    np.testing.assert_array_equal(result.labels, expected)


@every_system
def test_progress_rises_to_one_in_every_stage(system: str, phantoms: Mapping[str, Phantom]) -> None:
    own, manifest = phantoms[system], manifest_of(system, "small")
    told: dict[str, list[float]] = {}

    segmented(
        volume(own.data, own.spacing_mm),
        manifest,
        nets_of(system),
        progress=lambda name, share: told.setdefault(name, []).append(share),
    )

    assert list(told) == [one.name for one in manifest.stages]
    for shares in told.values():
        assert shares == sorted(set(shares))
        assert shares[0] > 0
        assert shares[-1] == 1


def test_every_phase_of_every_stage_is_timed(phantoms: Mapping[str, Phantom]) -> None:
    own, clock = phantoms["multistage25d"], Clock()

    run_cascade(
        volume(own.data, own.spacing_mm),
        manifest_of("multistage25d", "small"),
        nets=nets_of("multistage25d"),
        clock=clock,
    )

    phases = ["look", "steps", "net", "windows", "way_back", "clean"]
    named = {f"{name}.{phase}" for name in ("localise", "segment") for phase in phases}
    assert set(clock.spent_ms()) == {*named, "segment.join", "overlay"}
    assert all(spent >= 0 for spent in clock.spent_ms().values())


# -- small cascades whose answers are known by hand -------------------------------------------

SHAPE = (6, 8, 20)
RIGHT, LEFT = Box((2, 2, 4), (4, 6, 8)), Box((2, 2, 12), (4, 6, 16))


def blocks(*boxes: Box, hu: int = 100, shape: tuple[int, int, int] = SHAPE) -> Volume:
    data = np.zeros(shape, np.int16)
    for box in boxes:
        data[box.slices] = hu
    return volume(data, (1.0, 1.0, 1.0))


def manifest_with(*stages: Stage, overlay: Sequence[str] | None = None) -> Manifest:
    plain = manifest_of("unet3d", "small")
    names = overlay or [stages[-1].name]
    return replace(plain, stages=stages, overlay=tuple(names))


def whole_windows(shape: tuple[int, int, int] = SHAPE) -> Patches:
    return Patches(shape=shape, stride=shape, join="mean")


def finder(**changes: Any) -> Stage:
    plain = stage(name="find", windows=whole_windows(), nets=("find",))
    return replace(plain, **changes)


def above_50(patches: Array) -> Array:
    return scores_of(patches[:, patches.shape[1] // 2] > 50)


def around_each(count: int, **changes: Any) -> Boxes:
    plain = Boxes(
        of="find",
        per="side",
        size=(Full(), Full(), Voxels(count=count)),
        centre=MiddleOfBox(),
        border="clip",
        otherwise="empty",
    )
    return replace(plain, **changes)


def answers_by_box(*scores: float) -> RunNet:
    """A net of one channel whose answer is told by how often it was asked."""
    calls = itertools.cycle(scores)

    def net(patches: Array) -> Array:
        return np.full((len(patches), 1, *patches.shape[2:]), next(calls), np.float32)

    return net


@pytest.mark.parametrize(
    ("join", "at_least", "of_overlap"),
    [
        ("mean", 0.59, True),  # (0.9 + 0.3) / 2
        ("mean", 0.61, False),
        ("max", 0.61, True),
        ("max", 0.89, True),
        ("max", 0.91, False),
        ("mean", 0.29, True),
        ("max", 0.29, True),
    ],
)
def test_overlapping_boxes_are_joined_by_mean_or_maximum(
    join: Any, at_least: float, of_overlap: bool
) -> None:
    look = around_each(12)  # x 0 to 12 and 8 to 20
    segment = stage(
        name="segment",
        look=look,
        windows=whole_windows((6, 8, 12)),
        decide=Threshold(at_least=at_least, labels=(1,)),
        join=join,
    )

    result = segmented(
        blocks(RIGHT, LEFT),
        manifest_with(finder(), segment),
        {"find": above_50, "net": answers_by_box(0.9, 0.3)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[..., :8], expected[..., 12:] = at_least <= 0.9, at_least <= 0.3
    expected[..., 8:12] = of_overlap
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("join", ["mean", "max"])
@pytest.mark.parametrize("decide", [Argmax(labels=(0, 1)), Threshold(at_least=-2, labels=(1,))])
def test_scores_below_zero_are_joined_as_well(join: Any, decide: Decide) -> None:
    def net(patches: Array) -> Array:
        if isinstance(decide, Argmax):
            return certain_of(1, 2)(patches) - 4  # background -4, foreground -3
        return np.full((len(patches), 1, *patches.shape[2:]), -1, np.float32)

    look = around_each(12, size=(Full(), Tight(margin_mm=0.0), Voxels(count=12)))
    segment = stage(
        name="segment", look=look, windows=whole_windows((6, 4, 12)), decide=decide, join=join
    )

    result = segmented(
        blocks(RIGHT, Box((2, 4, 12), (4, 8, 16))),
        manifest_with(finder(), segment),
        {"find": above_50, "net": net},
    )

    # Boxes y 2 to 6 and 4 to 8: the corners of their union belong to none of them.
    expected = np.zeros(SHAPE, np.uint8)
    expected[:, 2:6, :12] = expected[:, 4:8, 8:] = 1
    np.testing.assert_array_equal(result.labels, expected)


def test_halves_answer_for_their_own_side() -> None:
    segment = stage(
        name="segment",
        look=around_each(12),
        windows=whole_windows((6, 8, 12)),
        decide=Threshold(at_least=0.5, labels=(1,)),
        join="halves",
    )

    result = segmented(
        blocks(RIGHT, LEFT),
        manifest_with(finder(), segment),
        {"find": above_50, "net": answers_by_box(0.9, 0.3)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[..., :10] = 1
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("join", ["mean", "max"])
def test_slices_that_nobody_asked_about_are_background_in_a_join(join: Any) -> None:
    segment = stage(
        name="segment",
        look=around_each(12),
        windows=slices((8, 12), only="find"),
        decide=Threshold(at_least=0.5, labels=(1,)),
        join=join,
    )

    result = segmented(
        blocks(RIGHT, LEFT),
        manifest_with(finder(), segment),
        {"find": above_50, "net": certain_of(0, 1)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[2:4] = 1
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize(
    ("otherwise", "expected"), [("empty", (0, 0)), ("half", (1, 1)), ("whole", (1, 1))]
)
def test_nothing_found_takes_the_declared_fall_back(
    otherwise: Any, expected: tuple[int, int]
) -> None:
    segment = stage(
        name="segment",
        look=around_each(6, otherwise=otherwise),
        windows=whole_windows((6, 8, 10)),
        decide=Threshold(at_least=0.5, labels=(1,)),
    )

    result = segmented(
        blocks(), manifest_with(finder(), segment), {"find": above_50, "net": certain_of(0, 1)}
    )

    assert result.labels[..., :10].mean() == expected[0]
    assert result.labels[..., 10:].mean() == expected[1]
    remark = ("stage 'segment' had nowhere to look",) if otherwise == "empty" else ()
    assert result.remarks == remark


def test_one_side_found_leaves_the_other_to_the_fall_back() -> None:
    for otherwise, of_left in (("empty", 0), ("half", 1)):
        segment = stage(
            name="segment",
            look=around_each(4, otherwise=otherwise),
            windows=whole_windows((6, 8, 4)),
            decide=Threshold(at_least=0.5, labels=(1,)),
            join="halves",
        )

        result = segmented(
            blocks(RIGHT),
            manifest_with(finder(), segment),
            {"find": above_50, "net": certain_of(0, 1)},
        )

        expected = np.zeros(SHAPE, np.uint8)
        expected[..., 4:8], expected[..., 10:] = 1, of_left
        np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize("join", ["mean", "halves"])
def test_a_fall_back_to_the_whole_does_not_count_scores_twice(join: Any) -> None:
    segment = stage(
        name="segment",
        look=around_each(4, otherwise="whole"),
        windows=whole_windows((6, 8, 4)),
        decide=Threshold(at_least=0.5, labels=(1,)),
        join=join,
    )

    result = segmented(
        blocks(RIGHT),
        manifest_with(finder(), segment),
        {"find": above_50, "net": lambda patches: certain_of(0, 1)(patches) * np.float32(0.3)},
    )

    assert not result.labels.any()


def test_scores_fall_off_towards_slices_that_nobody_asked_about() -> None:
    # Grid slice p has its centre at scan slice 3p + 1; slices 1 and 2 are asked about.
    scan = blocks(Box((3, 0, 0), (9, 4, 4)), shape=(12, 4, 4))
    coarse = Resample(
        spacing_mm=(None, None, None), size_vox=(4, None, None), interpolation="linear"
    )
    find = finder(windows=whole_windows((12, 4, 4)))
    segment = stage(
        name="segment",
        steps=(coarse,),
        windows=slices((4, 4), only="find"),
        decide=Threshold(at_least=0.7, labels=(1,)),
    )

    result = segmented(
        scan, manifest_with(find, segment), {"find": above_50, "net": certain_of(0, 1)}
    )

    # Scores at scan slices 1 to 10: 0, 1/3, 2/3, 1, 1, 1, 1, 2/3, 1/3, 0.
    assert np.flatnonzero(result.labels[:, 0, 0]).tolist() == [4, 5, 6, 7]


def test_a_later_stage_overlays_an_earlier_one() -> None:
    wide, narrow = Box((0, 0, 2), (6, 8, 12)), Box((1, 1, 8), (3, 3, 16))
    data = np.zeros(SHAPE, np.int16)
    data[wide.slices] = 100
    data[narrow.slices] = 300
    kidney = finder(name="kidney", decide=Argmax(labels=(0, 1)), nets=("kidney",))
    tumour = finder(name="tumour", decide=Argmax(labels=(0, 2)), nets=("tumour",))
    nets = {
        "kidney": lambda patches: scores_of(patches[:, 0] == 100),
        "tumour": lambda patches: scores_of(patches[:, 0] == 300),
    }
    scan = volume(data, (1.0, 1.0, 1.0))

    forth = segmented(scan, manifest_with(kidney, tumour, overlay=["kidney", "tumour"]), nets)
    kidney_alone = segmented(scan, manifest_with(kidney, tumour, overlay=["kidney"]), nets)

    np.testing.assert_array_equal(forth.labels, np.array([0, 1, 2])[data // 150 + (data == 100)])
    np.testing.assert_array_equal(kidney_alone.labels, data == 100)
    assert forth.outcomes["kidney"].on_scan is None
    found = forth.outcomes["tumour"].mask_on_scan(box_of(scan.shape))
    np.testing.assert_array_equal(found, data == 300)


@pytest.mark.parametrize("clean_on", ["model", "scan"])
def test_clean_up_changes_the_result_and_what_later_stages_see(clean_on: Any) -> None:
    small, hole = Box((2, 3, 14), (4, 5, 16)), Box((2, 3, 5), (4, 5, 7))
    data = np.zeros(SHAPE, np.int16)
    for box, hu in ((Box((1, 2, 4), (5, 6, 8)), 100), (small, 100), (hole, 0)):
        data[box.slices] = hu
    find = finder(
        clean=(KeepLargest(count=1, per="all"), FillHoles(per_slice=False)), clean_on=clean_on
    )
    segment = stage(
        name="segment",
        look=around_each(4, size=(Tight(margin_mm=0.0),) * 3),
        windows=whole_windows((4, 4, 4)),
        decide=Threshold(at_least=0.5, labels=(2,)),
    )

    result = segmented(
        volume(data, (1.0, 1.0, 1.0)),
        manifest_with(find, segment, overlay=["find"]),
        {"find": above_50, "net": certain_of(0, 1)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[1:5, 2:6, 4:8] = 1
    np.testing.assert_array_equal(result.labels, expected)
    np.testing.assert_array_equal(result.outcomes["find"].placed, expected)
    assert result.outcomes["segment"].box == Box((1, 2, 4), (5, 6, 8))


ON_THE_RIGHT, LARGER, SMALLER = (
    Box((1, 1, 6), (3, 3, 9)),
    Box((1, 1, 11), (5, 5, 14)),
    Box((2, 5, 16), (4, 7, 19)),
)


@pytest.mark.parametrize("clean_on", ["model", "scan"])
@pytest.mark.parametrize("kept", [[LARGER], [ON_THE_RIGHT, LARGER]], ids=["left", "both"])
def test_each_side_is_cleaned_at_its_place(kept: list[Box], clean_on: Any) -> None:
    # Of the two blobs in the left half the larger one stays, whether the boxes begin there or not.
    segment = stage(
        name="segment",
        look=around_each(4, size=(Tight(margin_mm=0.0),) * 3),
        windows=whole_windows((4, 4, 4)),
        clean=(KeepLargest(count=1, per="side"),),
        clean_on=clean_on,
    )

    result = segmented(
        blocks(*kept, SMALLER),
        manifest_with(finder(), segment),
        {"find": above_50, "net": above_50},
    )

    expected = np.zeros(SHAPE, np.uint8)
    for box in kept:
        expected[box.slices] = 1
    np.testing.assert_array_equal(result.labels, expected)


def test_foreground_that_reaches_beyond_its_own_voxels_is_not_lost() -> None:
    # One grid voxel of certain foreground among scores just below the threshold.
    coarse = Resample(spacing_mm=(None, None, None), size_vox=(2, 2, 5), interpolation="nearest")
    find = finder(
        steps=(coarse,),
        windows=whole_windows((2, 2, 5)),
        decide=Threshold(at_least=0.5, labels=(1,)),
    )

    result = segmented(
        blocks(Box((0, 0, 8), (3, 4, 12))),
        manifest_with(find),
        {"find": lambda patches: np.where(patches > 50, 1, 0.45).astype(np.float32)},
    )

    # Along x scores are 0.45 + 0.55 w, and w is 1/8 or more all the way to the neighbours' centres.
    row = result.labels[0, 0]
    assert np.flatnonzero(row).tolist() == list(range(6, 14))
    assert (
        result.outcomes["find"].mask_on_scan(Box((0, 0, 0), (1, 1, 20))).ravel().tolist()
        == (row > 0).tolist()
    )


def test_the_find_stays_of_which_the_net_is_surest() -> None:
    def shaded(patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.stack([1 - patches[:, 0] / 100, patches[:, 0] / 100], axis=1)

    large, small = Box((1, 1, 10), (4, 6, 16)), Box((2, 2, 2), (4, 5, 6))
    scan = blocks(large, small)
    scan.data[large.slices] = 60
    scan.data[large.slices][:2, :2, :2] = 90  # 8 voxels
    scan.data[small.slices] = 80  # 24
    kept = {}
    for name, clean in (
        ("largest", KeepLargest(count=1, per="all")),
        ("surest", KeepSurest(at_least=0.75)),
        ("surer", KeepSurest(at_least=0.85)),
    ):
        result = segmented(scan, manifest_with(finder(clean=(clean,))), {"find": shaded})
        kept[name] = np.flatnonzero((result.labels > 0).any(axis=(0, 1))).tolist()

    assert kept == {
        "largest": list(range(10, 16)),
        "surest": list(range(2, 6)),
        "surer": list(range(10, 16)),
    }


def test_clean_up_of_nothing_found_is_nothing() -> None:
    for clean_on in ("model", "scan"):
        find = finder(clean=(FillHoles(per_slice=True),), clean_on=clean_on)

        result = segmented(blocks(), manifest_with(find), {"find": above_50})

        assert not result.labels.any()
        assert result.remarks == ()


def test_stages_whose_masks_are_read_on_the_scan_are_brought_there() -> None:
    overlap = stage(name="last", clean=(Overlap(of="c", at_least=0.5),), clean_on="scan")
    stages = (
        stage(name="a"),
        stage(name="b"),
        stage(name="c"),
        stage(name="d", clean=(Overlap(of="a", at_least=0.5),)),
        stage(name="e", steps=(MultiplyByMask(of="b"),)),
        overlap,
    )

    assert stages_wanted_on_scan(manifest_with(*stages, overlay=["d"])) == {"b", "c", "d", "last"}


def test_a_mask_that_no_overlay_needs_can_be_centred_in() -> None:
    segment = stage(
        name="segment",
        steps=(CentreInMask(of="find", target_hu=45.0),),
        windows=whole_windows(),
        decide=Argmax(labels=(0, 2)),
    )

    result = segmented(
        blocks(RIGHT),
        manifest_with(finder(), segment),
        {"find": above_50, "net": lambda patches: scores_of(patches[:, 0] == 45)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[RIGHT.slices] = 2
    np.testing.assert_array_equal(result.labels, expected)


def test_a_stage_reads_the_scan_as_the_brighter_side_says() -> None:
    segment = stage(
        name="segment",
        steps=(CentreOnBrighterSide(of="find", quantile=0.5, target_hu=45.0),),
        windows=whole_windows(),
        decide=Argmax(labels=(0, 2)),
    )
    scan = blocks(RIGHT)
    scan.data[RIGHT.slices] = 120

    result = segmented(
        scan,
        manifest_with(finder(), segment),
        {"find": above_50, "net": lambda patches: scores_of(patches[:, 0] == 45)},
    )

    expected = np.zeros(SHAPE, np.uint8)
    expected[RIGHT.slices] = 2
    np.testing.assert_array_equal(result.labels, expected)


def small_windows() -> Stage:
    return finder(windows=Patches(shape=(2, 4, 4), stride=(2, 4, 4), join="mean"))


def test_runs_that_ask_several_at_once_take_turns() -> None:
    means = Means(turn=threading.Lock(), at_once={"find": 2})
    scan, manifest = blocks(Box((1, 2, 2), (3, 6, 6))), manifest_with(small_windows())
    asking: Counter[str] = Counter()
    met, watch = [], threading.Lock()

    def net_of(run: str) -> RunNet:
        def net(patches: Array) -> Array:
            with watch:
                asking[run] += 1
                met.append(sorted(+asking))
            time.sleep(0.002)
            with watch:
                asking[run] -= 1
            return above_50(patches)

        return net

    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(segmented, scan, manifest, {"find": net_of(name)}, means=means)
            for name in ("a", "b")
        ]
        found = [run.result().labels for run in runs]

    assert {name for names in met for name in names} == {"a", "b"}
    assert ["a", "b"] not in met
    np.testing.assert_array_equal(found[0], found[1])


def test_a_net_that_fails_ahead_gives_the_turn_back() -> None:
    means = Means(turn=threading.Lock(), at_once={"find": 2})
    scan, manifest = blocks(Box((1, 2, 2), (3, 6, 6))), manifest_with(small_windows())
    calls = itertools.count()

    def fails(patches: Array) -> Array:
        if next(calls) == 3:
            raise EngineError("net find failed")
        return above_50(patches)

    with pytest.raises(EngineError, match="net find failed") as kept:
        segmented(scan, manifest, {"find": fails}, means=means)

    assert kept.tb is not None  # whoever keeps the error keeps its frames
    assert means.turn is not None
    assert not means.turn.locked()


def test_a_reader_of_progress_that_fails_gives_the_turn_back() -> None:
    means = Means(turn=threading.Lock(), at_once={"find": 2})
    scan, manifest = blocks(Box((1, 2, 2), (3, 6, 6))), manifest_with(small_windows())

    def stops(_stage: str, _share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:
        segmented(scan, manifest, {"find": above_50}, means=means, progress=stops)

    assert kept.tb is not None
    assert means.turn is not None
    assert not means.turn.locked()
