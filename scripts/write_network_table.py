"""Writes docs/networks.md: parameters and floating-point operations of every network.

Usage: python scripts/write_network_table.py [OUT]
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from kits_trt.nets import SYSTEM_NETS, NetConfig
from kits_trt.nets.cost import net_cost

INTRODUCTION = """# Networks

Written by `python scripts/write_network_table.py`; no number is typed by hand. A window is what the
net sees at once, channels first, then (z, y, x) or (y, x); in 2.5D nets the channels are
neighbouring slices. GFLOP are 2 x the multiply-adds of one window's convolutions, as exported.
Parameters include heads that only training uses. Nets of one system that share a row's numbers
share a configuration, not weights.

| system | net | preset | window | classes | parameters | GFLOP |
| --- | --- | --- | --- | ---: | ---: | ---: |
"""


def row(names: tuple[str, str, str], config: NetConfig) -> str:
    """The table's line for one net, counted on shapes alone."""
    with torch.device("meta"):
        net = config.build().eval()
        scores = net(torch.empty((1, *config.patch_shape)))
    cost = net_cost(net, config.patch_shape)
    channels, *size = config.patch_shape
    window = f"{channels} x ({', '.join(str(length) for length in size)})"
    numbers = (str(scores.shape[1]), f"{cost.parameters:,}", f"{cost.gflop:.2f}")
    return f"| {' | '.join((*names, window, *numbers))} |\n"


def rows() -> Iterator[str]:
    """The table's lines in the order of systems, nets and presets."""
    for system, nets in SYSTEM_NETS.items():
        for net, presets in nets.items():
            for preset, config in presets.items():
                yield row((system, net, preset), config)


def main() -> None:
    """Writes the page."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/networks.md"
    out.write_text(INTRODUCTION + "".join(rows()), encoding="utf-8")


if __name__ == "__main__":
    main()
