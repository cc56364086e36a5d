"""B0: the published 3D U-Net as MONAI's tutorials run one, reconstructed.

Dictionary transforms read, orient, resample, scale and crop; MONAI's own U-Net runs in eager
float32 under ``sliding_window_inference`` with a quarter of overlap and four windows a call; the
scores return through ``Invertd``, then argmax, then ``SaveImaged``. The paper does not say what its
seconds include. Scans are oriented as our net expects them, which for KiTS files costs nothing.
"""

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from kits_bench.graph_in_torch import GraphInTorch
from kits_bench.patch_stage import PatchStage, patch_stage_of
from kits_bench.ways import Answer, Facts, graph_of
from kits_runtime.bundle import open_bundle
from kits_runtime.clock import Clock
from kits_runtime.errors import BundleError

WINDOWS_A_CALL = 4
_GUIDE = "guide.rise.weight"


class MonaiNet(nn.Module):
    """MONAI's U-Net with a bundle's weights, and the guide's logits where the bundle has one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.unet = monai_unet(model)
        tail = next((n for n in model.graph.node if _GUIDE in n.input), None)
        self.guide = None if tail is None else GraphInTorch(model, output=tail.output[0])
        self.share = _share(model)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the scores of classes."""
        logits = self.unet(patches)
        if self.guide is not None:
            logits = logits * self.share + self.guide(patches)
        return torch.softmax(logits, dim=1)


