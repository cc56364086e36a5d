"""Networks of the published systems, by name and preset."""

from collections.abc import Mapping
from typing import Protocol

from kits_trt.nets.blocks import SegmentationNet
from kits_trt.nets.msvnet import MsVNetConfig
from kits_trt.nets.resunet3d import ResUNet3dConfig

__all__ = ["NETS", "NetConfig", "SegmentationNet", "build_net", "net_config"]


class NetConfig(Protocol):
    """What every network's configuration can do."""

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch without the batch axis."""

    def build(self) -> SegmentationNet:
        """Return the network with freshly drawn weights."""


NETS: Mapping[str, Mapping[str, NetConfig]] = {
    "resunet3d": {
        "paper": ResUNet3dConfig(base=16, window=(64, 256, 256)),
        "small": ResUNet3dConfig(base=8, window=(64, 128, 128)),
    },
    "msvnet": {
        "paper": MsVNetConfig(base=16, crop=(512, 512)),
        "small": MsVNetConfig(base=8, crop=(96, 96)),
    },
}


def net_config(name: str, preset: str) -> NetConfig:
    """Return the configuration of a network.

    Raises:
        ValueError: No network or no preset of that name.
    """
    if name not in NETS:
        raise ValueError(f"net is {name!r}, must be one of {sorted(NETS)}; choose one of them")
    if preset not in NETS[name]:
        raise ValueError(
            f"preset of {name} is {preset!r}, must be one of {sorted(NETS[name])}; choose one"
        )
    return NETS[name][preset]


def build_net(name: str, preset: str) -> SegmentationNet:
    """Return a network with freshly drawn weights (from torch's current random state).

    Raises:
        ValueError: No network or no preset of that name.
    """
    return net_config(name, preset).build()
