"""Ways from a scan's file to a mask's file, each timed by phase: the contestants of a benchmark."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kits_runtime.bundle import Bundle, open_bundle
from kits_runtime.cascade import run_cascade
from kits_runtime.cases import Case
from kits_runtime.clock import Clock
from kits_runtime.engines import EngineOptions
from kits_runtime.manifest.schema import Net
from kits_runtime.memory import Memory
from kits_runtime.nifti import read_scan, write_labels
from kits_runtime.pipeline import job_for, read_case, segment_case, write_case
from kits_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    import onnx

    from kits_bench.graph_in_torch import GraphInTorch

Facts = Mapping[str, object]

# What a run does only because its mask returns to the scan's grid and into a file.
WAY_BACK = ("way_back", "overlay", "statistics", "write", "invert", "argmax", "save")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One scan segmented: milliseconds in all and by phase, what nets were asked, and the mask."""

    wall_ms: float
    phase_ms: Mapping[str, float]
    windows: Mapping[str, int]
    mask: Path

    @property
    def way_back_ms(self) -> float:
        """The milliseconds of the phases that bring the mask back to the scan's grid."""
        return sum(ms for name, ms in self.phase_ms.items() if name.rpartition(".")[2] in WAY_BACK)


class Way(Protocol):
    """A contestant that is open and warm enough to be asked."""

    @property
    def facts(self) -> Facts:
        """What a record must say of it: precision, threads, settings, versions."""

    def segment(self, scan: Path, out: Path) -> Answer:
        """Segments a scan into a folder."""


class OurWay:
    """The shipped pipeline, file to files, as kits-infer runs one case."""

    def __init__(self, bundle: Path, *, backend: str, options: EngineOptions) -> None:
        self._segmenter = Segmenter.from_bundle(bundle, backend=backend, options=options)
        self._memory = Memory()

    @property
    def facts(self) -> Facts:
        """The backend that runs."""
        backend = self._segmenter.backend
        return {
            "backend": backend.name,
            "precision": backend.precision,
            "threads": backend.threads,
        }

    def segment(self, scan: Path, out: Path) -> Answer:
        """Reads, segments, writes mask and record."""
        start = time.perf_counter()
        job = job_for(Case(name=out.name, scan=scan), out, with_picture=False)
        done = segment_case(
            self._segmenter,
            read_case(job, memory=self._memory, upload=self._segmenter.begin_upload()),
        )
        record = write_case(done, self._segmenter.bundle.manifest.labels).run
        return Answer(
            wall_ms=_since(start),
            phase_ms=record.stage_ms,
            windows=record.windows,
            mask=job.mask,
        )


RunNet = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class CascadeWay:
    """Our stages with other nets in them: torch's, or made-up ones for a dry run.

    Hashes, statistics and the run's record are left out, which favours the contestant.
    """

    def __init__(self, bundle: Bundle, nets: Mapping[str, RunNet], facts: Facts) -> None:
        self._manifest = bundle.manifest
        self._nets = nets
        self.facts = facts

    def segment(self, scan: Path, out: Path) -> Answer:
        """Reads, runs the cascade, writes the mask."""
        start = time.perf_counter()
        clock = Clock()
        asked = dict.fromkeys(self._nets, 0)
        nets = {name: _counted(net, name, asked) for name, net in self._nets.items()}
        with clock.phase("read"):
            read = read_scan(scan)
        result = run_cascade(read.volume, self._manifest, nets=nets, clock=clock)
        mask = out / f"{out.name}.nii.gz"
        with clock.phase("write"):
            write_labels(mask, result.labels, like=read)
        return Answer(wall_ms=_since(start), phase_ms=clock.spent_ms(), windows=asked, mask=mask)


def torch_way(path: Path, *, tuned: bool, compiled: bool, device: str = "cpu") -> CascadeWay:
    """Our stages with the bundle's nets in torch: eager float32, or as fast as torch can."""
    import torch

    from kits_bench.graph_in_torch import GraphInTorch
    from kits_bench.tuning import tuned_net

    bundle = open_bundle(path)
    facts: dict[str, object] = {
        "backend": "torch",
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "device": device,
    }
    nets: dict[str, RunNet] = {}
    settings: dict[str, object] = {}
    for name, net in bundle.manifest.nets.items():
        module = GraphInTorch(graph_of(bundle, name)).eval().to(device)
        if not tuned:
            nets[name] = _eager(module)
            continue
        patch = torch.zeros((1, net.in_channels, *net.size_vox), device=device)
        found = tuned_net(module, patch, compiled=compiled)
        nets[name] = found.run
        settings[name] = found.facts
    if tuned:
        facts |= {"precision": _precision(settings), "tuning": settings}
    return CascadeWay(bundle, nets, facts)


def fake_way(path: Path) -> CascadeWay:
    """Our stages with nets that only look at brightness, for dry runs: nothing is computed."""
    bundle = open_bundle(path)
    nets = {name: _fake(net) for name, net in bundle.manifest.nets.items()}
    return CascadeWay(bundle, nets, {"backend": "fake", "precision": "none", "threads": 1})


def graph_of(bundle: Bundle, net: str) -> "onnx.ModelProto":
    """The graph of one of a bundle's nets, as float32 if there is one."""
    import onnx

    files = bundle.manifest.nets[net].files
    return onnx.load_from_string(bundle.net_bytes(net, "fp32" if "fp32" in files else "fp16"))


def _eager(module: "GraphInTorch") -> RunNet:
    from kits_bench.graph_in_torch import torch_answer

    return lambda patches: torch_answer(module, patches)


def _fake(net: Net) -> RunNet:
    def run(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        values = patches[:, net.in_channels // 2]
        bright = (values > values.mean()).astype(np.float32)
        rest = [bright * 0] * (net.out_channels - 2)
        first = [] if net.out_channels == 1 else [1 - bright]
        return np.stack([*first, bright, *rest], axis=1)

    return run


def _precision(settings: Mapping[str, object]) -> str:
    kinds = {str(facts["precision"]) for facts in settings.values() if isinstance(facts, Mapping)}
    return " and ".join(sorted(kinds))


def _counted(net: RunNet, name: str, asked: dict[str, int]) -> RunNet:
    def run(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        asked[name] += len(patches)
        return net(patches)

    return run


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
