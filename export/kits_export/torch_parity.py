"""The first link of the parity chain: a torch network against its ONNX graph on ONNX Runtime."""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import nn

from kits_export.onnx_from_torch import INPUT_NAME, OUTPUT_NAME
from kits_runtime.engines.ort_cpu import import_onnxruntime
from kits_runtime.errors import ParityError

# Both sides compute in float32 but sum in another order; scores lie in [0, 1].
MAX_SCORE_DIFFERENCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreDifference:
    """How far two computations of the same scores lie apart."""

    largest: float
    mean: float
    other_class: float
    """Share of places that go to another class: the highest, or one half reached by a lone one."""


def score_difference(
    net: nn.Module,
    model: onnx.ModelProto,
    *,
    patch_shape: tuple[int, ...],
    batch: int = 2,
    seed: int = 0,
) -> ScoreDifference:
    """Return the difference of torch and ONNX Runtime on uniform random patches in [0, 1].

    Both run in float32 on the CPU; the network's mode is left as it was.
    """
    generator = np.random.default_rng(seed)
    patches = generator.random((batch, *patch_shape), dtype=np.float32)
    ort = import_onnxruntime()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run([OUTPUT_NAME], {INPUT_NAME: patches})[0]
    expected = _torch_scores(net, patches)
    apart = np.abs(found - expected)
    return ScoreDifference(
        largest=float(apart.max()),
        mean=float(apart.mean()),
        other_class=float((_classes(found) != _classes(expected)).mean()),
    )


def require_torch_parity(
    net: nn.Module, model: onnx.ModelProto, *, patch_shape: tuple[int, ...], seed: int = 0
) -> ScoreDifference:
    """Return the difference of torch and ONNX Runtime where it is within tolerance.

    Raises:
        ParityError: A score differs by more than ``MAX_SCORE_DIFFERENCE``, or is not a number.
    """
    difference = score_difference(net, model, patch_shape=patch_shape, seed=seed)
    if not difference.largest <= MAX_SCORE_DIFFERENCE:
        raise ParityError(
            f"output {OUTPUT_NAME}: found a difference of {difference.largest:.3g} between torch "
            f"and ONNX Runtime, expected at most {MAX_SCORE_DIFFERENCE:g}; do not ship this graph"
        )
    return difference


def _classes(scores: np.ndarray) -> np.ndarray:
    one = scores.shape[1] == 1
    classes: np.ndarray = scores[:, 0] >= 0.5 if one else scores.argmax(axis=1)
    return classes


def _torch_scores(net: nn.Module, patches: np.ndarray) -> np.ndarray:
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            scores: np.ndarray = net(torch.from_numpy(patches)).numpy()
    finally:
        net.train(was_training)
    return scores
