"""What a manifest must satisfy beyond its types: names that exist, numbers that make sense."""

import re
from collections.abc import Iterator, Sequence

from kits_runtime.errors import ManifestError
from kits_runtime.manifest.schema import (
    SCHEMA_VERSION,
    Argmax,
    AxisSize,
    Boxes,
    CentreInMask,
    Clean,
    Clip,
    ClipMeanSigma,
    DropSmall,
    EigenvalueRatio,
    Full,
    KeepLargest,
    Look,
    Manifest,
    Millimetres,
    MultiplyByMask,
    Net,
    Overlap,
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

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def check_version(found: object) -> None:
    """Refuses a schema that this release cannot read: another major version, or a newer minor one.

    Raises:
        ManifestError: names both versions.
    """
    match = _VERSION.fullmatch(found) if isinstance(found, str) else None
    if match is None:
        raise ManifestError(
            f"schema: found {found!r}, expected a version such as {SCHEMA_VERSION!r}."
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
    _require(
        len(manifest.labels) >= 2, "labels", manifest.labels, "background and at least one class"
    )
    _require(
        len(set(manifest.labels)) == len(manifest.labels),
        "labels",
        manifest.labels,
        "names that differ",
    )
    _require(bool(manifest.stages), "stages", [], "at least one stage")
    for name, net in manifest.nets.items():
        _check_net(f"nets.{name}", name, net)
    earlier: list[str] = []
    for index, stage in enumerate(manifest.stages):
        _check_stage(f"stages[{index}]", stage, manifest, earlier)
        earlier.append(stage.name)
    _require(bool(manifest.overlay), "overlay", [], "at least one stage")
    for index, name in enumerate(manifest.overlay):
        _require(name in earlier, f"overlay[{index}]", name, f"one of the stages {earlier}")


def references(stage: Stage) -> Iterator[tuple[str, str]]:
    """The earlier stages that a stage needs, as (field, stage name)."""
    if isinstance(stage.look, Boxes):
        yield "look.of", stage.look.of
    for i, step in enumerate(stage.steps):
        if isinstance(step, MultiplyByMask | CentreInMask):
            yield f"steps[{i}].of", step.of
    if isinstance(stage.windows, Slices) and stage.windows.only is not None:
        yield "windows.only", stage.windows.only
    for i, clean in enumerate(stage.clean):
        if isinstance(clean, Overlap):
            yield f"clean[{i}].of", clean.of


def _check_net(where: str, name: str, net: Net) -> None:
    _require(_NAME.fullmatch(name) is not None, where, name, "a name of a-z, 0-9, - and _")
    _require(len(net.size_vox) in (2, 3), f"{where}.size_vox", net.size_vox, "two or three sizes")
    _positive(f"{where}.size_vox", net.size_vox)
    _positive(f"{where}.in_channels", (net.in_channels,))
    _positive(f"{where}.out_channels", (net.out_channels,))
    _require(bool(net.files), f"{where}.files", {}, "at least one file")
    for precision, file in net.files.items():
        _require(
            len(file.sha256) == 64,
            f"{where}.files.{precision}.sha256",
            file.sha256,
            "64 hex digits",
        )
        _require(file.bytes > 0, f"{where}.files.{precision}.bytes", file.bytes, "a size above 0")


def _check_stage(where: str, stage: Stage, manifest: Manifest, earlier: Sequence[str]) -> None:
    _require(
        _NAME.fullmatch(stage.name) is not None,
        f"{where}.name",
        stage.name,
        "a name of a-z, 0-9, - and _",
    )
    _require(
        stage.name not in earlier, f"{where}.name", stage.name, "a name that no earlier stage has"
    )
    for field, name in references(stage):
        _require(
            name in earlier, f"{where}.{field}", name, f"an earlier stage, one of {list(earlier)}"
        )
    _check_look(f"{where}.look", stage.look)
    _check_steps(f"{where}.steps", stage.steps)
    _check_windows(f"{where}.windows", stage.windows)
    _check_decide(where, stage, manifest)
    _check_clean(f"{where}.clean", stage.clean)
    if stage.join == "halves":
        per_side = isinstance(stage.look, Boxes) and stage.look.per == "side"
        _require(per_side, f"{where}.join", "halves", "'mean' or 'max' unless boxes are per side")


def _check_look(where: str, look: Look) -> None:
    if not isinstance(look, Boxes):
        return
    if look.otherwise == "half":
        _require(
            look.per == "side",
            f"{where}.otherwise",
            "half",
            "'empty' or 'whole' unless per is 'side'",
        )
    for axis, size in zip("zyx", look.size, strict=True):
        _check_axis_size(f"{where}.size.{axis}", size)


def _check_axis_size(where: str, size: AxisSize) -> None:
    match size:
        case Voxels(count=count):
            _positive(f"{where}.count", (count,))
        case Millimetres(length_mm=length):
            _positive(f"{where}.length_mm", (length,))
        case Tight(margin_mm=margin):
            _require(margin >= 0, f"{where}.margin_mm", margin, "0 or more")
        case Full():
            pass


def _check_steps(where: str, steps: Sequence[Step]) -> None:
    resamples = [i for i, step in enumerate(steps) if isinstance(step, Resample)]
    _require(len(resamples) <= 1, where, f"{len(resamples)} resample steps", "at most one")
    scaled = False
    for i, step in enumerate(steps):
        _check_step(f"{where}[{i}]", step)
        in_hu = isinstance(step, Clip | MultiplyByMask | CentreInMask)
        _require(
            not (in_hu and scaled),
            f"{where}[{i}]",
            step.kind,
            "steps in HU before scale and z_score",
        )
        scaled = scaled or isinstance(step, Scale | ZScore | ClipMeanSigma)


def _check_step(where: str, step: Step) -> None:
    match step:
        case Resample():
            for axis, spacing, size in zip("zyx", step.spacing_mm, step.size_vox, strict=True):
                both = spacing is not None and size is not None
                _require(
                    not both, f"{where}.{axis}", (spacing, size), "a spacing or a size, not both"
                )
            _positive(f"{where}.spacing_mm", [s for s in step.spacing_mm if s is not None])
            _positive(f"{where}.size_vox", [s for s in step.size_vox if s is not None])
        case Clip(lower_hu=lower, upper_hu=upper):
            _require(lower < upper, where, (lower, upper), "lower_hu below upper_hu")
        case Scale(source=(low, high)):
            _require(low < high, f"{where}.source", (low, high), "a rising interval")
        case ZScore(std=std):
            _require(
                (step.mean is None) == (std is None),
                where,
                (step.mean, std),
                "both numbers or both null",
            )
            _require(std is None or std > 0, f"{where}.std", std, "a number above 0")
        case ClipMeanSigma(sigma=sigma):
            _positive(f"{where}.sigma", (sigma,))
        case _:
            pass


def _check_windows(where: str, windows: Windows) -> None:
    _positive(f"{where}.shape", windows.shape)
    _positive(f"{where}.stride", windows.stride)
    for size, stride in zip(windows.shape, windows.stride, strict=True):
        _require(
            stride <= size, f"{where}.stride", windows.stride, f"at most the shape {windows.shape}"
        )
        even = windows.join != "keep_centre" or (size - stride) % 2 == 0
        _require(
            even, f"{where}.stride", windows.stride, "an even overlap, so that the centre is one"
        )
    if isinstance(windows, Slices):
        odd = windows.depth > 0 and windows.depth % 2 == 1
        _require(odd, f"{where}.depth", windows.depth, "an odd number of slices")


def _check_decide(where: str, stage: Stage, manifest: Manifest) -> None:
    _require(bool(stage.nets), f"{where}.nets", [], "at least one net")
    labels = stage.decide.labels
    for label in labels:
        known = 0 <= label < len(manifest.labels)
        _require(known, f"{where}.decide.labels", label, f"a value below {len(manifest.labels)}")
    if isinstance(stage.decide, Argmax):
        _require(labels[:1] == (0,), f"{where}.decide.labels", list(labels), "background (0) first")
    foreground = labels[1:] if isinstance(stage.decide, Argmax) else labels
    _require(
        len(foreground) > 0 and 0 not in foreground,
        f"{where}.decide.labels",
        list(labels),
        "at least one class, and background (0) only as argmax's first",
    )
    for i, name in enumerate(stage.nets):
        _require(
            name in manifest.nets, f"{where}.nets[{i}]", name, f"one of {sorted(manifest.nets)}"
        )
        _check_net_fits(f"{where}.nets[{i}]", manifest.nets[name], stage)


def _check_net_fits(where: str, net: Net, stage: Stage) -> None:
    depth = stage.windows.depth if isinstance(stage.windows, Slices) else 1
    _require(
        net.size_vox == stage.windows.shape,
        f"{where}.size_vox",
        net.size_vox,
        f"the windows' {stage.windows.shape}",
    )
    _require(
        net.in_channels == depth,
        f"{where}.in_channels",
        net.in_channels,
        f"{depth}, as the windows give",
    )
    channels = len(stage.decide.labels)
    _require(
        net.out_channels == channels,
        f"{where}.out_channels",
        net.out_channels,
        f"{channels}, as decide says",
    )


def _check_clean(where: str, clean: Sequence[Clean]) -> None:
    for i, item in enumerate(clean):
        match item:
            case KeepLargest(count=count):
                _positive(f"{where}[{i}].count", (count,))
            case DropSmall(min_voxels=min_voxels):
                _positive(f"{where}[{i}].min_voxels", (min_voxels,))
            case EigenvalueRatio(lowest=low, highest=high):
                _require(low < high, f"{where}[{i}]", (low, high), "lowest below highest")
            case Overlap(at_least=share):
                _require(
                    0 < share <= 1, f"{where}[{i}].at_least", share, "a share above 0, at most 1"
                )
            case _:
                pass


def _positive(where: str, values: Sequence[float]) -> None:
    for value in values:
        _require(value > 0, where, value, "a number above 0")


def _require(condition: bool, where: str, found: object, expected: str) -> None:
    if not condition:
        raise ManifestError(f"{where}: found {found!r}, expected {expected}. Correct the manifest.")
