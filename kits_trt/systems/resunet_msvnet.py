"""``resunet-msvnet``: a 3D ResUNet finds the kidneys, a 2.5D V-Net the tumours in them.

Kidneys: slices of 2 mm and 256 x 256, windows of 64 slices every 32 of which the centre is kept;
the first and last windows keep their ends too, which the paper's loop loses. Tumours: the scan
times the kidney mask, slices of 1 mm and 512 x 512, HU inside the kidney brought to 45 slice by
slice, slices without kidney left out, the largest component kept.

Ours: the HU windows and the two largest kidney components, of which the paper says nothing, five
slices for its '2.5D', taken from those that were not left out, and a shift to a mean of 45 for its
'normalize the HU value (40-50)'. The small preset also looks for tumours in a box around each
kidney on a coarser grid, takes nine slices instead, and those from the volume, means its scores
over four mirror images, sees faintly what lies beside the mask, and keeps the find from half a
millilitre of which it is surest. It brings the brighter kidney to 45 HU rather than each slice: a
slice through a tumour alone would look like one through a kidney alone, and so would a kidney that
is mostly tumour. All else moves along, so that the value far outside tells how bright it was.
"""

from kits_runtime.manifest.schema import (
    Argmax,
    AxisCounts,
    AxisFloats,
    Boxes,
    CentreInMask,
    CentreOnBrighterSide,
    Clean,
    Clip,
    DimOutsideMask,
    DropSmall,
    KeepLargest,
    KeepSurest,
    Look,
    MiddleOfBox,
    MultiplyByMask,
    Patches,
    Resample,
    Scale,
    Slices,
    Stage,
    Step,
    Tight,
    Whole,
)
from kits_trt.systems.augmentation import (
    Augment,
    Blur,
    Change,
    Contrast,
    CutOut,
    EqualiseHistogram,
    Mirror,
    Noise,
    Place,
    RoughMask,
)
from kits_trt.systems.recipe import (
    Adam,
    Constant,
    DeepDice,
    FirstCases,
    FocalDice,
    HardCases,
    RandomSplit,
    Recipe,
    SliceRuns,
    SliceStacks,
    WarmCosine,
)
from kits_trt.systems.system import NetShape, Preset, System

WINDOW_SLICES, WINDOW_STRIDE = 64, 32
KIDNEY_PLANE_VOX = {"paper": 256, "small": 128}
KIDNEY_SLICE_MM = {"paper": 2.0, "small": 3.0}
KIDNEY_HU = (-200.0, 300.0)

NEIGHBOURS = {"paper": 5, "small": 9}  # small sees 27 mm, all of a small tumour
TUMOUR_PLANE_VOX = {"paper": 512, "small": 64}
TUMOUR_HU = {"paper": (-100.0, 250.0), "small": (-100.0, 300.0)}
NEAR_KIDNEY_MM = 12.0
SHARE_OUTSIDE = 0.25  # so that the mask's border shows
SURE = 0.8  # a score
MIN_TUMOUR_VOX = 75  # half a millilitre on the small grid, a ball of 1 cm
UNIT_HU = 100.0  # of what the tumour net reads
KIDNEY_CENTRE_HU = 45.0
KIDNEY_QUANTILE = 0.75  # healthy parenchyma, unless a tumour is most of what is seen

TUMOUR_SMOOTH_VOX = 100.0  # two square centimetres of a slice
TAUGHT_PART_VOX = (96, 96)  # of small's 128 x 128: half the cost of a step

# Small is taught on rendered scans; real scanners differ from those and from each other.
SHARPNESS_CHANGES: tuple[Change, ...] = (
    Noise(up_to_hu=20.0, chance=0.6),
    Blur(up_to_vox=0.8, chance=0.3),
)
SCANNER_CHANGES = (Contrast(gain=0.1, shift_hu=15.0), *SHARPNESS_CHANGES)


def resunet_msvnet(preset: Preset) -> System:
    """The two stages of the paper."""
    plane = KIDNEY_PLANE_VOX[preset]
    tumour_plane = TUMOUR_PLANE_VOX[preset]
    return System(
        name="resunet-msvnet",
        preset=preset,
        labels=("background", "kidney", "tumour"),
        nets={
            "resunet3d": NetShape(
                in_channels=1, out_channels=2, size_vox=(WINDOW_SLICES, plane, plane)
            ),
            "msvnet": NetShape(
                in_channels=NEIGHBOURS[preset],
                out_channels=2,
                size_vox=(tumour_plane, tumour_plane),
            ),
        },
        stages=(_kidney(preset), _tumour(preset)),
        overlay=("kidney", "tumour"),
        recipes={"resunet3d": _kidney_recipe(preset), "msvnet": _tumour_recipe(preset)},
    )


def _kidney(preset: Preset) -> Stage:
    plane = KIDNEY_PLANE_VOX[preset]
    return Stage(
        name="kidney",
        look=Whole(),
        steps=(
            Resample(
                spacing_mm=(KIDNEY_SLICE_MM[preset], None, None),
                size_vox=(None, plane, plane),
                interpolation="linear",
            ),
            Clip(lower_hu=KIDNEY_HU[0], upper_hu=KIDNEY_HU[1]),
            Scale(source=KIDNEY_HU, target=(0.0, 1.0)),
        ),
        windows=Patches(
            shape=(WINDOW_SLICES, plane, plane),
            stride=(WINDOW_STRIDE, plane, plane),
            join="keep_centre",
        ),
        nets=("resunet3d",),
        combine="mean",
        decide=Argmax(labels=(0, 1)),
        join="mean",
        clean=(KeepLargest(count=2, per="all"),),
        clean_on="model",
    )


