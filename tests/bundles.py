"""Tiny bundles that segment by brightness, and digital phantoms whose true labels are known.

Outside the phantom's body is air of -1000 HU, the body has 0, the kidneys 100 and the tumour 200
HU, so that thresholds of 50 and 150 HU tell them apart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nets import conv_softmax_net, threshold_net
from stages import stage

from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    Card,
    Clip,
    KeepLargest,
    MiddleOfBox,
    MultiplyByMask,
    Patches,
    Provenance,
    Resample,
    Scale,
    Slices,
    Stage,
    Tight,
)
from kits_trt.systems.system import NetShape, System

Voxels: TypeAlias = npt.NDArray[np.int16]
Labels: TypeAlias = npt.NDArray[np.uint8]

SHAPE = (24, 40, 48)
SPACING_MM = (5.0, 4.0, 4.0)
KIDNEY_FROM_HU, TUMOUR_FROM_HU = 50.0, 150.0
CARD = Card(
    intended_use="tests", training_data="none", licence="Apache-2.0", metrics={}, remarks=()
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """A scan on (z, y, x), running towards inferior, posterior and left, and its true labels."""

    data: Voxels
    labels: Labels
    affine: npt.NDArray[np.float64]


def phantom(*, tumour_on: Literal["right", "left"] = "left", seed: int = 0) -> Phantom:
    """Two kidneys in a body, a tumour in one of them, and noise of a few HU."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]

    def ellipsoid(centre: tuple[float, ...], radii: tuple[float, ...]) -> npt.NDArray[np.bool_]:
        parts = zip((z, y, x), centre, radii, strict=True)
        return np.asarray(sum(((a - c) / r) ** 2 for a, c, r in parts) <= 1)

    tumour_x = 13 if tumour_on == "right" else 34
    labels = np.zeros(SHAPE, np.uint8)
    labels[ellipsoid((12, 22, 14), (7, 6, 5)) | ellipsoid((11, 22, 33), (7, 6, 5))] = 1
    labels[ellipsoid((13, 21, tumour_x), (3, 3, 3))] = 2
    data = np.where(((y - 20) / 18) ** 2 + ((x - 24) / 22) ** 2 <= 1, 0, -1000) + 100 * labels
    noise = np.random.default_rng(seed).integers(-4, 5, SHAPE)
    return Phantom(data=(data + noise).astype(np.int16), labels=labels, affine=ipl_affine())


def ipl_affine() -> npt.NDArray[np.float64]:
    """From (z, y, x) towards inferior, posterior and left to RAS millimetres."""
    z_mm, y_mm, x_mm = SPACING_MM
    return np.array([[0, 0, -x_mm, 11], [0, -y_mm, 0, 22], [-z_mm, 0, 0, 33], [0, 0, 0, 1.0]])


def write_scan(path: Path, made: Phantom | None = None, *, axcodes: str | None = None) -> Path:
    """Writes a phantom as NIfTI, arranged along nibabel's axis codes where they are given."""
    made = made or phantom()
    image = nib.Nifti1Image(made.data, made.affine)
    if axcodes is not None:
        own = nib.orientations.io_orientation(made.affine)
        wanted = nib.orientations.axcodes2ornt(axcodes)
        image = image.as_reoriented(nib.orientations.ornt_transform(own, wanted))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_one_stage(path: Path, *, kernel: int | None = None) -> Path:
    """A bundle that labels every voxel by its own brightness, on the scan's grid.

    With a ``kernel`` the net is a convolution as wide as that, of which only the middle counts:
    the same labels, slower.
    """
    size = (8, *SHAPE[1:])
    only = stage(
        name="all",
        steps=(Clip(lower_hu=-200, upper_hu=300),),
        windows=Patches(shape=size, stride=size, join="mean"),
        decide=Argmax(labels=(0, 1, 2)),
    )
    edges = (KIDNEY_FROM_HU, TUMOUR_FROM_HU)
    net = threshold_net(edges, size=size) if kernel is None else _slow_net(edges, size, kernel)
    return _written(
        path, (only,), {"net": (NetShape(in_channels=1, out_channels=3, size_vox=size), net)}
    )


def write_two_stages(path: Path) -> Path:
    """A bundle that finds kidneys on a coarser grid and tumours in a box around each, in 2.5D."""
    window, plane = (16, 20, 24), (20, 16)
    kidney = stage(
        name="kidney",
        steps=(
            Resample(spacing_mm=(6.0, None, None), size_vox=(None, 20, 24), interpolation="linear"),
            Clip(lower_hu=-200, upper_hu=300),
            Scale(source=(-200, 300), target=(0, 1)),
        ),
        windows=Patches(shape=window, stride=(8, 20, 24), join="keep_centre"),
        nets=("finder",),
        clean=(KeepLargest(count=2, per="all"),),
    )
    nets = {
        "finder": (
            NetShape(in_channels=1, out_channels=2, size_vox=window),
            threshold_net([_scaled(KIDNEY_FROM_HU)], size=window),
        ),
        "slicer": (
            NetShape(in_channels=3, out_channels=2, size_vox=plane),
            threshold_net([_scaled(TUMOUR_FROM_HU)], size=plane, in_channels=3, channel=1),
        ),
    }
    return _written(path, (kidney, _tumour(plane)), nets)


def _tumour(plane: tuple[int, int]) -> Stage:
    tight = Tight(margin_mm=8.0)
    return stage(
        name="tumour",
        look=Boxes(
            of="kidney",
            per="side",
            size=(tight, tight, tight),
            centre=MiddleOfBox(),
            border="clip",
            otherwise="empty",
        ),
        steps=(
            MultiplyByMask(of="kidney"),
            Clip(lower_hu=-200, upper_hu=300),
            Scale(source=(-200, 300), target=(0, 1)),
        ),
        windows=Slices(
            depth=3, shape=plane, stride=plane, join="mean", only="kidney", neighbours="volume"
        ),
        nets=("slicer",),
        decide=Argmax(labels=(0, 2)),
    )


def _scaled(hu: float) -> float:
    return (hu + 200) / 500


def _slow_net(edges: tuple[float, float], size: tuple[int, ...], kernel: int) -> bytes:
    """Linear scores whose argmax is the class: each class gains on the last beyond its edge."""
    weights = np.zeros((3, 1, kernel, kernel, kernel), np.float32)
    middle = kernel // 2
    weights[:, 0, middle, middle, middle] = (0, 0.125, 0.25)
    low, high = edges
    bias = np.array([0, -low / 8, -(low + high) / 8], np.float32)
    return conv_softmax_net(weights, bias, size=size)


def _written(
    path: Path, stages: tuple[Stage, ...], nets: dict[str, tuple[NetShape, bytes]]
) -> Path:
    system = System(
        name="tiny",
        preset="small",
        labels=("background", "kidney", "tumour"),
        nets={name: shape for name, (shape, _) in nets.items()},
        stages=stages,
        overlay=tuple(each.name for each in stages),
    )
    contents = {
        name: {"fp32": NetContent(onnx=net, tensors="float32", weights="float32")}
        for name, (_, net) in nets.items()
    }
    provenance = Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={})
    write_bundle(path, system, contents, parity=(), provenance=provenance, card=CARD)  # type: ignore[arg-type]
    return path
