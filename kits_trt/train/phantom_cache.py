"""Phantom cases on the stages' grids, rendered once and kept as plain arrays on disk.

A case is a folder that appears in one rename, so that an interrupted run leaves no half-written
case, and runs that share a cache take whichever came first. Its place is keyed by the recipe and
by the code that renders: another recipe, or a phantom that was changed, never meets these arrays.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from kits_trt.phantom import draw_patient, render
from kits_trt.train.grids import Sample, kidney_blocks, kidney_grid, tumour_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRecipe:
    """How phantom scans are drawn and what of them is kept.

    Scans are rendered with 192 x 192 pixels instead of a CT's 512 x 512: rendering costs by the
    voxel, and the stages' grids are coarser or hardly finer.
    """

    seed: int
    plane: tuple[int, int] = (192, 192)
    pixel_mm: tuple[float, float] = (1.6, 2.67)
    slice_mm: tuple[float, ...] = (1.5, 2.0, 2.5, 3.0, 3.0, 4.0, 5.0, 5.0)
    extent_mm: tuple[float, float] = (200.0, 430.0)
    centre_jitter_mm: tuple[float, float, float] = (45.0, 12.0, 12.0)
    block_plane: tuple[int, int] = (128, 128)
    block_margin: int = 4
    least_kidney_ml: float = 15.0

    def key(self) -> str:
        """Return the name of this recipe's folder, a hash of the recipe and of the code it runs."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        here = Path(__file__)
        phantom = sorted(here.parent.parent.joinpath("phantom").glob("*.py"))
        for source in (here, here.with_name("grids.py"), *phantom):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One phantom: the whole scan for the kidney net, a block a kidney for the tumour net."""

    index: int
    whole: Sample
    kidneys: tuple[Sample, ...]


def render_case(recipe: ScanRecipe, index: int) -> Case:
    """Return a case, a function of recipe and index alone."""
    rng = np.random.default_rng((recipe.seed, index))
    pixel = rng.uniform(*recipe.pixel_mm)
    spacing = (float(rng.choice(recipe.slice_mm)), pixel, pixel)
    slices = max(8, round(rng.uniform(*recipe.extent_mm) / spacing[0]))
    patient = draw_patient(recipe.seed, index)
    moved = rng.uniform(-1, 1, 3) * recipe.centre_jitter_mm + patient.centre_mm
    hu, labels = render(
        patient,
        shape=(slices, *recipe.plane),
        spacing_mm=spacing,
        centre_mm=(float(moved[0]), float(moved[1]), float(moved[2])),
    )
    scan = Sample(hu=hu, labels=labels)
    fine = tumour_grid(scan, spacing)
    blocks = kidney_blocks(
        fine,
        plane=recipe.block_plane,
        margin=recipe.block_margin,
        least_voxels=round(recipe.least_kidney_ml * 1000 / (3.0 * 1.5 * 1.5)),
    )
    return Case(index=index, whole=kidney_grid(scan, spacing), kidneys=tuple(blocks))


def cached_cases(
    root: Path,
    recipe: ScanRecipe,
    indices: Sequence[int],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Case]:
    """Return the cases, rendering those that the cache lacks in ``workers`` processes."""
    folder = root / recipe.key()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [index for index in indices if not (folder / f"{index:05d}").is_dir()]
    if missing:
        # Forking a process that already runs torch's threads can hang: start fresh ones.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            made = pool.map(partial(_render_into, folder, recipe), missing)
            for done, _ in enumerate(made, start=1):
                progress(done, len(missing))
    return [read_case(folder / f"{index:05d}", index) for index in indices]


def _render_into(folder: Path, recipe: ScanRecipe, index: int) -> None:
    place = folder / f"{index:05d}"
    if not place.is_dir():  # another run may have rendered it since the list was made
        write_case(place, render_case(recipe, index))


def write_case(folder: Path, case: Case) -> None:
    """Write a case's arrays; the folder appears complete or not at all.

    Where another process was faster its folder stays: a case is the same whoever renders it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        for number, sample in enumerate((case.whole, *case.kidneys)):
            np.save(draft / f"{number}-hu.npy", sample.hu)
            np.save(draft / f"{number}-labels.npy", sample.labels)
        try:
            draft.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_case(folder: Path, index: int) -> Case:
    """Return a case of the cache; arrays are mapped, not read."""
    count = len(list(folder.glob("*-hu.npy")))
    samples = [
        Sample(
            hu=np.load(folder / f"{number}-hu.npy", mmap_mode="r"),
            labels=np.load(folder / f"{number}-labels.npy", mmap_mode="r"),
        )
        for number in range(count)
    ]
    return Case(index=index, whole=samples[0], kidneys=tuple(samples[1:]))
