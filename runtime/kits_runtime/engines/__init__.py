"""Engines: one net on one device, behind one protocol. Importing this imports no engine library."""

from kits_runtime.engines.choose import (
    BACKENDS,
    Backend,
    Choice,
    Device,
    choose_backend,
    double_installs,
    open_engine,
)
from kits_runtime.engines.cores import usable_cores
from kits_runtime.engines.fake import FakeEngine
from kits_runtime.engines.openvino_cpu import OpenVinoEngine
from kits_runtime.engines.ort_cpu import OrtCpuEngine
from kits_runtime.engines.protocol import Engine, EngineOptions, EngineSpec, NetSpec

__all__ = [
    "BACKENDS",
    "Backend",
    "Choice",
    "Device",
    "Engine",
    "EngineOptions",
    "EngineSpec",
    "FakeEngine",
    "NetSpec",
    "OpenVinoEngine",
    "OrtCpuEngine",
    "choose_backend",
    "double_installs",
    "open_engine",
    "usable_cores",
]
