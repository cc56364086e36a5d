"""The numbers here are those of the five papers, not of the code: they stand in both places."""

import itertools
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kits_runtime.manifest import manifest_from_json, manifest_to_json
from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    Card,
    CentreInMask,
    Clip,
    DropSmall,
    EigenvalueRatio,
    FillHoles,
    Foreground,
    KeepLargest,
    Manifest,
    MiddleOfBox,
    MiddleOfProjections,
    MultiplyByMask,
    NetFile,
    Overlap,
    Part,
    Patches,
    Provenance,
    Resample,
    Scale,
    Slices,
    Stage,
    Threshold,
    Tight,
    Voxels,
    Whole,
    ZScore,
)
from kits_runtime.windows import kept_ranges, window_starts
from kits_trt.systems import SYSTEMS, Preset, System, manifest_from_system

PRESETS: tuple[Preset, ...] = ("paper", "small")
every_system = pytest.mark.parametrize("name", SYSTEMS)
every_preset = pytest.mark.parametrize("preset", PRESETS)


def manifest_of(system: System) -> Manifest:
    file = NetFile(path="net", sha256="0" * 64, bytes=1, tensors="float32", weights="float16")
    return manifest_from_system(
        system,
        files={name: {"fp16": file} for name in system.nets},
        provenance=Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={"x": "1"}),
        card=Card(
            intended_use="tests",
            training_data="none",
            licence="none",
            metrics={"dice": 0.25},
            remarks=(),
        ),
    )


def paper(name: str) -> dict[str, Stage]:
    """The stages of a system as published, by name."""
    return {stage.name: stage for stage in SYSTEMS[name]("paper").stages}


def kinds(items: tuple[Any, ...]) -> list[str]:
    return [item.kind for item in items]


def test_there_are_five_systems() -> None:
    assert list(SYSTEMS) == [
        "cascaded-vnet",
        "resunet-msvnet",
        "unet3d",
        "multistage25d",
        "unet2d-pair",
    ]


@every_preset
@every_system
def test_a_system_survives_the_round_trip_exactly(name: str, preset: Preset) -> None:
    manifest = manifest_of(SYSTEMS[name](preset))
    text = manifest_to_json(manifest)
    again = manifest_from_json(text)
    assert again == manifest
    assert manifest_to_json(again) == text
    assert (again.system, again.preset) == (name, preset)


@every_preset
@every_system
def test_a_manifest_says_of_a_net_what_the_system_says(name: str, preset: Preset) -> None:
    system = SYSTEMS[name](preset)
    nets = manifest_of(system).nets
    assert set(nets) == set(system.nets) == {net for stage in system.stages for net in stage.nets}
    for net, shape in system.nets.items():
        assert (nets[net].in_channels, nets[net].out_channels, nets[net].size_vox) == (
            shape.in_channels,
            shape.out_channels,
            shape.size_vox,
        )
        assert (nets[net].input_name, nets[net].output_name) == ("patches", "scores")


@every_preset
@every_system
def test_labels_and_overlay_are_the_challenges(name: str, preset: Preset) -> None:
    system = SYSTEMS[name](preset)
    assert system.labels == ("background", "kidney", "tumour")
    by_name = {stage.name: stage for stage in system.stages}
    shown = {label for stage in system.overlay for label in by_name[stage].decide.labels}
    assert shown - {0} == {1, 2}


def small_kinds(name: str, published: list[str]) -> list[str]:
    """The published steps as small presets have them, by ADR 0021 and 0024."""
    if name == "cascaded-vnet":
        return [published[0], "clip", *published[1:]]
    if "centre_in_mask" in published:
        return ["resample", "clip", "dim_outside_mask", "centre_on_brighter_side", "scale"]
    return published


SMALL_SLICES = {("resunet-msvnet", "msvnet"): 9}  # where small reads other slices than the paper


@every_system
def test_the_small_preset_keeps_the_topology(name: str) -> None:
    def topology(system: System) -> object:
        stages = [
            (stage.name, stage.nets, stage.combine, stage.decide, stage.join, stage.clean_on)
            for stage in system.stages
        ]
        nets = {
            net: (shape.out_channels, len(shape.size_vox)) for net, shape in system.nets.items()
        }
        windows = [(stage.windows.kind, stage.windows.join) for stage in system.stages]
        return stages, nets, windows, system.overlay, system.labels

    published, small = SYSTEMS[name]("paper"), SYSTEMS[name]("small")
    assert topology(small) == topology(published)
    for ours, theirs in zip(small.stages, published.stages, strict=True):
        assert kinds(ours.steps) == small_kinds(name, kinds(theirs.steps))
    for net, shape in small.nets.items():
        channels = SMALL_SLICES.get((name, net), published.nets[net].in_channels)
        assert shape.in_channels == channels
        sizes = zip(shape.size_vox, published.nets[net].size_vox, strict=True)
        assert all(ours <= theirs for ours, theirs in sizes)
    assert small.nets != published.nets


