"""What a manifest must satisfy beyond its types: names that exist, numbers that make sense."""

import re
from collections.abc import Iterator, Sequence

from kits_runtime.errors import ManifestError
from kits_runtime.manifest.codec import at, shown
from kits_runtime.manifest.schema import (
    SCHEMA_VERSION,
    Argmax,
    AxisSize,
    Boxes,
    CentreOnBrighterSide,
    Clean,
    Clip,
    ClipMeanSigma,
    Decide,
    DimOutsideMask,
    DropSmall,
    EigenvalueRatio,
    Full,
    KeepLargest,
    KeepSurest,
    Look,
    Manifest,
    MaskStep,
    MiddleOfProjections,
    Millimetres,
    Net,
    Overlap,
    Provenance,
    Resample,
    Scale,
    Slices,
    Stage,
    Step,
    Tight,
    Voxels,
    Windows,
    ZScore,
)

_NUMBER = r"(0|[1-9][0-9]{0,5})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_LABELS = 256  # the result is uint8


def check_version(found: object) -> None:
    """Refuses a schema that this release cannot read: another major version, or a newer minor one.

    Raises:
        ManifestError: names both versions.
    """
    match = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if match is None:
        raise ManifestError(
            f"schema: found {shown(found)}, expected a version such as {SCHEMA_VERSION!r}. "
            "Export the bundle again."
        )
    major, minor, _ = (int(part) for part in match.groups())
    own_major, own_minor, _ = (int(part) for part in SCHEMA_VERSION.split("."))
    if major != own_major or minor > own_minor:
        raise ManifestError(
            f"schema: found {found}, expected {own_major}.0 to {own_major}.{own_minor}. "
            "Update kits-trt, or export the bundle again with this release."
        )


def check_manifest(manifest: Manifest) -> None:
    """Checks a whole manifest.

    Raises:
        ManifestError: names the first field that is wrong.
    """
    check_version(manifest.schema)
    _check_labels(manifest.labels)
    for name, net in manifest.nets.items():
        _check_net(name, net)
    _check_provenance(manifest.provenance)
    _require(bool(manifest.stages), "stages", [], "at least one stage")
    earlier: list[str] = []
    for index, stage in enumerate(manifest.stages):
        _check_stage(f"stages[{index}]", stage, manifest, earlier)
        earlier.append(stage.name)
    _check_overlay(manifest.overlay, earlier)


def references(stage: Stage) -> Iterator[tuple[str, str]]:
    """The earlier stages that a stage needs, as (field, stage name)."""
    if isinstance(stage.look, Boxes):
        yield "look.of", stage.look.of
    for i, step in enumerate(stage.steps):
        if isinstance(step, MaskStep):
            yield f"steps[{i}].of", step.of
    if isinstance(stage.windows, Slices) and stage.windows.only is not None:
        yield "windows.only", stage.windows.only
    for i, clean in enumerate(stage.clean):
        if isinstance(clean, Overlap):
            yield f"clean[{i}].of", clean.of


def _check_labels(labels: Sequence[str]) -> None:
    known = 2 <= len(labels) <= _MOST_LABELS
    _require(known, "labels", labels, f"background and classes, 2 to {_MOST_LABELS} names")
    _require(len(set(labels)) == len(labels), "labels", labels, "names that differ")


def _check_overlay(overlay: Sequence[str], stages: Sequence[str]) -> None:
    _require(bool(overlay), "overlay", [], "at least one stage")
    for i, name in enumerate(overlay):
        _require(name in stages, f"overlay[{i}]", name, f"one of the stages {list(stages)}")
        _require(name not in overlay[:i], f"overlay[{i}]", name, "each stage once")


def _check_provenance(provenance: Provenance) -> None:
    _require_positive("provenance.opset", provenance.opset)
    sha256 = provenance.checkpoint_sha256
    if sha256 is not None:
        _require_sha256("provenance.checkpoint_sha256", sha256)


def _check_net(name: str, net: Net) -> None:
    where = at("nets", name)
    _require_name(where, name)
    _require(len(net.size_vox) in (2, 3), f"{where}.size_vox", net.size_vox, "two or three sizes")
    _require_all_positive(f"{where}.size_vox", net.size_vox)
    _require_positive(f"{where}.in_channels", net.in_channels)
    _require_positive(f"{where}.out_channels", net.out_channels)
    _require(bool(net.files), f"{where}.files", {}, "at least one file")
    for precision, file in net.files.items():
        _require_sha256(f"{where}.files.{precision}.sha256", file.sha256)
        _require_positive(f"{where}.files.{precision}.bytes", file.bytes)


