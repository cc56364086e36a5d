"""B1: the same task as a good PyTorch engineer would write it for speed, still PyTorch.

The file's int16 voxels go to torch in the order in which they lie in memory; one interpolation to
the model's grid, windows in batches through a net whose precision, layout and compiler were chosen
by measurement, and labels on the scan's grid slab by slab, without rows that hold no foreground.
"""

import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kits_bench.graph_in_torch import GraphInTorch
from kits_bench.patch_stage import PatchStage, patch_stage_of
from kits_bench.tuning import tuned_net
from kits_bench.ways import Answer, Facts, graph_of
from kits_runtime.bundle import open_bundle
from kits_runtime.clock import Clock
from kits_runtime.volume import orientation_from_affine
from kits_runtime.windows import window_starts

WINDOWS_A_CALL = 4
_ROWS_AT_ONCE = 32


class TunedWay:
    """The pipeline of a bundle's only stage in plain torch."""

    def __init__(self, path: Path, *, compiled: bool, device: str = "cpu") -> None:
        bundle = open_bundle(path)
        self._stage: PatchStage = patch_stage_of(bundle)
        self._device = device
        patch = torch.zeros((WINDOWS_A_CALL, 1, *self._stage.shape), device=device)
        module = GraphInTorch(graph_of(bundle, self._stage.net)).eval().to(device)
        self._net = tuned_net(module, patch, compiled=compiled)

    @property
    def facts(self) -> Facts:
        """The settings that were taken."""
        return {
            "backend": "torch",
            "threads": torch.get_num_threads(),
            "windows_a_call": WINDOWS_A_CALL,
            "device": self._device,
            **self._net.facts,
        }

    def segment(self, scan: Path, out: Path) -> Answer:
        """Reads, resamples, slides, returns, saves."""
        start, clock = time.perf_counter(), Clock()
        with clock.phase("read"):
            image: Any = nib.load(scan)
            stored = np.asanyarray(image.dataobj)
        frame = Frame(stored, image.affine, self._stage, device=self._device)
        with clock.phase("resample"), torch.inference_mode():
            volume = frame.on_model_grid()
            corner, inside = _foreground(volume)
        with clock.phase("windows"), torch.inference_mode():
            scores, asked = self._slide(volume[inside], clock)
        with clock.phase("way_back"), torch.inference_mode():
            labels = frame.on_scan_grid(scores, corner)
        mask = out / f"{out.name}.nii.gz"
        with clock.phase("save"):
            nib.save(nib.Nifti1Image(labels, image.affine), mask)  # type: ignore[no-untyped-call]
        return Answer(
            wall_ms=(time.perf_counter() - start) * 1e3,
            phase_ms=clock.spent_ms(),
            windows={self._stage.net: asked},
            mask=mask,
        )

    def _slide(self, volume: Tensor, clock: Clock) -> tuple[Tensor, int]:
        """Mean scores (class, z, y, x) of all windows, and how many there were."""
        size = self._stage.shape
        padded, inner = _padded(volume, size)
        starts = [
            window_starts(n, w, s)
            for n, w, s in zip(padded.shape, size, self._stage.stride, strict=True)
        ]
        places = [
            tuple(slice(a, a + n) for a, n in zip((z, y, x), size, strict=True))
            for z in starts[0]
            for y in starts[1]
            for x in starts[2]
        ]
        sums: Tensor | None = None
        counts = torch.zeros(padded.shape, device=padded.device)
        for first in range(0, len(places), WINDOWS_A_CALL):
            part = places[first : first + WINDOWS_A_CALL]
            with clock.phase("net"):
                scores = self._net.scores(torch.stack([padded[place][None] for place in part]))
            if sums is None:
                sums = torch.zeros((scores.shape[1], *padded.shape), device=padded.device)
            for place, answer in zip(part, scores, strict=True):
                sums[(slice(None), *place)] += answer
                counts[place] += 1
        assert sums is not None
        return (sums / counts)[(slice(None), *inner)], len(places)