def test_unet3d_prepares_the_scan_as_table_1_says() -> None:
    (stage,) = paper("unet3d").values()
    assert stage.steps == (
        Resample(
            spacing_mm=(3.22, 1.62, 1.62), size_vox=(None, None, None), interpolation="linear"
        ),
        Clip(lower_hu=-79.0, upper_hu=304.0),
        Scale(source=(-79.0, 304.0), target=(0.0, 1.0)),
    )
    assert stage.look == Foreground(above_hu=-79.0)


def test_unet3d_slides_patches_of_32_by_128_by_128_overlapping_by_a_quarter() -> None:
    (stage,) = paper("unet3d").values()
    assert stage.windows == Patches(shape=(32, 128, 128), stride=(24, 96, 96), join="mean")


def test_unet3d_has_one_net_of_three_classes_and_no_clean_up() -> None:
    system = SYSTEMS["unet3d"]("paper")
    (stage,) = system.stages
    assert stage.decide == Argmax(labels=(0, 1, 2))
    assert [(net.in_channels, net.out_channels) for net in system.nets.values()] == [(1, 3)]
    assert stage.clean == ()
    assert system.overlay == (stage.name,)


def test_multistage25d_has_a_stage_to_localise_and_one_to_segment() -> None:
    system = SYSTEMS["multistage25d"]("paper")
    assert [(stage.name, stage.nets) for stage in system.stages] == [
        ("localise", ("res-unet-1",)),
        ("segment", ("res-unet-2", "res-net")),
    ]
    assert system.overlay == ("segment",)


@pytest.mark.parametrize(("stage", "plane"), [("localise", 256), ("segment", None)])
def test_multistage25d_localises_on_halved_slices_and_segments_on_full_ones(
    stage: str, plane: int | None
) -> None:
    assert paper("multistage25d")[stage].steps == (
        Resample(
            spacing_mm=(3.0, None, None), size_vox=(None, plane, plane), interpolation="linear"
        ),
        Clip(lower_hu=-30.0, upper_hu=300.0),
        ZScore(mean=None, std=None),
    )


@pytest.mark.parametrize("stage", ["localise", "segment"])
def test_multistage25d_sees_two_slices_above_and_two_below(stage: str) -> None:
    windows = paper("multistage25d")[stage].windows
    assert isinstance(windows, Slices)
    assert windows.depth == 2 + 1 + 2
    assert windows.shape == (256, 256)
    assert (windows.neighbours, windows.only) == ("volume", None)


def test_multistage25d_cuts_a_box_of_256_by_256_around_each_kidney() -> None:
    assert paper("multistage25d")["localise"].look == Whole()
    assert paper("multistage25d")["segment"].look == Boxes(
        of="localise",
        per="side",
        size=(Tight(margin_mm=0.0), Voxels(count=256), Voxels(count=256)),
        centre=MiddleOfBox(),
        border="shift",
        otherwise="empty",
    )


@pytest.mark.parametrize("stage", ["localise", "segment"])
def test_multistage25d_drops_objects_under_5000_voxels_after_both_stages(stage: str) -> None:
    assert paper("multistage25d")[stage].clean == (DropSmall(min_voxels=5000),)
    assert paper("multistage25d")[stage].clean_on == "model"


def test_multistage25d_predicts_three_classes_everywhere_and_ensembles_two_nets() -> None:
    system = SYSTEMS["multistage25d"]("paper")
    assert all(stage.decide == Argmax(labels=(0, 1, 2)) for stage in system.stages)
    assert {(net.in_channels, net.out_channels) for net in system.nets.values()} == {(5, 3)}
    assert paper("multistage25d")["segment"].combine == "mean"


def test_unet2d_pair_sees_whole_slices_and_their_posterior_half() -> None:
    stages = paper("unet2d-pair")
    assert (stages["kidney"].look, stages["kidney"].windows.shape) == (Whole(), (256, 256))
    assert stages["tumour"].look == Part(half="posterior")
    assert stages["tumour"].windows.shape == (128, 256)


