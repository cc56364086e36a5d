import dataclasses
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_examples import full_manifest, full_plain

from kits_runtime.errors import ManifestError
from kits_runtime.manifest import SCHEMA_VERSION, manifest_from_json, manifest_to_json
from kits_runtime.manifest.rules import check_manifest, check_version, references
from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    Clean,
    DropSmall,
    EigenvalueRatio,
    Full,
    KeepLargest,
    Manifest,
    MiddleOfBox,
    Net,
    Overlap,
    Patches,
    Slices,
    Stage,
    Threshold,
    Tight,
    Voxels,
    Whole,
    Windows,
)

Edits = dict[str, object]

FOUND, SLICED, BOXED, AROUND, WHOLE = (f"stages.{i}" for i in range(5))
RESAMPLE: dict[str, object] = {
    "kind": "resample",
    "spacing_mm": [3.0, None, None],
    "size_vox": [None, None, None],
    "interpolation": "linear",
}
SCALE = {"kind": "scale", "source": [0.0, 1.0], "target": [0.0, 1.0]}
Z_SCORE = {"kind": "z_score", "mean": None, "std": None}
SIGMA = {"kind": "clip_mean_sigma", "sigma": 1.0, "target": [0.0, 1.0]}
CLIP = {"kind": "clip", "lower_hu": 0.0, "upper_hu": 1.0}
MULTIPLY = {"kind": "multiply_by_mask", "of": "found"}
CENTRE = {"kind": "centre_in_mask", "of": "found", "target_hu": 45.0}


def edited(edits: Edits) -> dict[str, Any]:
    """The full manifest's JSON with some values, found by dotted paths, replaced."""
    plain = full_plain()
    for path, value in edits.items():
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        place: Any = plain
        for key in parents:
            place = place[key]
        place[last] = value
    return plain


def refusal(edits: Edits) -> str:
    with pytest.raises(ManifestError) as caught:
        manifest_from_json(json.dumps(edited(edits)))
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert message.isprintable()
    return message


