"""``multistage25d``: a Res-UNet on halved slices localises, a Res-UNet and a Res-Net segment.

Five neighbouring slices in, the middle one's classes out. Slices of 3 mm, HU -30 to 300, zero mean
and unit variance. After both stages objects under 5000 voxels go. Ours: a kidney is what lies in
one half of the scan, boxes are moved back into the scan at its border, scores of overlapping boxes
are averaged, no kidney found means an empty result, mean and variance are those of what a stage
looks at (the paper standardises before it cuts its boxes, and does not say over what), and the
ensemble is the mean of both nets' scores (a vote of two masks would often be a tie).
"""

from kits_runtime.manifest.schema import (
    Argmax,
    AxisCounts,
    Boxes,
    Clip,
    DropSmall,
    Look,
    MiddleOfBox,
    Resample,
    Slices,
    Stage,
    Tight,
    Voxels,
    Whole,
    ZScore,
)
from kits_trt.systems.system import NetShape, Preset, System

SLICE_MM = {"paper": 3.0, "small": 4.0}
PLANE_VOX = {"paper": 256, "small": 96}
FULL_PLANE_VOX: dict[Preset, int | None] = {"paper": None, "small": 192}
MIN_OBJECT_VOX = {"paper": 5000, "small": 300}
NEIGHBOURS = 5
LOWER_HU, UPPER_HU = -30.0, 300.0


def multistage25d(preset: Preset) -> System:
    """The stages of the paper: localise, segment and ensemble."""
    plane = PLANE_VOX[preset]
    shape = NetShape(in_channels=NEIGHBOURS, out_channels=3, size_vox=(plane, plane))
    around_each_kidney = Boxes(
        of="localise",
        per="side",
        size=(Tight(margin_mm=0.0), Voxels(count=plane), Voxels(count=plane)),
        centre=MiddleOfBox(),
        border="shift",
        otherwise="empty",
    )
    full = FULL_PLANE_VOX[preset]
    return System(
        name="multistage25d",
        preset=preset,
        labels=("background", "kidney", "tumour"),
        nets={"res-unet-1": shape, "res-unet-2": shape, "res-net": shape},
        stages=(
            _stage("localise", preset, Whole(), nets=("res-unet-1",), size=(None, plane, plane)),
            _stage(
                "segment",
                preset,
                around_each_kidney,
                nets=("res-unet-2", "res-net"),
                size=(None, full, full),
            ),
        ),
        overlay=("segment",),
    )


def _stage(
    name: str, preset: Preset, look: Look, *, nets: tuple[str, ...], size: AxisCounts
) -> Stage:
    plane = PLANE_VOX[preset]
    return Stage(
        name=name,
        look=look,
        steps=(
            Resample(
                spacing_mm=(SLICE_MM[preset], None, None), size_vox=size, interpolation="linear"
            ),
            Clip(lower_hu=LOWER_HU, upper_hu=UPPER_HU),
            ZScore(mean=None, std=None),
        ),
        windows=Slices(
            depth=NEIGHBOURS,
            shape=(plane, plane),
            stride=(plane, plane),
            join="mean",
            only=None,
            neighbours="volume",
        ),
        nets=nets,
        combine="mean",
        decide=Argmax(labels=(0, 1, 2)),
        join="mean",
        clean=(DropSmall(min_voxels=MIN_OBJECT_VOX[preset]),),
        clean_on="model",
    )