class Frame:
    """A scan as it lies in memory, and its two grids: the file's and, on (z, y, x), the model's."""

    def __init__(
        self,
        stored: NDArray[Any],
        affine: NDArray[np.float64],
        stage: PatchStage,
        *,
        device: str = "cpu",
    ) -> None:
        self._stage = stage
        self._device = device
        self._orientation = orientation_from_affine(affine)
        self._order = tuple(int(axis) for axis in np.argsort([-abs(s) for s in stored.strides]))
        self._stored = stored.transpose(self._order)
        seen = self._orientation.to_model(stored)
        steps = np.linalg.norm(affine[:3, :3], axis=0)[list(self._orientation.axes)]
        self._size = tuple(
            max(1, round(n * own / wanted))
            for n, own, wanted in zip(seen.shape, steps, stage.spacing_mm, strict=True)
        )

    def on_model_grid(self) -> Tensor:
        """The scan on (z, y, x), scaled to 0 to 1."""
        small_shape = np.empty(self._size, np.uint8)
        source = self._orientation.to_source(small_shape).transpose(self._order)
        values = torch.from_numpy(np.ascontiguousarray(self._stored)).to(self._device).float()
        small = functional.interpolate(
            values[None, None], tuple(source.shape), mode="trilinear", align_corners=False
        )[0, 0]
        low, high = self._stage.window_hu
        small = small.sub_(low).div_(high - low).clamp_(0, 1)
        back = np.argsort(self._order)
        own = self._orientation.to_model(small.cpu().numpy().transpose(back))
        return torch.from_numpy(np.ascontiguousarray(own)).to(self._device)

    def on_scan_grid(self, scores: Tensor, corner: tuple[int, ...]) -> NDArray[np.uint8]:
        """Labels arranged as the file is, from scores of a part of the model's grid."""
        whole = torch.zeros((len(scores), *self._size), device=scores.device)
        whole[0] = 1
        where = tuple(slice(a, a + n) for a, n in zip(corner, scores.shape[1:], strict=True))
        whole[(slice(None), *where)] = scores
        stored = np.stack(
            [self._orientation.to_source(c).transpose(self._order) for c in whole.cpu().numpy()]
        )
        on_device = torch.from_numpy(stored).to(self._device)
        labels = _labels_by_rows(on_device, self._stored.shape)
        return labels.transpose(np.argsort(self._order))


def _labels_by_rows(scores: Tensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The class of highest score on a larger grid, some rows of its first axis at a time."""
    labels = np.zeros(shape, np.uint8)
    rows = torch.arange(shape[0], device=scores.device)
    place = ((rows + 0.5) * scores.shape[1] / shape[0] - 0.5).clamp(0, scores.shape[1] - 1)
    below = place.floor().long()
    above = (below + 1).clamp(max=scores.shape[1] - 1)
    share = (place - below)[None, :, None, None]
    busy = _winner(scores).flatten(1).any(dim=1)
    wanted = torch.nonzero(busy[below] | busy[above]).flatten()
    for part in torch.split(wanted, _ROWS_AT_ONCE):
        near = (
            scores[:, below[part]] * (1 - share[:, part]) + scores[:, above[part]] * share[:, part]
        )
        full = functional.interpolate(near, shape[1:], mode="bilinear", align_corners=False)
        labels[part.cpu().numpy()] = _winner(full).cpu().numpy()
    return labels


def _winner(scores: Tensor) -> Tensor:
    """The first class of highest score, by comparing channels: argmax takes ten times as long."""
    best = scores[0].clone()
    winner = torch.zeros(scores.shape[1:], dtype=torch.uint8, device=scores.device)
    for label, channel in enumerate(scores[1:], start=1):
        higher = channel > best
        winner.masked_fill_(higher, label)
        torch.maximum(best, channel, out=best)
    return winner


def _foreground(volume: Tensor) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """The corner and the box of all that is above 0; everything where nothing is."""
    mask = volume > 0
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0])).flatten()
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, len(mask)))
    return tuple(part.start for part in box), tuple(box)


def _padded(volume: Tensor, size: tuple[int, ...]) -> tuple[Tensor, tuple[slice, ...]]:
    """The volume at least as large as a window, zeros around it, and where it lies."""
    missing = [max(0, w - n) for n, w in zip(volume.shape, size, strict=True)]
    flat = [n for m in missing[::-1] for n in (m // 2, m - m // 2)]
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, volume.shape, strict=True))
    return functional.pad(volume, flat), inner