# What is changed, then the field, what was found and what was expected, as the message says it.
BROKEN: dict[str, tuple[Edits, str]] = {
    "no labels": ({"labels": []}, "labels: found [], expected background and classes, 2 to 256"),
    "background alone": (
        {"labels": ["background"]},
        "labels: found ['background'], expected background and classes, 2 to 256 names",
    ),
    "more labels than a byte counts": (
        {"labels": [str(i) for i in range(257)]},
        "labels: found ['0', '1', '2', '3', '4', '5', ...], expected background and classes, 2 to",
    ),
    "a label twice": (
        {"labels": ["background", "kidney", "kidney"]},
        "labels: found ['background', 'kidney', 'kidney'], expected names that differ",
    ),
    "no stages": ({"stages": []}, "stages: found [], expected at least one stage"),
    "nothing overlaid": ({"overlay": []}, "overlay: found [], expected at least one stage"),
    "an overlay of a stage that is not there": (
        {"overlay.1": "tumour"},
        "overlay[1]: found 'tumour', expected one of the stages ['found', 'sliced', 'boxed', 'ar",
    ),
    "a stage overlaid twice": (
        {"overlay": ["found", "whole", "found"]},
        "overlay[2]: found 'found', expected each stage once",
    ),
    "an opset of zero": (
        {"provenance.opset": 0},
        "provenance.opset: found 0, expected a number above 0",
    ),
    "half a checkpoint's hash": (
        {"provenance.checkpoint_sha256": "ab" * 16},
        f"provenance.checkpoint_sha256: found '{'ab' * 16}', expected 64 hex digits in lower case",
    ),
    "a net without files": (
        {"nets.finder.files": {}},
        "nets.finder.files: found {}, expected at least one file",
    ),
    "a hash in capitals": (
        {"nets.finder.files.fp16.sha256": "AB" * 32},
        "nets.finder.files.fp16.sha256: found 'ABABABABAB",
    ),
    "a hash that is not hex": (
        {"nets.finder.files.fp32.sha256": "xy" * 32},
        "nets.finder.files.fp32.sha256: found 'xyxyxy",
    ),
    "a hash with a line end": (
        {"nets.finder.files.fp32.sha256": "ab" * 32 + "\n"},
        "nets.finder.files.fp32.sha256: found 'abab",
    ),
    "a file of no bytes": (
        {"nets.slicer.files.fp32.bytes": 0},
        "nets.slicer.files.fp32.bytes: found 0, expected a number above 0",
    ),
    "a net of one dimension": (
        {"nets.slicer.size_vox": [32]},
        "nets.slicer.size_vox: found [32], expected two or three sizes",
    ),
    "a net of four dimensions": (
        {"nets.slicer.size_vox": [1, 2, 3, 4]},
        "nets.slicer.size_vox: found [1, 2, 3, 4], expected two or three sizes",
    ),
    "a net of size zero": (
        {"nets.slicer.size_vox": [32, 0]},
        "nets.slicer.size_vox[1]: found 0, expected a number above 0",
    ),
    "a net without input": (
        {"nets.slicer.in_channels": 0},
        "nets.slicer.in_channels: found 0, expected a number above 0",
    ),
    "a net without output": (
        {"nets.slicer.out_channels": -1},
        "nets.slicer.out_channels: found -1, expected a number above 0",
    ),
    "a stage's name with a blank": (
        {f"{FOUND}.name": "kid ney"},
        "stages[0].name: found 'kid ney', expected a name of a-z, 0-9, - and _",
    ),
    "a stage's name that is too long": (
        {f"{FOUND}.name": "k" * 65},
        "stages[0].name: found 'kkkkkkkk",
    ),
    "two stages of one name": (
        {f"{SLICED}.name": "found"},
        "stages[1].name: found 'found', expected a name that no earlier stage has",
    ),
    "a look at an unknown stage": (
        {f"{BOXED}.look.of": "nobody"},
        "stages[2].look.of: found 'nobody', expected an earlier stage, one of ['found', 'sliced']",
    ),
    "a look at the stage itself": (
        {f"{BOXED}.look.of": "boxed"},
        "stages[2].look.of: found 'boxed', expected an earlier stage, one of ['found', 'sliced']",
    ),
    "a look at a later stage": (
        {f"{BOXED}.look.of": "whole"},
        "stages[2].look.of: found 'whole', expected an earlier stage, one of ['found', 'sliced']",
    ),
    "a mask of an unknown stage": (
        {f"{BOXED}.steps.0.of": "nobody"},
        "stages[2].steps[0].of: found 'nobody', expected an earlier stage",
    ),
    "a mean inside an unknown stage": (
        {f"{BOXED}.steps.1.of": "nobody"},
        "stages[2].steps[1].of: found 'nobody', expected an earlier stage",
    ),
    "slices of an unknown stage": (
        {f"{SLICED}.windows.only": "whole"},
        "stages[1].windows.only: found 'whole', expected an earlier stage, one of ['found']",
    ),
    "an overlap with an unknown stage": (
        {f"{SLICED}.clean.1.of": "sliced"},
        "stages[1].clean[1].of: found 'sliced', expected an earlier stage, one of ['found']",
    ),
    "a half of boxes that are not per side": (
        {f"{AROUND}.look.otherwise": "half"},
        "stages[3].look.otherwise: found 'half', expected 'empty' or 'whole' unless per is 'side'",
    ),
    "halves of boxes that are not per side": (
        {f"{AROUND}.join": "halves"},
        "stages[3].join: found 'halves', expected 'mean' or 'max' unless boxes are per side",
    ),
    "halves without boxes": (
        {f"{WHOLE}.join": "halves"},
        "stages[4].join: found 'halves', expected 'mean' or 'max' unless boxes are per side",
    ),
    "a box of no voxels": (
        {f"{BOXED}.look.size.1.count": 0},
        "stages[2].look.size[1].count: found 0, expected a number above 0",
    ),
    "a box of no length": (
        {f"{BOXED}.look.size.2.length_mm": 0},
        "stages[2].look.size[2].length_mm: found 0.0, expected a number above 0",
    ),
    "a margin inwards": (
        {f"{AROUND}.look.size.0.margin_mm": -0.5},
        "stages[3].look.size[0].margin_mm: found -0.5, expected 0 or more",
    ),
    "a coronal filter of no width": (
        {f"{BOXED}.look.centre.coronal_window_vox": [10, 0]},
        "stages[2].look.centre.coronal_window_vox[1]: found 0, expected a number above 0",
    ),
    "an axial filter of no width": (
        {f"{BOXED}.look.centre.axial_window_vox": [-25, 25]},
        "stages[2].look.centre.axial_window_vox[0]: found -25, expected a number above 0",
    ),
    "two resamplings": (
        {f"{FOUND}.steps": [RESAMPLE, RESAMPLE]},
        "stages[0].steps: found '2 resample steps', expected at most one",
    ),
    "a spacing of zero": (
        {f"{FOUND}.steps.0.spacing_mm": [None, 0.0, None]},
        "stages[0].steps[0].spacing_mm[1]: found 0.0, expected a number above 0",
    ),
    "a size of zero": (
        {f"{FOUND}.steps.0.size_vox": [None, None, -1]},
        "stages[0].steps[0].size_vox[2]: found -1, expected a number above 0",
    ),
    "a spacing and a size": (
        {f"{FOUND}.steps.0.size_vox": [64, 256, None]},
        "stages[0].steps[0].size_vox[0]: found 64, expected null beside a spacing of 3.0 mm",
    ),
    "an empty HU window": (
        {f"{FOUND}.steps.1.lower_hu": 300.0},
        "stages[0].steps[1]: found [300.0, 300.0], expected lower_hu below upper_hu",
    ),
    "a source interval without length": (
        {f"{FOUND}.steps.2.source": [300.0, 300.0]},
        "stages[0].steps[2].source: found [300.0, 300.0], expected a rising interval",
    ),
    "a target interval without length": (
        {f"{FOUND}.steps.2.target": [1.0, 1.0]},
        "stages[0].steps[2].target: found [1.0, 1.0], expected two ends that differ",
    ),
    "a mean without a deviation": (
        {f"{BOXED}.steps.2.std": None},
        "stages[2].steps[2]: found [101.0, None], expected both mean and std, or both null",
    ),
    "a deviation without a mean": (
        {f"{BOXED}.steps.2.mean": None},
        "stages[2].steps[2]: found [None, 77.0], expected both mean and std, or both null",
    ),
    "a deviation of zero": (
        {f"{BOXED}.steps.2.std": 0.0},
        "stages[2].steps[2].std: found 0.0, expected a number above 0",
    ),
    "a quantile in per cent": (
        {f"{AROUND}.steps.0.quantile": 75.0},
        "stages[3].steps[0].quantile: found 75.0, expected a share from 0 to 1",
    ),
    "a mask that does not grow": (
        {f"{AROUND}.steps.1.within_mm": 0.0},
        "stages[3].steps[1].within_mm: found 0.0, expected a number above 0",
    ),
    "a share in per cent": (
        {f"{AROUND}.steps.1.share": 25.0},
        "stages[3].steps[1].share: found 25.0, expected a share from 0 to 1",
    ),
    "a sigma of zero": (
        {f"{SLICED}.steps.0.sigma": 0.0},
        "stages[1].steps[0].sigma: found 0.0, expected a number above 0",
    ),
    "sigmas onto one value": (
        {f"{SLICED}.steps.0.target": [0.5, 0.5]},
        "stages[1].steps[0].target: found [0.5, 0.5], expected two ends that differ",
    ),
    "a window of no voxels": (
        {f"{FOUND}.windows.shape": [16, 0, 32]},
        "stages[0].windows.shape[1]: found 0, expected a number above 0",
    ),
    "a stride of zero": (
        {f"{FOUND}.windows.stride": [0, 16, 32]},
        "stages[0].windows.stride[0]: found 0, expected a number above 0",
    ),
    "a stride that leaves gaps": (
        {f"{WHOLE}.windows.stride": [16, 33, 32]},
        "stages[4].windows.stride[1]: found 33, expected at most the window's 32",
    ),
    "a centre that is none": (
        {f"{FOUND}.windows.stride": [8, 16, 31]},
        "stages[0].windows.stride[2]: found 31, expected an even overlap of windows of 32",
    ),
    "an even number of slices": (
        {f"{SLICED}.windows.depth": 4},
        "stages[1].windows.depth: found 4, expected an odd number of slices",
    ),
    "a negative number of slices": (
        {f"{SLICED}.windows.depth": -1},
        "stages[1].windows.depth: found -1, expected an odd number of slices",
    ),
    "a stage without nets": (
        {f"{FOUND}.nets": []},
        "stages[0].nets: found [], expected at least one net",
    ),
    "a net that is not there": (
        {f"{FOUND}.nets": ["finder", "seeker"]},
        "stages[0].nets[1]: found 'seeker', expected one of ['finder', 'slicer']",
    ),
    "windows that are not the net's": (
        {f"{FOUND}.windows.shape": [18, 32, 32]},
        "nets.finder.size_vox: found [16, 32, 32], expected [18, 32, 32], the shape of stages[0]",
    ),
    "a 3D net for slices": (
        {f"{SLICED}.nets": ["finder"]},
        "nets.finder.size_vox: found [16, 32, 32], expected [32, 48], the shape of stages[1].wi",
    ),
    "more slices than the net takes": (
        {f"{SLICED}.windows.depth": 5},
        "nets.slicer.in_channels: found 3, expected 5, as stages[1].windows gives",
    ),
    "several channels into a 3D net": (
        {"nets.finder.in_channels": 2},
        "nets.finder.in_channels: found 2, expected 1, as stages[0].windows gives",
    ),
    "more labels than channels": (
        {f"{FOUND}.decide.labels": [0, 1, 2]},
        "nets.finder.out_channels: found 2, expected 3, one for each of stages[0].decide.labels",
    ),
    "a label without a name": (
        {f"{FOUND}.decide.labels": [0, 3]},
        "stages[0].decide.labels[1]: found 3, expected 0 to 2",
    ),
    "a negative label": (
        {f"{SLICED}.decide.labels": [-1]},
        "stages[1].decide.labels[0]: found -1, expected 0 to 2",
    ),
    "an argmax without background": (
        {f"{FOUND}.decide.labels": [1, 2]},
        "stages[0].decide.labels: found [1, 2], expected background (0) first",
    ),
    "an argmax of nothing": (
        {f"{FOUND}.decide.labels": []},
        "stages[0].decide.labels: found [], expected background (0) first",
    ),
    "an argmax of background alone": (
        {f"{FOUND}.decide.labels": [0]},
        "stages[0].decide.labels: found [0], expected classes above 0, one at least",
    ),
    "an argmax with two backgrounds": (
        {f"{FOUND}.decide.labels": [0, 1, 0]},
        "stages[0].decide.labels: found [0, 1, 0], expected classes above 0, one at least",
    ),
    "a threshold for background": (
        {f"{SLICED}.decide.labels": [0]},
        "stages[1].decide.labels: found [0], expected classes above 0, one at least",
    ),
    "no component kept": (
        {f"{FOUND}.clean.0.count": 0},
        "stages[0].clean[0].count: found 0, expected a number above 0",
    ),
    "components of no voxels dropped": (
        {f"{FOUND}.clean.1.min_voxels": 0},
        "stages[0].clean[1].min_voxels: found 0, expected a number above 0",
    ),
    "a score that none can exceed": (
        {f"{FOUND}.clean.3.at_least": 1.5},
        "stages[0].clean[3].at_least: found 1.5, expected a score above 0, at most 1",
    ),
    "surest finds on the scan": (
        {f"{FOUND}.clean_on": "scan"},
        "stages[0].clean_on: found 'scan', expected 'model' with keep_surest",
    ),
    "two who are surest": (
        {f"{FOUND}.clean.2": {"kind": "keep_surest", "at_least": 0.9}},
        "stages[0].clean: found '2 keep_surest', expected at most one",
    ),
    "a range of ratios that falls": (
        {f"{SLICED}.clean.0.lowest": 3.0},
        "stages[1].clean[0]: found [3.0, 2.8], expected lowest below highest",
    ),
    "an overlap of nothing": (
        {f"{SLICED}.clean.1.at_least": 0.0},
        "stages[1].clean[1].at_least: found 0.0, expected a share above 0, at most 1",
    ),
    "an overlap of more than all": (
        {f"{SLICED}.clean.1.at_least": 95.0},
        "stages[1].clean[1].at_least: found 95.0, expected a share above 0, at most 1",
    ),
}


