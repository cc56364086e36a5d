"""``unet3d``: a MONAI 3D U-Net on 128 x 128 x 32 patches, the published 17.52 s a case.

The paper's model 2: unified spacing, HU window, foreground crop, random patches in training. At
test time it slides the same patch over the volume; the overlap is not said, so the library's
default of a quarter is taken. Ours as well, since the paper is silent: linear interpolation,
intensities onto 0 to 1, what counts as foreground (above the lower end of the HU window, as the
library's default does after scaling), and that its box is sought before resampling, not after.
"""

from kits_runtime.manifest.schema import (
    Argmax,
    Clip,
    Foreground,
    Patches,
    Resample,
    Scale,
    Stage,
)
from kits_trt.systems.recipe import Adam, Crops, Dice, OnPlateau, RandomSplit, Recipe, WarmCosine
from kits_trt.systems.system import NetShape, Preset, System

SPACING_MM = {"paper": (3.22, 1.62, 1.62), "small": (4.0, 3.24, 3.24)}
PATCH_VOX = {"paper": (32, 128, 128), "small": (32, 64, 64)}
LOWER_HU, UPPER_HU = -79.0, 304.0
CROPS_PER_CASE = 4
SMALL_SMOOTH_VOX = 50.0  # two millilitres


def unet3d(preset: Preset) -> System:
    """The system of the paper: one net, three classes."""
    shape = PATCH_VOX[preset]
    z_vox, y_vox, x_vox = shape
    segment = Stage(
        name="segment",
        look=Foreground(above_hu=LOWER_HU),
        steps=(
            Resample(
                spacing_mm=SPACING_MM[preset],
                size_vox=(None, None, None),
                interpolation="linear",
            ),
            Clip(lower_hu=LOWER_HU, upper_hu=UPPER_HU),
            Scale(source=(LOWER_HU, UPPER_HU), target=(0.0, 1.0)),
        ),
        windows=Patches(
            shape=shape, stride=(z_vox * 3 // 4, y_vox * 3 // 4, x_vox * 3 // 4), join="mean"
        ),
        nets=("unet",),
        combine="mean",
        decide=Argmax(labels=(0, 1, 2)),
        join="mean",
        clean=(),
        clean_on="model",
    )
    return System(
        name="unet3d",
        preset=preset,
        labels=("background", "kidney", "tumour"),
        nets={"unet": NetShape(in_channels=1, out_channels=3, size_vox=shape)},
        stages=(segment,),
        overlay=("segment",),
        recipes={"unet": _recipe(preset)},
    )


def _recipe(preset: Preset) -> Recipe:
    """As published; the paper's batch of one case is the four crops of it."""
    published = preset == "paper"
    return Recipe(
        stage="segment",
        target={1: 1, 2: 2, 3: 1},
        draw=Crops(per_case=CROPS_PER_CASE, foreground_share=0.5),
        augment=(),
        loss=Dice() if published else Dice(smooth_vox=SMALL_SMOOTH_VOX),
        optimiser=Adam(learning_rate=1e-4 if published else 2e-3),
        schedule=OnPlateau(factor=0.1, patience_epochs=10)
        if published
        else WarmCosine(rise_steps=30),
        batch_size=CROPS_PER_CASE,
        epochs=300 if published else 60,
        split=RandomSplit(train_share=100 / 125),
    )
