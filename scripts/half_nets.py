"""The nets, weights and windows on which half precision is studied; imported by two scripts.

Weights are random with normalisations, slopes and biases as training leaves them, and for the
default bundle's two nets also the trained ones. Windows are uniform noise and a phantom's scan
after the value steps of the net's own stage.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from kits_export.half_storage import widen_weights
from kits_export.onnx_from_torch import onnx_from_net
from kits_runtime.bundle import open_bundle
from kits_runtime.grid import box_of, grid_over
from kits_runtime.manifest.schema import Clip, ClipMeanSigma, Scale, Stage, ZScore
from kits_runtime.segmenter import default_bundle_path
from kits_runtime.steps import prepared_region
from kits_runtime.volume import volume_from_array
from kits_trt.nets import NETS, SYSTEM_NETS
from kits_trt.nets.initialise import convolutions
from kits_trt.phantom import draw_patient, render
from kits_trt.phantom.cases import kits_affine
from kits_trt.systems import SYSTEMS, Preset

SEED = 7
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "half-precision"
_VALUE_STEPS = (Clip, ClipMeanSigma, Scale, ZScore)
_SLICE_MM, _FIELD_MM = 3.0, 380.0
_VERSIONS = ("numpy", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudiedNet:
    """One net as exported; ``weights`` says where they come from."""

    system: str
    name: str
    preset: Preset
    weights: str
    model: onnx.ModelProto
    patch_shape: tuple[int, ...]

    def facts(self) -> dict[str, Any]:
        """The columns that identify it."""
        return {"net": self.name, "preset": self.preset, "weights": self.weights}


def chosen_nets(description: str) -> tuple[Iterator[StudiedNet], Path]:
    """The nets and the folder of results that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=("small", "paper"), default="small")
    parser.add_argument("--nets", default=",".join(distinct_nets()), help="comma-separated")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the records")
    options = parser.parse_args()
    return studied_nets(options.preset, options.nets.split(",")), options.out


def distinct_nets() -> list[str]:
    """One name for each configuration; nets that share one differ in their weights alone."""
    return sorted({presets["small"]: name for name, presets in NETS.items()}.values())


def studied_nets(preset: Preset, names: Sequence[str]) -> Iterator[StudiedNet]:
    """The nets with random weights, then the small ones that the default bundle has trained."""
    systems = {net: system for system, nets in SYSTEM_NETS.items() for net in nets}
    bundle = open_bundle(default_bundle_path())
    for name in names:
        shape = NETS[name][preset].patch_shape
        models = {"random": onnx_from_net(_lively_net(name, preset), input_shape=shape)}
        if preset == bundle.manifest.preset and name in bundle.manifest.nets:
            stored = onnx.load_from_string(bundle.net_bytes(name, "fp32"))
            models["default bundle"] = widen_weights(stored)
        for weights, model in models.items():
            yield StudiedNet(
                system=systems[name],
                name=name,
                preset=preset,
                weights=weights,
                model=model,
                patch_shape=shape,
            )


def windows_of(net: StudiedNet) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Patches of one window each, with what they show."""
    noise = np.random.default_rng(SEED).random((1, *net.patch_shape), dtype=np.float32)
    yield "noise", noise
    yield "phantom", _phantom_window(net)


def append_records(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """Adds records to a file of one JSON object a line, after those of earlier runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name).partition("+")[0] for name in _VERSIONS}
    with path.open("a", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record | {"versions": versions}) + "\n")


def _lively_net(name: str, preset: Preset) -> nn.Module:
    torch.manual_seed(SEED)
    net = NETS[name][preset].build()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.normal_(module.running_mean, 0.0, 0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)
            if isinstance(module, nn.PReLU):
                nn.init.uniform_(module.weight, 0.05, 0.4)
        for module in convolutions(net):
            if module.bias is not None:
                nn.init.normal_(module.bias, 0.0, 0.1)
    return net.eval()


def _phantom_window(net: StudiedNet) -> NDArray[np.float32]:
    """A phantom rendered on the window's grid around the kidneys, as the net's stage sees it."""
    channels, *size = net.patch_shape
    stack = (channels, *size) if len(size) == 2 else size
    slices, rows, columns = stack
    shape = (max(slices, 2), rows, columns)
    spacing_mm = (_SLICE_MM, _FIELD_MM / rows, _FIELD_MM / columns)
    hu, _ = render(draw_patient(SEED, 0), shape=shape, spacing_mm=spacing_mm)
    # The array's axes are those of KiTS files: (z, y, x) towards the feet, the back and the left.
    volume = volume_from_array(hu, kits_affine(spacing_mm))
    steps = [step for step in _stage_of(net).steps if isinstance(step, _VALUE_STEPS)]
    grid = grid_over(shape, spacing_mm, None)
    region = prepared_region(volume, grid, box_of(shape), steps=steps, outcomes={})
    return np.ascontiguousarray(region.values[:slices].reshape((1, *net.patch_shape)), np.float32)


def _stage_of(net: StudiedNet) -> Stage:
    stages = SYSTEMS[net.system](net.preset).stages
    return next(stage for stage in stages if net.name in stage.nets)