@pytest.mark.parametrize("stage", ["kidney", "tumour"])
def test_unet2d_pair_resizes_single_slices_to_256_by_nearest_neighbour(stage: str) -> None:
    resample, *_ = paper("unet2d-pair")[stage].steps
    windows = paper("unet2d-pair")[stage].windows
    assert resample == Resample(
        spacing_mm=(None, None, None), size_vox=(None, 256, 256), interpolation="nearest"
    )
    assert isinstance(windows, Slices)
    assert windows.depth == 1


def test_unet2d_pair_has_two_nets_of_one_sigmoid_channel() -> None:
    system = SYSTEMS["unet2d-pair"]("paper")
    assert [(net.in_channels, net.out_channels) for net in system.nets.values()] == [(1, 1)] * 2
    assert paper("unet2d-pair")["kidney"].decide == Threshold(at_least=0.5, labels=(1,))
    assert paper("unet2d-pair")["tumour"].decide == Threshold(at_least=0.5, labels=(2,))


def test_unet2d_pair_fills_holes_and_keeps_the_two_largest_kidney_structures() -> None:
    stage = paper("unet2d-pair")["kidney"]
    assert stage.clean == (FillHoles(per_slice=False), KeepLargest(count=2, per="all"))
    assert stage.clean_on == "scan"


def test_unet2d_pair_keeps_tumours_of_likely_shape_that_lie_in_the_kidneys() -> None:
    stage = paper("unet2d-pair")["tumour"]
    assert stage.clean == (
        FillHoles(per_slice=False),
        EigenvalueRatio(lowest=1.07, highest=2.8),
        Overlap(of="kidney", at_least=0.95),
    )
    assert stage.clean_on == "scan"


def test_unet2d_pair_lays_tumours_over_kidneys() -> None:
    assert SYSTEMS["unet2d-pair"]("paper").overlay == ("kidney", "tumour")


def test_cascaded_vnet_has_three_nets_of_128_cubed_and_two_channels() -> None:
    system = SYSTEMS["cascaded-vnet"]("paper")
    assert [(stage.name, stage.nets) for stage in system.stages] == [
        ("roi", ("roi-vnet",)),
        ("kidney", ("kidney-vnet",)),
        ("tumour", ("tumour-vnet",)),
    ]
    facts = {(net.in_channels, net.out_channels, net.size_vox) for net in system.nets.values()}
    assert facts == {(1, 2, (128, 128, 128))}
    assert all(stage.windows.shape == (128, 128, 128) for stage in system.stages)


@pytest.mark.parametrize("stage", ["roi", "kidney", "tumour"])
def test_cascaded_vnet_takes_the_interpolated_data_and_normalises_with_sigma_a_quarter(
    stage: str,
) -> None:
    assert paper("cascaded-vnet")[stage].steps == (
        Resample(
            spacing_mm=(3.0, 0.78162497, 0.78162497),
            size_vox=(None, None, None),
            interpolation="linear",
        ),
        ZScore(mean=None, std=None),
        Scale(source=(-1.0, 1.0), target=(-0.25, 0.25)),
    )


@pytest.mark.parametrize("stage", ["kidney", "tumour"])
def test_cascaded_vnet_cuts_256_voxels_around_filtered_projections_of_each_side(
    stage: str,
) -> None:
    reach = len(range(-127, 128 + 1))
    assert paper("cascaded-vnet")["roi"].look == Whole()
    assert paper("cascaded-vnet")[stage].look == Boxes(
        of="roi",
        per="side",
        size=(Voxels(count=reach), Voxels(count=reach), Voxels(count=reach)),
        centre=MiddleOfProjections(coronal_window_vox=(10, 25), axial_window_vox=(25, 25)),
        border="clip",
        otherwise="half",
    )
    assert reach == 256
    assert paper("cascaded-vnet")[stage].join == "halves"


def test_cascaded_vnet_lays_the_tumour_over_the_kidney() -> None:
    system = SYSTEMS["cascaded-vnet"]("paper")
    assert system.overlay == ("kidney", "tumour")
    assert [stage.decide for stage in system.stages] == [
        Argmax(labels=(0, 1)),
        Argmax(labels=(0, 1)),
        Argmax(labels=(0, 2)),
    ]
    assert all(stage.clean == () for stage in system.stages)


