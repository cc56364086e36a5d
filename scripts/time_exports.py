"""How long ``kits-export`` takes with every check, and how much memory, for untrained systems.

``python scripts/time_exports.py small unet3d cascaded-vnet``, or ``... small`` for all five.

Weights are drawn by a seed and the normalisations have seen blocks once, so masks mean nothing and
``--allow-unverified`` is given; what is computed is what a trained system's export computes. Each
run adds a line to ``benchmarks/results/exports/<machine>.jsonl``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from kits_bench.machine import machine_facts, machine_name
from kits_trt.nets import SYSTEM_NETS, SegmentationNet, build_net, net_for
from kits_trt.systems import SYSTEMS
from kits_trt.train.checkpoint import write_system_checkpoint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "exports"
BLOCK_VOX = 16
COMMAND = "import sys; from kits_export.cli import main; sys.exit(main(sys.argv[1:]))"


def main() -> int:
    """Export each system named; returns the last exit code that was not 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=("paper", "small"))
    parser.add_argument("systems", nargs="*", choices=[*SYSTEMS, []], default=[])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    worst = 0
    for system in options.systems or SYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            told = _measured(system, options.preset, Path(folder))
        worst = int(str(told["exit_code"])) or worst
        options.results.mkdir(parents=True, exist_ok=True)
        with (options.results / f"{machine_name()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
        print(f"{system} {options.preset}: {told['seconds']} s, {told['peak_rss_mb']} MB, "
              f"exit code {told['exit_code']}: {told['last_words']}")  # fmt: skip
    return worst


def _measured(system: str, preset: str, folder: Path) -> dict[str, object]:
    checkpoint, bundle = folder / "drawn.safetensors", folder / "bundle"
    nets = {name: drawn_net(system, name, preset) for name in SYSTEM_NETS[system]}
    facts = {"system": system, "preset": preset, "licence": "Apache-2.0", "training": "none"}
    write_system_checkpoint(checkpoint, nets, facts)
    arguments = ["--ckpt", checkpoint, "-o", bundle, "--allow-unverified", "--no-progress"]
    facts_before, begun = machine_facts(), time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    peaks: list[int] = []
    watcher = threading.Thread(target=_watch, args=(child, peaks))
    watcher.start()
    said = child.communicate()[1]
    watcher.join()
    return {
        "system": system,
        "preset": preset,
        "exit_code": child.returncode,
        "seconds": round(time.monotonic() - begun, 1),
        "peak_rss_mb": max(peaks, default=0),
        "bytes": {path.name: path.stat().st_size for path in sorted(bundle.glob("nets/*"))},
        "last_words": said.strip().rpartition(": ")[2],
        "machine": facts_before,
    }


def drawn_net(system: str, name: str, preset: str) -> SegmentationNet:
    """A net with weights by a seed whose normalisations have seen coarse blocks.

    After some layers noise voxel by voxel has next to no variance left: scaled by that, a scan's
    edges would reach logits in the thousands, where float32 itself moves scores.
    """
    torch.manual_seed(7)
    net = build_net(name, preset)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d)]
    for layer in norms:
        layer.momentum = None  # the mean over all batches: here of one
    if norms:
        channels, *window = net_for(system, name, preset).patch_shape
        blocks = torch.rand((2, channels, *(max(2, size // BLOCK_VOX) for size in window)))
        with torch.no_grad():
            net.train()(functional.interpolate(blocks, size=window))
    return net.eval()


def _watch(child: "subprocess.Popen[str]", peaks: list[int]) -> None:
    """Note the peak of a process's resident memory, MB, until it ends."""
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        found = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peaks += [int(line.split()[1]) // 1024 for line in found]
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