def _check_stage(where: str, stage: Stage, manifest: Manifest, earlier: Sequence[str]) -> None:
    _require_name(f"{where}.name", stage.name)
    new = stage.name not in earlier
    _require(new, f"{where}.name", stage.name, "a name that no earlier stage has")
    for field, name in references(stage):
        expected = f"an earlier stage, one of {list(earlier)}"
        _require(name in earlier, f"{where}.{field}", name, expected)
    _check_look(f"{where}.look", stage.look)
    _check_steps(f"{where}.steps", stage.steps)
    _check_windows(f"{where}.windows", stage.windows)
    _check_decide(f"{where}.decide", stage.decide, len(manifest.labels))
    _check_nets(where, stage, manifest)
    _check_clean(f"{where}.clean", stage.clean)
    surest = [item for item in stage.clean if isinstance(item, KeepSurest)]
    _require(len(surest) <= 1, f"{where}.clean", f"{len(surest)} keep_surest", "at most one")
    on_model = stage.clean_on == "model" or not surest
    _require(on_model, f"{where}.clean_on", stage.clean_on, "'model' with keep_surest")
    if stage.join == "halves":
        per_side = isinstance(stage.look, Boxes) and stage.look.per == "side"
        _require(per_side, f"{where}.join", "halves", "'mean' or 'max' unless boxes are per side")


def _check_look(where: str, look: Look) -> None:
    if not isinstance(look, Boxes):
        return
    halves = look.per == "side" or look.otherwise != "half"
    _require(halves, f"{where}.otherwise", "half", "'empty' or 'whole' unless per is 'side'")
    for axis, size in enumerate(look.size):
        _check_axis_size(f"{where}.size[{axis}]", size)
    if isinstance(look.centre, MiddleOfProjections):
        centre = f"{where}.centre"
        _require_all_positive(f"{centre}.coronal_window_vox", look.centre.coronal_window_vox)
        _require_all_positive(f"{centre}.axial_window_vox", look.centre.axial_window_vox)


def _check_axis_size(where: str, size: AxisSize) -> None:
    match size:
        case Voxels(count=count):
            _require_positive(f"{where}.count", count)
        case Millimetres(length_mm=length):
            _require_positive(f"{where}.length_mm", length)
        case Tight(margin_mm=margin):
            _require(margin >= 0, f"{where}.margin_mm", margin, "0 or more")
        case Full():
            pass


def _check_steps(where: str, steps: Sequence[Step]) -> None:
    resamples = sum(isinstance(step, Resample) for step in steps)
    _require(resamples <= 1, where, f"{resamples} resample steps", "at most one")
    scaled = False
    for i, step in enumerate(steps):
        _check_step(f"{where}[{i}]", step)
        in_hu = isinstance(step, Clip | MaskStep)
        late = in_hu and scaled
        _require(not late, f"{where}[{i}]", step.kind, "steps in HU before those that leave HU")
        scaled = scaled or isinstance(step, Scale | ZScore | ClipMeanSigma)


def _check_step(where: str, step: Step) -> None:
    match step:
        case Resample():
            _check_resample(where, step)
        case Clip(lower_hu=lower, upper_hu=upper):
            _require(lower < upper, where, (lower, upper), "lower_hu below upper_hu")
        case Scale(source=source, target=target):
            _require(source[0] < source[1], f"{where}.source", source, "a rising interval")
            _require_interval(f"{where}.target", target)
        case ZScore(mean=mean, std=std):
            both = (mean is None) == (std is None)
            _require(both, where, (mean, std), "both mean and std, or both null")
            _require(std is None or std > 0, f"{where}.std", std, "a number above 0")
        case ClipMeanSigma(sigma=sigma, target=target):
            _require_positive(f"{where}.sigma", sigma)
            _require_interval(f"{where}.target", target)
        case DimOutsideMask(within_mm=within, share=share):
            _require_positive(f"{where}.within_mm", within)
            _require(0 <= share <= 1, f"{where}.share", share, "a share from 0 to 1")
        case CentreOnBrighterSide(quantile=share):
            _require(0 <= share <= 1, f"{where}.quantile", share, "a share from 0 to 1")
        case _:
            pass


def _check_resample(where: str, step: Resample) -> None:
    _require_all_positive(f"{where}.spacing_mm", step.spacing_mm)
    _require_all_positive(f"{where}.size_vox", step.size_vox)
    for axis, (spacing, size) in enumerate(zip(step.spacing_mm, step.size_vox, strict=True)):
        one = spacing is None or size is None
        _require(one, f"{where}.size_vox[{axis}]", size, f"null beside a spacing of {spacing} mm")


