"""``multistage25d``: a Res-UNet on halved slices localises, a Res-UNet and a Res-Net segment.

Five neighbouring slices in, the middle one's classes out. Slices of 3 mm, HU -30 to 300, zero mean
and unit variance. After both stages objects under 5000 voxels go. Ours: a kidney is what lies in
one half of the scan, boxes are moved back into the scan at its border, scores of overlapping boxes
are averaged, no kidney found means an empty result, which net is changed in which ways (of the
table's marks the text keeps three, two and one), mean and variance are those of what a stage
looks at (the paper standardises before it cuts its boxes, and does not say over what), and the
ensemble is the mean of both nets' scores (a vote of two masks would often be a tie).
"""

from collections.abc import Mapping

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
from kits_trt.systems.augmentation import Augment, Group, Mirror, Place
from kits_trt.systems.recipe import (
    Adam,
    Constant,
    CrossEntropy,
    RandomSplit,
    Recipe,
    SliceStacks,
    WarmCosine,
)
from kits_trt.systems.system import NetShape, Preset, System

SLICE_MM = {"paper": 3.0, "small": 4.0}
PLANE_VOX = {"paper": 256, "small": 96}
FULL_PLANE_VOX: dict[Preset, int | None] = {"paper": None, "small": 192}
MIN_OBJECT_VOX = {"paper": 5000, "small": 300}
NEIGHBOURS = 5
LOWER_HU, UPPER_HU = -30.0, 300.0
TUMOUR: tuple[Group, ...] = ("tumour",)
SHARES: Mapping[str, Mapping[tuple[Group, ...], float]] = {
    "localise": {("background",): 1 / 3, ("kidney",): 1 / 3, TUMOUR: 1 / 3},
    "segment": {("kidney",): 0.5, TUMOUR: 0.5},
}
CHANGES = (
    Augment(change=Place(degrees=30.0), groups=TUMOUR),
    Augment(change=Mirror(axes=(2,), chance=0.5), groups=TUMOUR),
    Augment(change=Place(zoom=(1.0, 1.5), chance=0.66), groups=TUMOUR),
)


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
        recipes={
            "res-unet-1": _recipe(
                preset,
                stage="localise",
                marks=3,
                weights=(0.3, 1.0, 3.0),
                learning_rate=1e-4,
            ),
            "res-unet-2": _recipe(
                preset,
                stage="segment",
                marks=2,
                weights=(0.3, 1.0, 3.0),
                learning_rate=1e-4,
            ),
            "res-net": _recipe(
                preset,
                stage="segment",
                marks=1,
                weights=(0.2, 0.25, 0.55),
                learning_rate=1e-3,
            ),
        },
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


def _recipe(
    preset: Preset,
    *,
    stage: str,
    marks: int,
    weights: tuple[float, float, float],
    learning_rate: float,
) -> Recipe:
    """Balanced batches; only slices with tumour change, in as many ways as table 1 marks."""
    published = preset == "paper"
    return Recipe(
        stage=stage,
        target={1: 1, 2: 2, 3: 1},
        draw=SliceStacks(per_case=16, shares=SHARES[stage]),
        augment=CHANGES[:marks] if published else CHANGES,
        loss=CrossEntropy(weights=weights),
        optimiser=Adam(learning_rate=learning_rate, weight_decay=0.1)
        if published
        else Adam(learning_rate=2e-3, weight_decay=0.01, decoupled=True),
        schedule=Constant() if published else WarmCosine(rise_steps=30),
        batch_size=32,
        epochs=250 if published else 60,
        split=RandomSplit(train_share=190 / 210),
    )
