"""Bundles for speed alone: a system's nets with seeded weights and a guide, exported and cached."""

import hashlib
import logging
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kits_bench.guide import Fit, Guide, GuidedNet, GuideShape, Values, settle_share
from kits_bench.seeded import WEIGHTS, seeded_path
from kits_export.onnx_from_torch import OPSET, onnx_from_net
from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.grid import Box, box_of, grid_over
from kits_runtime.look import boxes_to_look_at
from kits_runtime.manifest.schema import Card, Patches, Provenance, Resample, Slices, Stage
from kits_runtime.outcome import Outcome
from kits_runtime.resample import nearest_index
from kits_runtime.steps import prepared_region, settled
from kits_runtime.volume import Volume, volume_from_array
from kits_runtime.windows import padded
from kits_trt.nets import net_for
from kits_trt.phantom.anatomy import draw_patient
from kits_trt.phantom.cases import kits_affine
from kits_trt.phantom.rendering import render
from kits_trt.systems import SYSTEMS, Preset, System

logger = logging.getLogger(__name__)

SEED = 20
_FIT_CASES = (900, 901, 902, 903)
_FIT_SHAPE, _FIT_SPACING_MM = (56, 200, 200), (5.0, 2.1, 2.1)
_COARSE_MM = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A phantom for fitting: a scan and its true labels on (z, y, x)."""

    volume: Volume
    labels: NDArray[np.uint8]


def seeded_bundle(system: str, preset: Preset, cache: Path) -> Path:
    """The path of a system's bundle of seeded weights; made on first use, some minutes at most."""
    target = seeded_path(system, preset, cache)
    if (target / "manifest.json").is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    logger.info("making a bundle of seeded weights: %s %s", system, preset)
    declared = SYSTEMS[system](preset)
    examples = fitting_examples()
    contents = {}
    for name in declared.nets:
        guided = guided_net(declared, name, preset, examples)
        shape = net_for(system, name, preset).patch_shape
        model = onnx_from_net(guided, input_shape=shape).SerializeToString()
        contents[name] = {
            "fp32": NetContent(onnx=model, tensors="float32", weights="float32"),
        }
    provenance = Provenance(checkpoint_sha256=None, commit=None, opset=OPSET, tools={})
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / "bundle"
        write_bundle(
            whole,
            declared,
            contents,  # type: ignore[arg-type]
            parity=(),
            provenance=provenance,
            card=_card(),
        )
        shutil.rmtree(target, ignore_errors=True)
        whole.replace(target)
    return target


def fitting_examples() -> tuple[Example, ...]:
    """Coarse phantoms that are no benchmark's case."""
    examples = []
    for case in _FIT_CASES:
        patient = draw_patient(SEED, case)
        hu, labels = render(patient, shape=_FIT_SHAPE, spacing_mm=_FIT_SPACING_MM)
        volume = volume_from_array(hu, kits_affine(_FIT_SPACING_MM))
        examples.append(Example(volume=volume, labels=labels))
    return tuple(examples)


def guided_net(
    system: System, name: str, preset: Preset, examples: tuple[Example, ...]
) -> GuidedNet:
    """The seeded net of a system with a guide fitted to examples, ready for export."""
    stage = next(stage for stage in system.stages if name in stage.nets)
    config = net_for(system.name, name, preset)
    torch.manual_seed(_seed_of(system.name, name))
    net = config.build().eval()
    shape = _guide_shape(system, stage, name)
    guide = Guide(shape, seed=_seed_of("guide", name)).eval()
    fit = Fit(guide)
    patch: Values | None = None
    for example in examples:
        for patch, targets in _patches(system, stage, shape, example):
            fit.add(patch, targets)
    fit.settle()
    guided = GuidedNet(net, guide).eval()
    assert patch is not None
    settle_share(guided, patch)
    return guided


