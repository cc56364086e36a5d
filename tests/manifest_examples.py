"""A manifest that uses the whole vocabulary, and the vocabulary itself."""

import dataclasses
import inspect
import json
from typing import Any

from kits_runtime.manifest import manifest_to_json, schema
from kits_runtime.manifest.schema import (
    Argmax,
    Boxes,
    Card,
    CentreInMask,
    CentreOnBrighterSide,
    Clip,
    ClipMeanSigma,
    DimOutsideMask,
    DropSmall,
    EigenvalueRatio,
    FillHoles,
    Foreground,
    Full,
    KeepLargest,
    KeepSurest,
    Manifest,
    MiddleOfBox,
    MiddleOfProjections,
    Millimetres,
    MultiplyByMask,
    Net,
    NetFile,
    Overlap,
    ParityLink,
    Part,
    Patches,
    Provenance,
    Resample,
    Scale,
    Slices,
    Stage,
    Threshold,
    Tight,
    Voxels,
    Whole,
    ZScore,
)

VOCABULARY: tuple[type, ...] = tuple(
    cls
    for _, cls in inspect.getmembers(schema, inspect.isclass)
    if dataclasses.is_dataclass(cls) and cls.__module__ == schema.__name__
)


def full_manifest() -> Manifest:
    """A manifest that keeps all rules and holds every class, optional fields given and not."""
    return Manifest(
        schema="1.0.0",
        system="full",
        preset="small",
        labels=("background", "kidney", "tumour"),
        nets={
            "finder": _net("finder", in_channels=1, out_channels=2, size_vox=(16, 32, 32)),
            "slicer": _net("slicer", in_channels=3, out_channels=1, size_vox=(32, 48)),
        },
        stages=(_found(), _sliced(), _boxed(), _around(), _whole()),
        overlay=("found", "whole"),
        parity=(ParityLink(link="torch-onnx", measure="scores", value=1e-6, tolerance=1e-4),),
        provenance=Provenance(
            checkpoint_sha256="ab" * 32, commit=None, opset=17, tools={"onnx": "1.20", "torch": "2"}
        ),
        card=Card(
            intended_use="tests",
            training_data="none",
            licence="Apache-2.0",
            metrics={"dice_kidney": 0.5},
            remarks=("Größe: 5 µm",),
        ),
    )


def full_plain() -> dict[str, Any]:
    """The parsed JSON of the full manifest, a fresh copy."""
    plain: dict[str, Any] = json.loads(manifest_to_json(full_manifest()))
    return plain


def _net(name: str, *, in_channels: int, out_channels: int, size_vox: tuple[int, ...]) -> Net:
    return Net(
        input_name="patches",
        output_name="scores",
        in_channels=in_channels,
        out_channels=out_channels,
        size_vox=size_vox,
        files={
            "fp16": NetFile(
                path=f"nets/{name}.fp16.onnx",
                sha256="0f" * 32,
                bytes=10,
                tensors="float32",
                weights="float16",
            ),
            "fp32": NetFile(
                path=f"nets/{name}.fp32.onnx",
                sha256="f0" * 32,
                bytes=20,
                tensors="float32",
                weights="float32",
            ),
        },
    )


def _found() -> Stage:
    return Stage(
        name="found",
        look=Foreground(above_hu=-79.0),
        steps=(
            Resample(
                spacing_mm=(3.0, None, 1.5), size_vox=(None, 256, None), interpolation="linear"
            ),
            Clip(lower_hu=-100.0, upper_hu=300.0),
            Scale(source=(-100.0, 300.0), target=(0.0, 1.0)),
        ),
        windows=Patches(shape=(16, 32, 32), stride=(8, 16, 32), join="keep_centre"),
        nets=("finder",),
        combine="vote",
        decide=Argmax(labels=(0, 1)),
        join="max",
        clean=(
            KeepLargest(count=2, per="side"),
            DropSmall(min_voxels=50),
            FillHoles(per_slice=True),
            KeepSurest(at_least=0.8),
        ),
        clean_on="model",
    )


def _sliced() -> Stage:
    return Stage(
        name="sliced",
        look=Part(half="posterior"),
        steps=(ClipMeanSigma(sigma=0.25, target=(0.0, 1.0)),),
        windows=Slices(
            depth=3, shape=(32, 48), stride=(16, 48), join="mean", only="found", neighbours="kept"
        ),
        nets=("slicer",),
        combine="mean",
        decide=Threshold(at_least=0.5, labels=(2,)),
        join="mean",
        clean=(EigenvalueRatio(lowest=1.07, highest=2.8), Overlap(of="found", at_least=0.95)),
        clean_on="scan",
    )


def _boxed() -> Stage:
    return dataclasses.replace(
        _found(),
        name="boxed",
        look=Boxes(
            of="found",
            per="side",
            size=(Full(), Voxels(count=64), Millimetres(length_mm=90.0)),
            centre=MiddleOfProjections(coronal_window_vox=(10, 25), axial_window_vox=(25, 25)),
            border="clip",
            otherwise="half",
        ),
        steps=(
            MultiplyByMask(of="found"),
            CentreInMask(of="found", target_hu=45.0),
            ZScore(mean=101.0, std=77.0),
        ),
        join="halves",
    )


def _around() -> Stage:
    return dataclasses.replace(
        _sliced(),
        name="around",
        steps=(
            CentreOnBrighterSide(of="found", quantile=0.75, target_hu=45.0),
            DimOutsideMask(of="found", within_mm=12.0, share=0.25),
        ),
        look=Boxes(
            of="boxed",
            per="all",
            size=(Tight(margin_mm=9.0), Tight(margin_mm=0.0), Full()),
            centre=MiddleOfBox(),
            border="shift",
            otherwise="whole",
        ),
        windows=Slices(
            depth=3, shape=(32, 48), stride=(32, 48), join="mean", only=None, neighbours="volume"
        ),
    )


def _whole() -> Stage:
    return dataclasses.replace(
        _found(),
        name="whole",
        look=Whole(),
        steps=(ZScore(mean=None, std=None),),
        windows=Patches(shape=(16, 32, 32), stride=(15, 31, 32), join="gaussian"),
    )
