"""Networks of the published systems, by system, net and preset."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from kits_trt.nets.blocks import SegmentationNet
from kits_trt.nets.msvnet import MsVNetConfig
from kits_trt.nets.resnet25d import ResNet25dConfig
from kits_trt.nets.resunet3d import ResUNet3dConfig
from kits_trt.nets.resunet25d import ResUNet25dConfig
from kits_trt.nets.unet2d import UNet2dConfig
from kits_trt.nets.unet3d import UNet3dConfig
from kits_trt.nets.vnet import VNetConfig

__all__ = [
    "NETS",
    "SYSTEM_NETS",
    "NetConfig",
    "SegmentationNet",
    "build_net",
    "net_config",
    "net_for",
]


class NetConfig(Protocol):
    """What every network's configuration can do."""

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """Shape of one patch without the batch axis."""

    @property
    def classes(self) -> int:
        """Output channels."""

    def build(self) -> SegmentationNet:
        """Return the network with freshly drawn weights."""


Presets = Mapping[str, NetConfig]
_Row = TypeVar("_Row")

_VNET: Presets = {
    "paper": VNetConfig(base=16, window=(128, 128, 128), normalised=False),
    "small": VNetConfig(base=4, window=(64, 64, 64), normalised=True),
}
_WITH_CLASSES = (
    MsVNetConfig, ResNet25dConfig, ResUNet25dConfig, ResUNet3dConfig, UNet3dConfig, VNetConfig
)  # fmt: skip

_RES_UNET: Presets = {
    "paper": ResUNet25dConfig(base=32, crop=(256, 256)),
    "small": ResUNet25dConfig(base=16, crop=(96, 96)),
}

SYSTEM_NETS: Mapping[str, Mapping[str, Presets]] = {
    "cascaded-vnet": {"roi-vnet": _VNET, "kidney-vnet": _VNET, "tumour-vnet": _VNET},
    "resunet-msvnet": {
        "resunet3d": {
            "paper": ResUNet3dConfig(base=16, window=(64, 256, 256)),
            "small": ResUNet3dConfig(base=8, window=(64, 128, 128)),
        },
        "msvnet": {
            "paper": MsVNetConfig(base=16, crop=(512, 512)),
            "small": MsVNetConfig(base=8, crop=(64, 64), slices=9, mirrored=True),
        },
    },
    "unet3d": {
        "unet": {
            "paper": UNet3dConfig(window=(32, 128, 128)),
            "small": UNet3dConfig(window=(32, 64, 64)),
        },
    },
    "multistage25d": {
        "res-unet-1": _RES_UNET,
        "res-unet-2": _RES_UNET,
        "res-net": {
            "paper": ResNet25dConfig(width=32, crop=(256, 256)),
            "small": ResNet25dConfig(width=16, crop=(96, 96)),
        },
    },
    "unet2d-pair": {
        "kidney-unet": {
            "paper": UNet2dConfig(base=64, crop=(256, 256)),
            "small": UNet2dConfig(base=16, crop=(128, 128)),
        },
        "tumour-unet": {
            "paper": UNet2dConfig(base=64, crop=(128, 256)),
            "small": UNet2dConfig(base=16, crop=(64, 128)),
        },
    },
}
"""The nets of each system under the names its manifest gives them, by preset."""

# A net's name says its system: no two systems use one name.
NETS: Mapping[str, Presets] = {
    name: presets for nets in SYSTEM_NETS.values() for name, presets in nets.items()
}
"""The same nets by name alone."""


def net_for(system: str, net: str, preset: str) -> NetConfig:
    """Return the configuration of a system's net.

    Raises:
        ValueError: No system, no net of it or no preset of that name.
    """
    presets = _row(_row(SYSTEM_NETS, system, "system"), net, f"net of {system}")
    return _row(presets, preset, f"preset of {net}")


def net_config(name: str, preset: str) -> NetConfig:
    """Return the configuration of a network.

    Raises:
        ValueError: No network or no preset of that name.
    """
    return _row(_row(NETS, name, "net"), preset, f"preset of {name}")


def build_net(name: str, preset: str, *, classes: int | None = None) -> SegmentationNet:
    """Return a network with freshly drawn weights (from torch's current random state).

    Args:
        name: The net.
        preset: Its preset.
        classes: Output channels where they are not those of the paper, as with cysts.

    Raises:
        ValueError: No network or no preset of that name, or one whose channels are fixed.
    """
    config = net_config(name, preset)
    if classes is None or classes == config.classes:
        return config.build()
    if not isinstance(config, _WITH_CLASSES):
        raise ValueError(f"{name} has {config.classes} output channel, not {classes}; leave it so")
    return replace(config, classes=classes).build()


def _row(table: Mapping[str, _Row], name: str, what: str) -> _Row:
    if name not in table:
        raise ValueError(f"{what} is {name!r}, must be one of {sorted(table)}; choose one of them")
    return table[name]