def _seed_of(*parts: str) -> int:
    digest = hashlib.sha256("/".join((str(SEED), *parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _guide_shape(system: System, stage: Stage, name: str) -> GuideShape:
    shape = system.nets[name]
    resample = next((step for step in stage.steps if isinstance(step, Resample)), None)
    grid = grid_over((300, 512, 512), (1.0, 0.8, 0.8), resample)
    pool = tuple(
        _divisor(n, _COARSE_MM / mm)
        for n, mm in zip(shape.size_vox, grid.spacing_mm[3 - len(shape.size_vox) :], strict=True)
    )
    return GuideShape(
        window=shape.size_vox,
        pool=pool,
        channel=shape.in_channels // 2,
        classes=shape.out_channels,
        whole_plane=grid.shape[1:] == shape.size_vox[-2:],
    )


def _divisor(size: int, wanted: float) -> int:
    """The power of two nearest to a wanted factor that divides a size, at least 1."""
    factor = 1
    while factor * math.sqrt(2) <= wanted and size % (factor * 2) == 0:
        factor *= 2
    return factor


def _patches(
    system: System, stage: Stage, shape: GuideShape, example: Example
) -> Iterator[tuple[Values, list[Values]]]:
    """Windows of an example as the stage would see them with a perfect stage before it."""
    volume = example.volume
    outcomes = _true_outcomes(system, example)
    resample = next((step for step in stage.steps if isinstance(step, Resample)), None)
    grid = grid_over(volume.shape, volume.spacing_mm, resample)
    boxes = boxes_to_look_at(
        stage.look, volume, grid, outcomes=outcomes, cut_halves=stage.join == "halves"
    )
    steps = settled(stage.steps, volume, outcomes)
    for box in boxes:
        region = prepared_region(volume, grid, box, steps=steps, outcomes=outcomes)
        values = region.values.astype(np.float32)
        labels = example.labels[nearest_index(grid.shape, grid.scan_shape, box)]
        yield from _windows_of(stage, shape, (values, labels, region.air))


def _windows_of(
    stage: Stage, shape: GuideShape, region: tuple[Values, NDArray[np.uint8], float]
) -> Iterator[tuple[Values, list[Values]]]:
    values, labels, air = region
    windows = stage.windows
    size = windows.shape
    values, inner = padded(values, size, air)
    whole = np.zeros(values.shape, np.uint8)
    whole[inner] = labels
    # The part with most foreground, and its neighbour: enough for a few dozen numbers.
    if isinstance(windows, Slices):
        depth = len(values)
        for z in range(0, depth, max(1, depth // 12)):
            y, x = _fullest(whole[z : z + 1], (1, *size))[1:]
            plane = (z, slice(y, y + size[0]), slice(x, x + size[1]))
            patch = np.repeat(values[plane][None, None], windows.depth, axis=1)
            yield patch, _targets(whole[plane], stage, shape)
    else:
        assert isinstance(windows, Patches)
        corner = _fullest(whole, windows.shape)
        first = tuple(min(n - w, 0) for n, w in zip(values.shape, windows.shape, strict=True))
        for start in {corner, first}:
            cut = tuple(slice(a, a + n) for a, n in zip(start, windows.shape, strict=True))
            yield values[cut][None, None], _targets(whole[cut], stage, shape)


def _fullest(labels: NDArray[np.uint8], size: tuple[int, ...]) -> tuple[int, ...]:
    """The corner of a window around the middle of the foreground, or of everything."""
    where = np.argwhere(labels > 0)
    middle = where.mean(axis=0) if len(where) else np.array(labels.shape) / 2
    return tuple(
        int(np.clip(round(m - w / 2), 0, n - w))
        for m, w, n in zip(middle, size, labels.shape, strict=True)
    )


def _targets(labels: NDArray[np.uint8], stage: Stage, shape: GuideShape) -> list[Values]:
    """Each channel's share of each coarse voxel; a kidney's stage means what is in it too."""
    several = 1 in stage.decide.labels and 2 in stage.decide.labels
    shares = []
    for label in stage.decide.labels:
        mask = labels == label if several or label != 1 else labels > 0
        shares.append(_coarse(mask, shape.pool))
    if 0 in stage.decide.labels:
        place = stage.decide.labels.index(0)
        others = [share for i, share in enumerate(shares) if i != place]
        shares[place] = (1 - np.sum(others, axis=0)).astype(np.float32)
    return shares


def _coarse(mask: NDArray[np.bool_], pool: tuple[int, ...]) -> Values:
    split = [part for n, p in zip(mask.shape, pool, strict=True) for part in (n // p, p)]
    means = mask.reshape(split).mean(axis=tuple(range(1, 2 * mask.ndim, 2)))
    return np.asarray(means, np.float32)


def _true_outcomes(system: System, example: Example) -> Mapping[str, Outcome]:
    """Every stage's outcome if it found exactly the kidneys with what is in them."""
    shape = example.volume.shape
    mask = (example.labels > 0).astype(np.uint8)
    whole = Box((0, 0, 0), shape)
    grid = grid_over(shape, example.volume.spacing_mm, None)
    outcome = Outcome(
        grid=grid, box=box_of(shape), placed=mask, on_scan=mask, window=whole, reach=whole
    )
    return {stage.name: outcome for stage in system.stages}


def _card() -> Card:
    return Card(
        intended_use="Measuring speed. Its masks mean nothing.",
        training_data="None. A guide of a few hundred numbers is fitted to phantoms.",
        licence="Apache-2.0",
        metrics={},
        remarks=(WEIGHTS,),
    )
