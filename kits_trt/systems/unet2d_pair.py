"""``unet2d-pair``: two 2D sigmoid U-Nets, then anatomical and statistical clean-up.

One net sees whole axial slices (256 x 256) and finds kidney with tumour, the other sees their
lower, posterior half (128 x 256) and finds tumours. Slices are resized by nearest neighbour. At
the scan's own size holes are filled, the two largest kidney structures stay, and a tumour stays
when the ratio of its two largest eigenvalues is 1.07 to 2.8 and 95 % of it lies in the kidneys.
Ours: the HU window, the threshold of 0.5, that scores return to the scan by linear interpolation,
holes in 3D, eigenvalues in mm, and that each connected piece of tumour is a tumour of its own.
"""

from collections.abc import Mapping

from kits_runtime.manifest.schema import (
    Clean,
    Clip,
    EigenvalueRatio,
    FillHoles,
    KeepLargest,
    Look,
    Overlap,
    Part,
    Resample,
    Scale,
    Shape2,
    Slices,
    Stage,
    Threshold,
    Whole,
)
from kits_trt.systems.augmentation import Group
from kits_trt.systems.recipe import (
    Adam,
    BceDice,
    OnPlateau,
    RandomSplit,
    Recipe,
    SliceStacks,
    WarmCosine,
)
from kits_trt.systems.system import NetShape, Preset, System

PLANE_VOX = {"paper": 256, "small": 128}
WINDOW_HU = (-100.0, 300.0)
TUMOUR_RATIO = (1.07, 2.8)
OVERLAP = 0.95


def unet2d_pair(preset: Preset) -> System:
    """The two nets of the paper and its post-processing."""
    plane = PLANE_VOX[preset]
    kidney = _stage(
        "kidney",
        Whole(),
        shape=(plane, plane),
        label=1,
        clean=(FillHoles(per_slice=False), KeepLargest(count=2, per="all")),
    )
    tumour = _stage(
        "tumour",
        Part(half="posterior"),
        shape=(plane // 2, plane),
        label=2,
        clean=(
            FillHoles(per_slice=False),
            EigenvalueRatio(lowest=TUMOUR_RATIO[0], highest=TUMOUR_RATIO[1]),
            Overlap(of="kidney", at_least=OVERLAP),
        ),
    )
    return System(
        name="unet2d-pair",
        preset=preset,
        labels=("background", "kidney", "tumour"),
        nets={
            "kidney-unet": NetShape(in_channels=1, out_channels=1, size_vox=(plane, plane)),
            "tumour-unet": NetShape(in_channels=1, out_channels=1, size_vox=(plane // 2, plane)),
        },
        stages=(kidney, tumour),
        overlay=("kidney", "tumour"),
        recipes={
            "kidney-unet": _recipe(
                "kidney", preset, target={1: 1, 2: 1, 3: 1}, positive=("kidney", "tumour")
            ),
            "tumour-unet": _recipe("tumour", preset, target={2: 1}, positive=("tumour",)),
        },
    )


def _stage(name: str, look: Look, *, shape: Shape2, label: int, clean: tuple[Clean, ...]) -> Stage:
    _, plane = shape
    return Stage(
        name=name,
        look=look,
        steps=(
            Resample(
                spacing_mm=(None, None, None),
                size_vox=(None, plane, plane),
                interpolation="nearest",
            ),
            Clip(lower_hu=WINDOW_HU[0], upper_hu=WINDOW_HU[1]),
            Scale(source=WINDOW_HU, target=(0.0, 1.0)),
        ),
        windows=Slices(
            depth=1, shape=shape, stride=shape, join="mean", only=None, neighbours="volume"
        ),
        nets=(f"{name}-unet",),
        combine="mean",
        decide=Threshold(at_least=0.5, labels=(label,)),
        join="mean",
        clean=clean,
        clean_on="scan",
    )


def _recipe(
    stage: str, preset: Preset, *, target: Mapping[int, int], positive: tuple[Group, ...]
) -> Recipe:
    """Every positive slice once an epoch, and no other."""
    published = preset == "paper"
    return Recipe(
        stage=stage,
        target=target,
        draw=SliceStacks(per_case=None if published else 8, shares={positive: 1.0}),
        augment=(),
        loss=BceDice(dice_share=0.5),
        optimiser=Adam(learning_rate=1e-3 if published else 2e-3),
        schedule=OnPlateau(factor=0.1, patience_epochs=3)
        if published
        else WarmCosine(rise_steps=30),
        batch_size=16,
        epochs=50,
        split=RandomSplit(train_share=0.9),
        patience_epochs=8 if published else None,
    )
