"""``cascaded-vnet``: a V-Net finds each kidney's box, two V-Nets segment kidney and tumour in it.

The paper interpolates everything to 3 x 0.78 x 0.78 mm, says 0.45 mm cubes as well, and cuts boxes
of 256 voxels. Boxes of 256 voxels of 0.45 mm are 115 mm long and cannot hold a large tumour, so
boxes and nets live on the 3 x 0.78 mm grid. It says both that the tumour overlays the kidney and
that probabilities are compared; the first is done. Boxes end at the middle of the scan, but not at
the middle of its slices, which its formula says as well. Ours, since the paper is silent: how
128-voxel windows tile a region (side by side for the box, half overlapping and weighted by a
Gaussian for the rest), and that 'statistical normalization' clips what a stage looks at to mean
+- sigma std and maps that onto 0 to 1.
"""

from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    ClipMeanSigma,
    Look,
    MiddleOfProjections,
    Patches,
    Resample,
    Stage,
    Voxels,
    Whole,
)
from kits_trt.systems.system import NetShape, Preset, System

SPACING_MM = {"paper": (3.0, 0.78162497, 0.78162497), "small": (4.0, 3.0, 3.0)}
PATCH_VOX = {"paper": (128, 128, 128), "small": (64, 64, 64)}
BOX_VOX = {"paper": 256, "small": 64}
SIGMA = 0.25


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
            ClipMeanSigma(sigma=SIGMA, target=(0.0, 1.0)),
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
