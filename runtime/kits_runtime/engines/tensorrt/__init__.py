"""Engines built by TensorRT: parse, prove the precision, build, keep. Importing imports no library.

Running them is not here; this part also works on machines without a GPU, where the library can
build ahead of time.
"""

from kits_runtime.engines.tensorrt.build import BuiltEngine, build_engine, require_target
from kits_runtime.engines.tensorrt.half_share import HalfShare, half_share
from kits_runtime.engines.tensorrt.inspection import EngineLayers, engine_layers
from kits_runtime.engines.tensorrt.key import engine_key
from kits_runtime.engines.tensorrt.library import (
    Library,
    import_tensorrt,
    import_tensorrt_rtx,
    open_library,
)
from kits_runtime.engines.tensorrt.listening import Progress
from kits_runtime.engines.tensorrt.onnx_bytes import opset_of, widened
from kits_runtime.engines.tensorrt.options import BuildOptions

__all__ = [
    "BuildOptions",
    "BuiltEngine",
    "EngineLayers",
    "HalfShare",
    "Library",
    "Progress",
    "build_engine",
    "engine_key",
    "engine_layers",
    "half_share",
    "import_tensorrt",
    "import_tensorrt_rtx",
    "open_library",
    "opset_of",
    "require_target",
    "widened",
]