@pytest.mark.parametrize(("edits", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_names_field_found_and_expected(edits: Edits, message: str) -> None:
    assert refusal(edits).startswith(message)
    assert refusal(edits).endswith(". Correct the manifest.")


@pytest.mark.parametrize("late", [CLIP, MULTIPLY, CENTRE], ids=lambda step: str(step["kind"]))
@pytest.mark.parametrize("early", [SCALE, Z_SCORE, SIGMA], ids=lambda step: str(step["kind"]))
def test_a_step_in_hu_may_not_follow_one_that_leaves_hu(early: Edits, late: Edits) -> None:
    assert refusal({f"{BOXED}.steps": [early, RESAMPLE, late]}).startswith(
        f"stages[2].steps[2]: found '{late['kind']}', expected steps in HU before those that leave"
    )
    manifest_from_json(json.dumps(edited({f"{BOXED}.steps": [late, RESAMPLE, early]})))


def test_a_name_that_could_break_a_message_is_quoted_in_it() -> None:
    plain = full_plain()
    plain["nets"]["Ein\nNetz"] = plain["nets"]["finder"]
    with pytest.raises(ManifestError) as caught:
        manifest_from_json(json.dumps(plain))
    start = r"nets.'Ein\nNetz': found 'Ein\nNetz', expected a name of a-z, 0-9, - and _, at most 64"
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "edits",
    [
        {"labels": ["background", *(str(i) for i in range(255))]},
        {f"{SLICED}.clean.1.at_least": 1.0},
        {f"{FOUND}.steps.2.target": [1.0, -1.0]},
        {f"{FOUND}.steps": []},
        {f"{WHOLE}.windows.stride": [16, 1, 32]},
        {f"{BOXED}.look.centre.coronal_window_vox": [1, 1]},
        {f"{FOUND}.decide.labels": [0, 2]},
        {f"{FOUND}.nets": ["finder", "finder"]},
        {"provenance.checkpoint_sha256": None},
        {"overlay": ["whole", "found"]},
    ],
    ids=str,
)
def test_values_at_the_edge_of_the_rules_are_taken(edits: Edits) -> None:
    plain = edited(edits)
    assert json.loads(manifest_to_json(manifest_from_json(json.dumps(plain)))) == plain


@pytest.mark.parametrize("version", [SCHEMA_VERSION, "1.0.0", "1.0.7", "1.0.999999"])
def test_a_schema_of_this_major_and_minor_version_is_read(version: str) -> None:
    assert manifest_from_json(json.dumps(edited({"schema": version}))).schema == version


@pytest.mark.parametrize("version", ["1.1.0", "1.10.0", "2.0.0", "0.9.0", "10.0.0"])
def test_another_schema_names_both_versions_and_the_way_out(version: str) -> None:
    message = refusal({"schema": version})
    assert message.startswith(f"schema: found {version}, expected 1.0 to 1.0. Update kits-trt")


def test_a_manifest_made_in_python_is_held_to_its_schema_too() -> None:
    check_manifest(full_manifest())
    with pytest.raises(ManifestError, match=r"schema: found 2\.0\.0, expected 1\.0 to 1\.0"):
        check_manifest(dataclasses.replace(full_manifest(), schema="2.0.0"))


def test_a_newer_schema_is_named_before_its_unknown_keys() -> None:
    plain = {**edited({"schema": "1.1.0"}), "novelty": 1}
    with pytest.raises(ManifestError, match=r"schema: found 1\.1\.0, expected 1\.0 to 1\.0"):
        manifest_from_json(json.dumps(plain))


MALFORMED: tuple[object, ...] = (
    *("", "1", "1.0", "1.0.0.0", "v1.0.0", "1.0.0-rc1", "1.0.0\n", " 1.0.0", "1.0.x", "01.0.0"),
    *("-1.0.0", "\uff11.0.0", "1.1000000.0", "1." + "9" * 5000 + ".0"),
    *(1, 1.0, None, True, [], {}, [1, 0, 0]),
)


@pytest.mark.parametrize("version", MALFORMED, ids=lambda version: repr(version)[:20])
def test_a_malformed_version_is_shown_beside_a_good_one(version: object) -> None:
    message = refusal({"schema": version})
    assert message.startswith("schema: found ")
    assert message.endswith("expected a version such as '1.0.0'. Export the bundle again.")
    assert len(message) < 150


def test_check_version_shows_even_endless_values_in_short() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ManifestError, match=r"found \[\[.*expected a version"):
        check_version(deep)


