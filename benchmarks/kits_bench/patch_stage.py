"""What the two re-made baselines need to know of a one-stage system of windows in space."""

from dataclasses import dataclass

from kits_runtime.bundle import Bundle
from kits_runtime.errors import UsageError
from kits_runtime.manifest.schema import Clip, Foreground, Patches, Resample

Triple = tuple[float, float, float]
Shape3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchStage:
    """Spacing, window of HU, windows in space and their overlap, all on (z, y, x)."""

    net: str
    spacing_mm: Triple
    window_hu: tuple[float, float]
    shape: Shape3
    stride: Shape3


def is_patch_stage(bundle: Bundle) -> bool:
    """Whether a bundle is one stage of patches over a scan's foreground, as the baseline is."""
    stages = bundle.manifest.stages
    return (
        len(stages) == 1
        and isinstance(stages[0].windows, Patches)
        and isinstance(stages[0].look, Foreground)
    )


def patch_stage_of(bundle: Bundle) -> PatchStage:
    """The numbers of a bundle's only stage.

    Raises:
        UsageError: the bundle is no single stage of patches with a spacing and a window of HU.
    """
    (stage,) = bundle.manifest.stages if is_patch_stage(bundle) else (None,)
    resample = next((s for s in stage.steps if isinstance(s, Resample)), None) if stage else None
    clip = next((s for s in stage.steps if isinstance(s, Clip)), None) if stage else None
    if stage is None or resample is None or clip is None or None in resample.spacing_mm:
        raise UsageError(
            f"{bundle.path}: found system {bundle.manifest.system}, expected one stage of patches "
            "on a given spacing, as unet3d has. Choose the baseline 'torch' for other systems."
        )
    assert isinstance(stage.windows, Patches)
    z_mm, y_mm, x_mm = (float(step or 0) for step in resample.spacing_mm)
    return PatchStage(
        net=stage.nets[0],
        spacing_mm=(z_mm, y_mm, x_mm),
        window_hu=(clip.lower_hu, clip.upper_hu),
        shape=stage.windows.shape,
        stride=stage.windows.stride,
    )
