"""The five published systems, one module a paper."""

from collections.abc import Callable, Mapping

from kits_trt.systems.cascaded_vnet import cascaded_vnet
from kits_trt.systems.cysts import with_cysts
from kits_trt.systems.multistage25d import multistage25d
from kits_trt.systems.resunet_msvnet import resunet_msvnet
from kits_trt.systems.system import Preset, System, manifest_from_system
from kits_trt.systems.unet2d_pair import unet2d_pair
from kits_trt.systems.unet3d import unet3d

__all__ = ["SYSTEMS", "Preset", "System", "manifest_from_system", "with_cysts"]

SYSTEMS: Mapping[str, Callable[[Preset], System]] = {
    "cascaded-vnet": cascaded_vnet,
    "resunet-msvnet": resunet_msvnet,
    "unet3d": unet3d,
    "multistage25d": multistage25d,
    "unet2d-pair": unet2d_pair,
}