def test_references_are_all_stages_that_a_stage_needs() -> None:
    stages = {stage.name: list(references(stage)) for stage in full_manifest().stages}
    assert stages == {
        "found": [],
        "sliced": [("windows.only", "found"), ("clean[1].of", "found")],
        "boxed": [("look.of", "found"), ("steps[0].of", "found"), ("steps[1].of", "found")],
        "around": [
            ("look.of", "boxed"),
            ("steps[0].of", "found"),
            ("steps[1].of", "found"),
            ("clean[1].of", "found"),
        ],
        "whole": [],
    }


@st.composite
def patches(draw: st.DrawFn) -> Patches:
    half = st.integers(1, 8)
    shape = tuple(2 * draw(half) for _ in range(3))
    stride = tuple(size - 2 * draw(st.integers(0, (size - 1) // 2)) for size in shape)
    join = draw(st.sampled_from(["keep_centre", "mean", "gaussian"]))
    return Patches(shape=shape, stride=stride, join=join)


@st.composite
def slices(draw: st.DrawFn, earlier: list[str]) -> Slices:
    shape = draw(st.tuples(st.integers(1, 99), st.integers(1, 99)))
    return Slices(
        depth=draw(st.sampled_from([1, 3, 5])),
        shape=shape,
        stride=shape,
        join=draw(st.sampled_from(["keep_centre", "mean", "gaussian"])),
        only=draw(st.sampled_from([None, *earlier])),
        neighbours=draw(st.sampled_from(["kept", "volume"])),
    )


@st.composite
def boxes(draw: st.DrawFn, earlier: list[str]) -> Boxes:
    axis = st.builds(Voxels, count=st.integers(1)) | st.builds(Full)
    axis |= st.builds(Tight, margin_mm=st.floats(0, 1e9))
    per = draw(st.sampled_from(["all", "side"]))
    return Boxes(
        of=draw(st.sampled_from(earlier)),
        per=per,
        size=draw(st.tuples(axis, axis, axis)),
        centre=MiddleOfBox(),
        border=draw(st.sampled_from(["clip", "shift"])),
        otherwise=draw(st.sampled_from(["empty", "whole", "half"][: 3 if per == "side" else 2])),
    )


def cleans(earlier: list[str]) -> st.SearchStrategy[Clean]:
    kept = st.builds(KeepLargest, count=st.integers(1), per=st.sampled_from(["all", "side"]))
    large = st.builds(DropSmall, min_voxels=st.integers(1))
    round_ = st.builds(EigenvalueRatio, lowest=st.floats(0, 1), highest=st.floats(1.5, 1e300))
    if not earlier:
        return kept | large | round_
    share = st.floats(0, 1, exclude_min=True)
    return kept | large | round_ | st.builds(Overlap, of=st.sampled_from(earlier), at_least=share)


@st.composite
def stages(draw: st.DrawFn, name: str, earlier: list[str]) -> Stage:
    windows: Windows = draw(patches() | slices(earlier))
    decide = draw(
        st.sampled_from(
            [Argmax(labels=(0, 1)), Argmax(labels=(0, 2, 1)), Threshold(at_least=0.5, labels=(2,))]
        )
    )
    return dataclasses.replace(
        full_manifest().stages[0],
        name=name,
        look=draw(st.just(Whole()) | boxes(earlier)) if earlier else Whole(),
        windows=windows,
        nets=(f"net-{name}",),
        decide=decide,
        clean=tuple(draw(st.lists(cleans(earlier), max_size=3))),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(
        st.lists(
            st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True),
            min_size=1,
            max_size=4,
            unique=True,
        )
    )
    made = [draw(stages(name, names[:i])) for i, name in enumerate(names)]
    files = full_manifest().nets["finder"].files
    nets = {
        stage.nets[0]: Net(
            input_name="patches",
            output_name="scores",
            in_channels=getattr(stage.windows, "depth", 1),
            out_channels=len(stage.decide.labels),
            size_vox=stage.windows.shape,
            files=files,
        )
        for stage in made
    }
    return dataclasses.replace(
        full_manifest(), nets=nets, stages=tuple(made), overlay=tuple(names[-1:])
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(manifest=manifests())
def test_any_manifest_that_keeps_the_rules_survives_the_round_trip(manifest: Manifest) -> None:
    check_manifest(manifest)
    text = manifest_to_json(manifest)
    assert manifest_from_json(text) == manifest
    assert manifest_to_json(manifest_from_json(text)) == text