def test_resunet_msvnet_finds_kidneys_on_slices_of_2_mm_and_256_by_256() -> None:
    stage = paper("resunet-msvnet")["kidney"]
    assert stage.look == Whole()
    assert stage.steps[0] == Resample(
        spacing_mm=(2.0, None, None), size_vox=(None, 256, 256), interpolation="linear"
    )
    assert kinds(stage.steps) == ["resample", "clip", "scale"]
    assert stage.decide == Argmax(labels=(0, 1))


@every_preset
def test_resunet_msvnet_keeps_slices_16_to_48_of_64_every_32(preset: Preset) -> None:
    stage, _ = SYSTEMS["resunet-msvnet"](preset).stages
    windows = stage.windows
    assert isinstance(windows, Patches)
    assert (windows.shape[0], windows.stride[0], windows.join) == (64, 32, "keep_centre")
    assert windows.shape[1:] == windows.stride[1:]
    starts, kept = window_starts(200, 64, 32), kept_ranges(200, 64, 32)
    answers = [(a - start, b - start) for start, (a, b) in zip(starts, kept, strict=True)]
    assert starts == (0, 32, 64, 96, 128, 136)
    assert answers == [(0, 48), (16, 48), (16, 48), (16, 48), (16, 48), (40, 64)]


def test_resunet_msvnet_prepares_tumours_in_the_papers_order() -> None:
    stage = paper("resunet-msvnet")["tumour"]
    mask, resample, centre, clip, scale = stage.steps
    assert stage.look == Whole()
    assert mask == MultiplyByMask(of="kidney")
    assert resample == Resample(
        spacing_mm=(1.0, None, None), size_vox=(None, 512, 512), interpolation="linear"
    )
    assert isinstance(centre, CentreInMask)
    assert centre.of == "kidney"
    assert 40.0 <= centre.target_hu <= 50.0
    assert (clip.kind, scale.kind) == ("clip", "scale")


def test_resunet_msvnet_leaves_slices_without_kidney_out() -> None:
    windows = paper("resunet-msvnet")["tumour"].windows
    assert isinstance(windows, Slices)
    assert (windows.only, windows.neighbours) == ("kidney", "kept")
    assert windows.shape == windows.stride == (512, 512)
    assert windows.depth > 1


def test_resunet_msvnet_takes_five_slices_and_small_nine_from_the_volume() -> None:
    for preset, depth, among in (("paper", 5, "kept"), ("small", 9, "volume")):
        system = SYSTEMS["resunet-msvnet"](preset)
        windows = system.stages[1].windows
        assert isinstance(windows, Slices)
        assert (windows.depth, windows.neighbours) == (depth, among)
        assert system.nets["msvnet"].in_channels == depth


def test_resunet_msvnet_keeps_the_largest_tumour_and_lays_it_over_the_kidney() -> None:
    system = SYSTEMS["resunet-msvnet"]("paper")
    assert paper("resunet-msvnet")["tumour"].clean == (KeepLargest(count=1, per="all"),)
    assert paper("resunet-msvnet")["tumour"].decide == Argmax(labels=(0, 2))
    assert system.overlay == ("kidney", "tumour")
    assert [(net.in_channels, net.out_channels) for net in system.nets.values()] == [(1, 2), (5, 2)]


def test_steps_that_scale_start_from_the_window_that_was_clipped_to() -> None:
    for build in SYSTEMS.values():
        for stage in (stage for preset in PRESETS for stage in build(preset).stages):
            for before, after in itertools.pairwise(stage.steps):
                if isinstance(before, Clip) and isinstance(after, Scale):
                    assert after.source == (before.lower_hu, before.upper_hu)


@pytest.fixture
def script(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath / "scripts" / "write_manifests.py"


def test_the_checked_in_manifests_are_what_the_script_writes(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [str(script), str(tmp_path / "out")])
    runpy.run_path(str(script), run_name="__main__")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    checked_in = script.parents[1] / "docs" / "manifests"
    assert written == {path.name: path.read_bytes() for path in checked_in.iterdir()}
    assert set(written) == {f"{name}.json" for name in SYSTEMS}


@every_system
def test_an_example_is_the_published_preset_and_says_that_it_has_no_nets(
    name: str, script: Path
) -> None:
    example: Callable[[System], str] = runpy.run_path(str(script))["example_from_system"]
    manifest = manifest_from_json(example(SYSTEMS[name]("paper")))
    assert (manifest.system, manifest.preset) == (name, "paper")
    assert manifest.stages == SYSTEMS[name]("paper").stages
    assert {file.sha256 for net in manifest.nets.values() for file in net.files.values()} == {
        "0" * 64
    }
    assert "the nets are not here" in " ".join(manifest.card.remarks)