def _tumour(preset: Preset) -> Stage:
    plane = TUMOUR_PLANE_VOX[preset]
    return Stage(
        name="tumour",
        look=_tumour_look(preset),
        steps=_tumour_steps(preset),
        windows=Slices(
            depth=NEIGHBOURS[preset],
            shape=(plane, plane),
            stride=(plane, plane) if preset == "paper" else (plane * 3 // 4, plane * 3 // 4),
            join="mean",
            only="kidney",
            neighbours="kept" if preset == "paper" else "volume",
        ),
        nets=("msvnet",),
        combine="mean",
        decide=Argmax(labels=(0, 2)),
        join="mean",
        clean=_tumour_clean(preset),
        clean_on="model",
    )


def _tumour_steps(preset: Preset) -> tuple[Step, ...]:
    lower_hu, upper_hu = TUMOUR_HU[preset]
    clip = Clip(lower_hu=lower_hu, upper_hu=upper_hu)
    scale = Scale(source=(lower_hu, upper_hu), target=(lower_hu / UNIT_HU, upper_hu / UNIT_HU))
    if preset == "paper":
        per_slice = CentreInMask(of="kidney", target_hu=KIDNEY_CENTRE_HU)
        return (MultiplyByMask(of="kidney"), _tumour_grid(preset), per_slice, clip, scale)
    per_patient = CentreOnBrighterSide(
        of="kidney", quantile=KIDNEY_QUANTILE, target_hu=KIDNEY_CENTRE_HU
    )
    dim = DimOutsideMask(of="kidney", within_mm=NEAR_KIDNEY_MM, share=SHARE_OUTSIDE)
    return (_tumour_grid(preset), clip, dim, per_patient, scale)


def _tumour_look(preset: Preset) -> Look:
    if preset == "paper":
        return Whole()
    tight = Tight(margin_mm=NEAR_KIDNEY_MM)
    return Boxes(
        of="kidney",
        per="side",
        size=(tight, tight, tight),
        centre=MiddleOfBox(),
        border="clip",
        otherwise="empty",
    )


def _tumour_grid(preset: Preset) -> Resample:
    spacing_mm: AxisFloats = (1.0, None, None) if preset == "paper" else (3.0, 1.5, 1.5)
    size_vox: AxisCounts = (None, 512, 512) if preset == "paper" else (None, None, None)
    return Resample(spacing_mm=spacing_mm, size_vox=size_vox, interpolation="linear")


def _tumour_clean(preset: Preset) -> tuple[Clean, ...]:
    if preset == "paper":
        return (KeepLargest(count=1, per="all"),)
    return (DropSmall(min_voxels=MIN_TUMOUR_VOX), KeepSurest(at_least=SURE))


def _kidney_recipe(preset: Preset) -> Recipe:
    published = preset == "paper"
    mirror = Mirror(axes=(2,), chance=0.5)
    other_view = Place(degrees=10.0, zoom=(0.85, 1.18), shift=0.05)
    return Recipe(
        stage="kidney",
        target={1: 1, 2: 1, 3: 1},
        draw=SliceRuns(
            per_case=1 if published else 2,
            margin_slices=50 if published else 80,
            part_vox=None if published else TAUGHT_PART_VOX,
        ),
        augment=_all((mirror,) if published else (mirror, other_view, *SCANNER_CHANGES)),
        loss=DeepDice(mu=0.33, factor=0.8, every_epochs=15),
        optimiser=Adam(learning_rate=1e-3 if published else 2e-3),
        schedule=Constant() if published else WarmCosine(rise_steps=30),
        batch_size=2,
        epochs=500 if published else 60,
        split=RandomSplit(train_share=190 / 210),
    )


def _tumour_recipe(preset: Preset) -> Recipe:
    published = preset == "paper"
    lower_hu, upper_hu = TUMOUR_HU[preset]
    changes: tuple[Change, ...] = (
        Place(degrees=15.0, shift=0.1)
        if published
        else Place(degrees=90.0, zoom=(0.67, 1.5), shift=0.1),
        CutOut(up_to=0.3, chance=0.3),
        Blur(up_to_vox=1.0, chance=0.3),
    )
    if published:
        changes = (
            *changes,
            EqualiseHistogram(lower_hu=lower_hu, upper_hu=upper_hu, chance=0.3),
        )
    else:
        changes = (
            *changes,
            Mirror(axes=(2,), chance=0.5),
            *SHARPNESS_CHANGES,
            RoughMask(lumps=0.3, bites=0.3),
        )
    return Recipe(
        stage="tumour",
        target={2: 1},
        draw=SliceStacks(
            per_case=None if published else 16,
            shares={("kidney", "tumour"): 1.0}
            if published
            else {("kidney",): 0.5, ("tumour",): 0.5},
        ),
        augment=_all(changes),
        loss=FocalDice(
            gamma=2.0, weights=(0.25, 0.75), smooth_vox=1.0 if published else TUMOUR_SMOOTH_VOX
        ),
        optimiser=Adam(learning_rate=1e-3 if published else 2e-3),
        schedule=Constant() if published else WarmCosine(rise_steps=30),
        batch_size=8 if published else 24,
        epochs=100,
        split=FirstCases(count=195, of=210),
        hard_cases=HardCases(share=0.4, times=2.0),
    )


def _all(changes: tuple[Change, ...]) -> tuple[Augment, ...]:
    return tuple(Augment(change=change) for change in changes)
