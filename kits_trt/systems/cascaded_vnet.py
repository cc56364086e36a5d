"""``cascaded-vnet``: a V-Net finds each kidney's box, two V-Nets segment kidney and tumour in it.

The paper interpolates everything to 3 x 0.78 x 0.78 mm, says 0.45 mm cubes as well, and cuts boxes
of 256 voxels. Boxes of 256 voxels of 0.45 mm are 115 mm long and cannot hold a large tumour, so
boxes and nets live on the 3 x 0.78 mm grid. It says both that the tumour overlays the kidney and
that probabilities are compared; the first is done. Boxes end at the middle of the scan, but not at
the middle of its slices, which its formula says as well. Ours, since the paper is silent: how
128-voxel windows tile a region (side by side for the box, half overlapping and weighted by a
Gaussian for the rest), and that 'statistical normalization with sigma = 0.25' brings what a stage
looks at to a mean of 0 and a standard deviation of 0.25. ADR 0005 has the reasons.
"""

from collections.abc import Mapping

from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    Clip,
    Look,
    MiddleOfProjections,
    Patches,
    Resample,
    Scale,
    Stage,
    Voxels,
    Whole,
    ZScore,
)
from kits_trt.systems.augmentation import Augment, Noise
from kits_trt.systems.recipe import (
    Adam,
    Constant,
    Crops,
    Dice,
    FocalDice,
    Loss,
    RandomSplit,
    Recipe,
    Sgd,
    WarmCosine,
)
from kits_trt.systems.system import NetShape, Preset, System

SPACING_MM = {"paper": (3.0, 0.78162497, 0.78162497), "small": (4.0, 3.0, 3.0)}
PATCH_VOX = {"paper": (128, 128, 128), "small": (64, 64, 64)}
BOX_VOX = {"paper": 256, "small": 64}
SIGMA = 0.25
EPOCHS = {"roi-vnet": 47, "kidney-vnet": 47, "tumour-vnet": 56}
NOISE_HU = 20.0
# By Dice alone a tumour net floods the kidney: boxes without a tumour hardly tell it to stop.
SMALL_LOSS: Mapping[str, Loss] = {
    "roi-vnet": Dice(smooth_vox=50.0),  # two millilitres
    "kidney-vnet": Dice(smooth_vox=50.0),
    "tumour-vnet": FocalDice(gamma=0.0, weights=(1.0, 3.0), smooth_vox=200.0),
}
SMALL_HU = (-200.0, 300.0)  # or air sets the scale, and a kidney differs from a liver by 0.05


def cascaded_vnet(preset: Preset) -> System:
    """The three V-Nets of the paper; the tumour overlays the kidney."""
    side = BOX_VOX[preset]
    around_each_kidney = Boxes(
        of="roi",
        per="side",
        size=(Voxels(count=side), Voxels(count=side), Voxels(count=side)),
        centre=MiddleOfProjections(coronal_window_vox=(10, 25), axial_window_vox=(25, 25)),
        border="clip",
        otherwise="half",
    )
    shape = PATCH_VOX[preset]
    vnet = NetShape(in_channels=1, out_channels=2, size_vox=shape)
    return System(
        name="cascaded-vnet",
        preset=preset,
        labels=("background", "kidney", "tumour"),
        nets={"roi-vnet": vnet, "kidney-vnet": vnet, "tumour-vnet": vnet},
        stages=(
            _stage("roi", preset, look=Whole(), net="roi-vnet", label=1),
            _stage("kidney", preset, look=around_each_kidney, net="kidney-vnet", label=1),
            _stage("tumour", preset, look=around_each_kidney, net="tumour-vnet", label=2),
        ),
        overlay=("kidney", "tumour"),
        recipes={
            "roi-vnet": _recipe("roi-vnet", preset, stage="roi", target={1: 1, 2: 1, 3: 1}),
            "kidney-vnet": _recipe(
                "kidney-vnet", preset, stage="kidney", target={1: 1, 2: 1, 3: 1}
            ),
            "tumour-vnet": _recipe("tumour-vnet", preset, stage="tumour", target={2: 1}),
        },
    )


def _stage(name: str, preset: Preset, *, look: Look, net: str, label: int) -> Stage:
    coarse = isinstance(look, Whole)
    z_vox, y_vox, x_vox = shape = PATCH_VOX[preset]
    return Stage(
        name=name,
        look=look,
        steps=(
            Resample(
                spacing_mm=SPACING_MM[preset],
                size_vox=(None, None, None),
                interpolation="linear",
            ),
            *((Clip(lower_hu=SMALL_HU[0], upper_hu=SMALL_HU[1]),) if preset == "small" else ()),
            ZScore(mean=None, std=None),
            Scale(source=(-1.0, 1.0), target=(-SIGMA, SIGMA)),
        ),
        windows=Patches(
            shape=shape,
            stride=shape if coarse else (z_vox // 2, y_vox // 2, x_vox // 2),
            join="keep_centre" if coarse else "gaussian",
        ),
        nets=(net,),
        combine="mean",
        decide=Argmax(labels=(0, label)),
        join="mean" if coarse else "halves",
        clean=(),
        clean_on="model",
    )


def _recipe(net: str, preset: Preset, *, stage: str, target: Mapping[int, int]) -> Recipe:
    """As published, one random crop a case and epoch; small: half of them on the target."""
    published = preset == "paper"
    return Recipe(
        stage=stage,
        target=target,
        draw=Crops(per_case=1, foreground_share=None)
        if published
        else Crops(per_case=1, foreground_share=0.5),
        augment=(Augment(change=Noise(up_to_hu=NOISE_HU)),),
        loss=Dice() if published else SMALL_LOSS[net],
        optimiser=Sgd(learning_rate=1e-3, momentum=0.9, weight_decay=0.01)
        if published
        else Adam(learning_rate=2e-3, weight_decay=0.01, decoupled=True),
        schedule=Constant() if published else WarmCosine(rise_steps=30),
        batch_size=1 if published else 2,
        epochs=EPOCHS[net],
        split=RandomSplit(train_share=190 / 210),
    )