def monai_unet(model: onnx.ModelProto) -> nn.Module:
    """MONAI's U-Net with the weights of an exported one; its normalisations, folded, do nothing.

    Raises:
        BundleError: the graph is no U-Net of MONAI's shape.
    """
    from monai.networks.nets.unet import UNet

    constants = {i.name: onnx.numpy_helper.to_array(i).astype(np.float32) for i in _weights(model)}
    convs = [n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose") and _own(n)]
    slopes = [constants[n.input[1]] for n in model.graph.node if n.op_type == "PRelu"]
    weights = [constants[_stored(model, n.input[1])] for n in convs]
    widths = _widths(convs, weights)
    unet: Any = UNet(
        spatial_dims=3,
        in_channels=weights[0].shape[1],
        out_channels=weights[-1].shape[0],
        channels=widths,
        strides=(2,) * (len(widths) - 1),
        num_res_units=2,
        norm="batch",
    ).eval()
    layers = [m for m in unet.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    bends = [m for m in unet.modules() if isinstance(m, nn.PReLU)]
    if [tuple(m.weight.shape) for m in layers] != [w.shape for w in weights]:
        raise BundleError(
            f"net: found {len(weights)} convolutions, expected those of MONAI's U-Net of "
            f"{len(layers)} layers in its order. Choose the baseline 'torch'."
        )
    with torch.no_grad():
        for layer, weight, node in zip(layers, weights, convs, strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
            bias = constants[_stored(model, node.input[2])] if len(node.input) > 2 else 0.0
            assert layer.bias is not None
            layer.bias.copy_(torch.as_tensor(bias))
        for bend, slope in zip(bends, slopes, strict=True):
            bend.weight.copy_(torch.from_numpy(slope.reshape(-1)))
        for norm in (m for m in unet.modules() if isinstance(m, nn.BatchNorm3d)):
            assert norm.running_var is not None
            norm.running_var.fill_(1 - norm.eps)
    return unet  # type: ignore[no-any-return]


def _weights(model: onnx.ModelProto) -> Any:  # noqa: ANN401 - a protobuf container
    return model.graph.initializer


def _own(node: onnx.NodeProto) -> bool:
    return not any(name.startswith("guide.") for name in node.input)


def _stored(model: onnx.ModelProto, name: str) -> str:
    """The initialiser behind a tensor, through the cast of a stored half."""
    casts: dict[str, str] = {
        n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Cast"
    }
    return casts.get(name, name)


def _widths(convs: list[onnx.NodeProto], weights: list[np.ndarray]) -> tuple[int, ...]:
    """The channels of each level: two convolutions and a shortcut go down each of them."""
    kinds = [node.op_type for node in convs]
    down = kinds.index("ConvTranspose") if "ConvTranspose" in kinds else len(kinds)
    return tuple(int(weight.shape[0]) for weight in weights[:down:3])


def _share(model: onnx.ModelProto) -> float:
    found = [i for i in model.graph.initializer if i.name == "share"]
    return float(onnx.numpy_helper.to_array(found[0])) if found else 1.0


class MonaiWay:
    """The pipeline of a bundle's only stage, built from MONAI's parts."""

    def __init__(self, path: Path, *, device: str = "cpu") -> None:
        bundle = open_bundle(path)
        self._stage: PatchStage = patch_stage_of(bundle)
        self._device = device
        self._net = MonaiNet(graph_of(bundle, self._stage.net)).eval().to(device)
        self._before = _transforms(self._stage)

    @property
    def facts(self) -> Facts:
        """How MONAI is run."""
        return {
            "backend": "torch",
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "windows_a_call": WINDOWS_A_CALL,
            "device": self._device,
        }

    def segment(self, scan: Path, out: Path) -> Answer:
        """Reads, transforms, slides, inverts, saves."""
        from monai.inferers.utils import sliding_window_inference

        start, clock, asked = time.perf_counter(), Clock(), [0]

        def predict(windows: Tensor) -> Tensor:
            asked[0] += len(windows)
            with clock.phase("net"):
                return self._net(windows)  # type: ignore[no-any-return]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with clock.phase("transforms"):
                case: dict[Any, Any] = dict(self._before({"image": str(scan)}))
            with torch.no_grad(), clock.phase("windows"):
                overlap = [
                    1 - s / n for s, n in zip(self._stage.stride, self._stage.shape, strict=True)
                ]
                image = case["image"][None].to(self._device)
                case["pred"] = sliding_window_inference(
                    image, self._stage.shape, WINDOWS_A_CALL, predict, overlap
                )[0]
            mask = self._back(case, out, clock)
        return Answer(
            wall_ms=(time.perf_counter() - start) * 1e3,
            phase_ms=clock.spent_ms(),
            windows={self._stage.net: asked[0]},
            mask=mask,
        )

    def _back(self, case: dict[Any, Any], out: Path, clock: Clock) -> Path:
        from monai.transforms.io.dictionary import SaveImaged
        from monai.transforms.post.dictionary import AsDiscreted, Invertd

        with clock.phase("invert"):
            invert = Invertd(
                keys="pred",
                transform=self._before,
                orig_keys="image",
                nearest_interp=False,
                device="cpu",
            )
            case = dict(invert(case))
        with clock.phase("argmax"):
            case = dict(AsDiscreted(keys="pred", argmax=True)(case))
        with clock.phase("save"):
            save = SaveImaged(
                keys="pred",
                output_dir=out,
                output_postfix="mask",
                output_dtype=np.uint8,
                separate_folder=False,
                print_log=False,
            )
            save(case)
        return next(iter(sorted(out.glob("*_mask.nii.gz"))))


def _transforms(stage: PatchStage) -> Any:  # noqa: ANN401 - MONAI is not typed
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import CropForegroundd
    from monai.transforms.intensity.dictionary import ScaleIntensityRanged
    from monai.transforms.io.dictionary import LoadImaged
    from monai.transforms.spatial.dictionary import Orientationd, Spacingd
    from monai.transforms.utility.dictionary import EnsureChannelFirstd

    low, high = stage.window_hu
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Compose(
            [
                LoadImaged(keys="image"),
                EnsureChannelFirstd(keys="image"),
                Orientationd(keys="image", axcodes="IPL"),
                Spacingd(keys="image", pixdim=stage.spacing_mm, mode="bilinear"),
                ScaleIntensityRanged(
                    keys="image", a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True
                ),
                CropForegroundd(keys="image", source_key="image"),
            ]
        )
