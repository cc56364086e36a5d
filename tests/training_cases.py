"""Two kidneys, one with a tumour, as arrays, files and pieces; lessons made from arrays."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from stages import stage

from kits_runtime.manifest.schema import Patches, Slices, Step
from kits_trt.data.plans import Lesson
from kits_trt.data.stage_pieces import (
    CasePieces,
    Piece,
    PieceMask,
    groups_of_slices,
    labelled_places,
)
from kits_trt.phantom.cases import kits_affine
from kits_trt.systems.augmentation import Augment, Change
from kits_trt.systems.recipe import Adam, Constant, Crops, Dice, Draw, FirstCases, Recipe

SHAPE, SPACING_MM = (30, 72, 84), (5.0, 4.0, 4.0)


@cache
def anatomy() -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """A textured scan of -600 to 600 HU with its labels."""
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (1, 2, 2))
    hu = (texture / texture.std() * 180).astype(np.int16)
    z, y, x = np.mgrid[tuple(slice(n) for n in SHAPE)]
    labels = np.zeros(SHAPE, np.uint8)
    for middle in (24, 60):
        labels[((z - 15) / 8) ** 2 + ((y - 45) / 7) ** 2 + ((x - middle) / 6) ** 2 < 1] = 1
    labels[((z - 18) / 4) ** 2 + ((y - 48) / 5) ** 2 + ((x - 26) / 5) ** 2 < 1] = 2
    return hu, labels


def write_nifti(path: Path, data: npt.NDArray[Any], affine: npt.NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = kits_affine(SPACING_MM) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)  # type: ignore[no-untyped-call]
    return path


def write_case(
    folder: Path, scan: npt.NDArray[Any] | None = None, labels: npt.NDArray[Any] | None = None
) -> Path:
    """A case in the KiTS layout; the anatomy's scan and labels where none are given."""
    write_nifti(folder / "imaging.nii.gz", anatomy()[0] if scan is None else scan)
    write_nifti(folder / "segmentation.nii.gz", anatomy()[1] if labels is None else labels)
    return folder


def recipe(
    draw: Draw | None = None, *changes: Change, target: dict[int, int] | None = None, **more: Any
) -> Recipe:
    plain = Recipe(
        stage="stage",
        target={1: 1, 2: 2} if target is None else target,
        draw=draw or Crops(per_case=4, foreground_share=0.5),
        augment=tuple(Augment(change=change) for change in changes),
        loss=Dice(),
        optimiser=Adam(learning_rate=1e-3),
        schedule=Constant(),
        batch_size=4,
        epochs=1,
        split=FirstCases(count=1, of=1),
    )
    return replace(plain, **more)


def piece(
    hu: npt.NDArray[Any],
    labels: npt.NDArray[Any] | None = None,
    *,
    mask: npt.NDArray[Any] | None = None,
    steps: Sequence[Step] = (),
    **more: Any,
) -> Piece:
    """A piece that is all of a volume; ``mask`` is that of the stage 'kidney'."""
    z, y, x = hu.shape
    told = np.zeros(hu.shape, np.uint8) if labels is None else labels.astype(np.uint8)
    places, counts = labelled_places(told)
    masks = {}
    if mask is not None:
        masks["kidney"] = PieceMask(share=mask.astype(np.float16), inside=mask >= 0.5)
    plain = Piece(
        shape=(z, y, x),
        corner=(0, 0),
        hu=hu.astype(np.int16),
        labels=told,
        masks=masks,
        masked=None,
        kept=np.ones(z, np.bool_),
        groups=groups_of_slices(told),
        places=places,
        counts=counts,
        spacing_mm=(3.0, 1.5, 1.5),
        steps=tuple(steps),
    )
    return replace(plain, **more)


def lesson(taught: Recipe, windows: Patches | Slices, *cases: Sequence[Piece]) -> Lesson:
    """A lesson in which case ``a`` has the first pieces, ``b`` the next and so on."""
    named = (CasePieces(name=chr(97 + i), pieces=tuple(case)) for i, case in enumerate(cases))
    return Lesson(stage=stage(windows=windows), recipe=taught, cases=tuple(named))


def patches(*shape: int) -> Patches:
    z, y, x = shape
    return Patches(shape=(z, y, x), stride=(z, y, x), join="mean")
