"""A system of one tiny torch net that tells kidney and tumour by brightness, ready to export."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from bundles import phantom
from stages import stage
from torch import Tensor, nn

from kits_export.masks import VerifyCase
from kits_export.trained import TrainedSystem
from kits_runtime.manifest.schema import Argmax, Clip, Patches, Scale
from kits_runtime.volume import volume_from_array
from kits_trt.nets import SegmentationNet
from kits_trt.systems.system import NetShape, System

SIZE = (24, 40, 48)
LOWER_HU, UPPER_HU = -200.0, 300.0


class Bright(SegmentationNet):
    """Scores of a voxel's scaled HU; the middle value is ``inner`` times as large, and undone."""

    def __init__(
        self, *, kidney_hu: float = 50, tumour_hu: float = 150, inner: float = 1, gain: float = 50
    ) -> None:
        super().__init__()
        self.enlarge = nn.Conv3d(1, 2, 1)
        self.slope = nn.PReLU(2)
        self.classes = nn.Conv3d(2, 3, 1)
        kidney, tumour = ((hu - LOWER_HU) / (UPPER_HU - LOWER_HU) for hu in (kidney_hu, tumour_hu))
        with torch.no_grad():
            self.enlarge.weight.fill_(0)[0] = inner
            self.enlarge.bias.fill_(0)  # type: ignore[union-attr]
            self.classes.weight.fill_(0)[1:, 0] = (
                torch.tensor([gain, 2 * gain]).view(2, 1, 1, 1) / inner
            )
            self.classes.bias.copy_(  # type: ignore[union-attr]
                torch.tensor([0.0, -gain * kidney, -gain * (kidney + tumour)])
            )

    def final_logits(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.classes(self.slope(self.enlarge(patches)))
        return logits


def trained(net: SegmentationNet, **facts: object) -> TrainedSystem:
    segment = stage(
        name="segment",
        steps=(
            Clip(lower_hu=LOWER_HU, upper_hu=UPPER_HU),
            Scale(source=(LOWER_HU, UPPER_HU), target=(0.0, 1.0)),
        ),
        windows=Patches(shape=SIZE, stride=SIZE, join="mean"),
        nets=("bright",),
        decide=Argmax(labels=(0, 1, 2)),
    )
    system = System(
        name="tiny",
        preset="small",
        labels=("background", "kidney", "tumour"),
        nets={"bright": NetShape(in_channels=1, out_channels=3, size_vox=SIZE)},
        stages=(segment,),
        overlay=("segment",),
    )
    return TrainedSystem(system=system, nets={"bright": net.eval()}, facts=facts, sha256="ab" * 32)


def scaled_to(system: TrainedSystem, top: float) -> TrainedSystem:
    """The same with patches from 0 to ``top``, beyond the random ones, which end at 1."""
    first = system.system.stages[0]
    scale = Scale(source=(LOWER_HU, UPPER_HU), target=(0.0, top))
    stages = (replace(first, steps=(first.steps[0], scale)),)
    return replace(system, system=replace(system.system, stages=stages))


def case(data: npt.NDArray[np.int16] | None = None) -> VerifyCase:
    scan = phantom()
    volume = volume_from_array(scan.data if data is None else data, scan.affine)
    return VerifyCase(name="digital", volume=volume)