def _check_windows(where: str, windows: Windows) -> None:
    _require_all_positive(f"{where}.shape", windows.shape)
    _require_all_positive(f"{where}.stride", windows.stride)
    for axis, (size, stride) in enumerate(zip(windows.shape, windows.stride, strict=True)):
        field = f"{where}.stride[{axis}]"
        _require(stride <= size, field, stride, f"at most the window's {size}")
        even = windows.join != "keep_centre" or (size - stride) % 2 == 0
        _require(even, field, stride, f"an even overlap of windows of {size}, to keep the centre")
    if isinstance(windows, Slices):
        odd = windows.depth > 0 and windows.depth % 2 == 1
        _require(odd, f"{where}.depth", windows.depth, "an odd number of slices")


def _check_decide(where: str, decide: Decide, known: int) -> None:
    for i, label in enumerate(decide.labels):
        _require(0 <= label < known, f"{where}.labels[{i}]", label, f"0 to {known - 1}")
    if isinstance(decide, Argmax):
        first = decide.labels[:1] == (0,)
        _require(first, f"{where}.labels", decide.labels, "background (0) first")
    classes = decide.labels[1:] if isinstance(decide, Argmax) else decide.labels
    sound = len(classes) > 0 and 0 not in classes
    _require(sound, f"{where}.labels", decide.labels, "classes above 0, one at least")


def _check_nets(where: str, stage: Stage, manifest: Manifest) -> None:
    _require(bool(stage.nets), f"{where}.nets", [], "at least one net")
    for i, name in enumerate(stage.nets):
        known = name in manifest.nets
        _require(known, f"{where}.nets[{i}]", name, f"one of {sorted(manifest.nets)}")
        _check_net_fits(f"nets.{name}", manifest.nets[name], where, stage)


def _check_net_fits(where: str, net: Net, user: str, stage: Stage) -> None:
    shape = stage.windows.shape
    depth = stage.windows.depth if isinstance(stage.windows, Slices) else 1
    channels = len(stage.decide.labels)
    _require(
        net.size_vox == shape,
        f"{where}.size_vox",
        net.size_vox,
        f"{list(shape)}, the shape of {user}.windows",
    )
    _require(
        net.in_channels == depth,
        f"{where}.in_channels",
        net.in_channels,
        f"{depth}, as {user}.windows gives",
    )
    _require(
        net.out_channels == channels,
        f"{where}.out_channels",
        net.out_channels,
        f"{channels}, one for each of {user}.decide.labels",
    )


def _check_clean(where: str, clean: Sequence[Clean]) -> None:
    for i, item in enumerate(clean):
        match item:
            case KeepLargest(count=count):
                _require_positive(f"{where}[{i}].count", count)
            case KeepSurest(at_least=score):
                known = 0 < score <= 1
                _require(known, f"{where}[{i}].at_least", score, "a score above 0, at most 1")
            case DropSmall(min_voxels=min_voxels):
                _require_positive(f"{where}[{i}].min_voxels", min_voxels)
            case EigenvalueRatio(lowest=low, highest=high):
                _require(low < high, f"{where}[{i}]", (low, high), "lowest below highest")
            case Overlap(at_least=share):
                known = 0 < share <= 1
                _require(known, f"{where}[{i}].at_least", share, "a share above 0, at most 1")
            case _:
                pass


def _require_name(where: str, name: str) -> None:
    plain = _NAME.fullmatch(name) is not None
    _require(plain, where, name, "a name of a-z, 0-9, - and _, at most 64 of them")


def _require_sha256(where: str, text: str) -> None:
    _require(_SHA256.fullmatch(text) is not None, where, text, "64 hex digits in lower case")


def _require_interval(where: str, ends: tuple[float, float]) -> None:
    _require(ends[0] != ends[1], where, ends, "two ends that differ")


def _require_all_positive(where: str, values: Sequence[float | None]) -> None:
    for i, value in enumerate(values):
        if value is not None:
            _require_positive(f"{where}[{i}]", value)


def _require_positive(where: str, value: float) -> None:
    _require(value > 0, where, value, "a number above 0")


def _require(condition: bool, where: str, found: object, expected: str) -> None:
    if not condition:
        found = list(found) if isinstance(found, tuple) else found  # as JSON writes it
        raise ManifestError(
            f"{where}: found {shown(found)}, expected {expected}. Correct the manifest."
        )
