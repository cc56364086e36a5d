"""Lessons, and a tiny net with everything that makes training hard to repeat."""

import numpy as np
import torch
from torch import Tensor, nn
from training_cases import lesson, patches, piece, recipe

from kits_runtime.manifest.schema import Scale
from kits_trt.data.plans import Lesson
from kits_trt.nets import SegmentationNet
from kits_trt.systems.augmentation import Mirror, Noise
from kits_trt.systems.recipe import Crops, HardCases, Loss, Recipe
from kits_trt.train.compute import Compute, seed_torch
from kits_trt.train.ranks import Ranks
from kits_trt.train.trainee import Trainee

UNITS = (Scale(source=(0.0, 100.0), target=(0.0, 1.0)),)


class TinyNet(SegmentationNet):
    """Convolution, batch normalisation, dropout, classes."""

    def __init__(self, *, normalised: bool = True, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4) if normalised else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv3d(4, 2, 1),
        )

    def final_logits(self, patches: Tensor) -> Tensor:
        return self.layers(patches)  # type: ignore[no-any-return]


def tiny_net(**more: object) -> TinyNet:
    seed_torch(5)
    return TinyNet(**more)  # type: ignore[arg-type]


def tiny_lesson(*, loss: Loss | None = None, cases: int = 3, **more: object) -> Lesson:
    """Cases in which bright voxels are the target; an epoch has two batches of three crops."""
    rng = np.random.default_rng(3)
    pieces = []
    for _ in range(cases):
        labels = np.zeros((8, 12, 12), np.uint8)
        z, y, x = rng.integers(1, 4, 3)
        labels[z : z + 4, y : y + 5, x : x + 5] = 1
        hu = 200 * labels.astype(np.int16) + rng.integers(-20, 20, labels.shape).astype(np.int16)
        pieces.append([piece(hu, labels, steps=UNITS)])
    taught: Recipe = recipe(
        Crops(per_case=2, foreground_share=0.5),
        Noise(up_to_hu=20.0),
        Mirror(axes=(2,), chance=0.5),
        target={1: 1},
        batch_size=3,
        epochs=4,
        hard_cases=HardCases(share=0.4, times=2.0),
        **({"loss": loss} if loss else {}),
        **more,
    )
    return lesson(taught, patches(6, 8, 8), *pieces)


def tiny_trainee(
    net: TinyNet | None = None, taught: Lesson | None = None, *, ranks: Ranks | None = None
) -> Trainee:
    return Trainee(
        net or tiny_net(),
        taught or tiny_lesson(),
        compute=Compute(),
        seed=7,
        ranks=ranks or Ranks(),
    )


def weights_of(trainee: Trainee) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainee.net.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
