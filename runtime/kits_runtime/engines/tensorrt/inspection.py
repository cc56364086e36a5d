"""What a loaded engine says of its own layers: the second proof of precision.

The first is counted on the parsed network and holds wherever networks are strongly typed. 8.6 may
choose otherwise, so there the engine itself is asked. That takes an engine that loads: a GPU.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kits_runtime.engines.tensorrt.library import Library
from kits_runtime.errors import EngineError

# Layers whose fused names carry arithmetic; the rest move data.
_HALF_WORDS = ("fp16", "half")
_WIDE_WORDS = ("fp32", "float")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayers:
    """How many layers of an engine write half, how many float32, and which do the latter."""

    half: int
    wide: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of layers that write half, of all that write floats; 0 where none does."""
        total = self.half + len(self.wide)
        return self.half / total if total else 0.0


def engine_layers(library: Library, engine: Any) -> EngineLayers:  # noqa: ANN401
    """The precision that a loaded engine's layers have.

    Raises:
        EngineError: the engine tells nothing, because it was built to tell no more than names.
    """
    json_format = library.members("LayerInformationFormat")["JSON"]
    return layers_from_report(engine.create_engine_inspector().get_engine_information(json_format))


def layers_from_report(report: str) -> EngineLayers:
    """The same from an inspector's JSON report.

    Raises:
        EngineError: the report has no formats.
    """
    half = 0
    wide = []
    for layer in _detailed(report):
        words = " ".join(_formats(layer)).lower()
        if any(word in words for word in _HALF_WORDS):
            half += 1
        elif any(word in words for word in _WIDE_WORDS):
            wide.append(str(layer.get("Name", "")))
    if half + len(wide) == 0:
        raise EngineError(
            "engine inspector: found no layer with a format, expected a report in detail; "
            "build the engine again with this version"
        )
    return EngineLayers(half=half, wide=tuple(wide))


def _detailed(report: str) -> Iterator[Mapping[str, Any]]:
    """Layers with details; where only names were kept, a layer is a plain text."""
    try:
        layers = json.loads(report)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"engine inspector: found a report that is not JSON with layers ({error}), expected "
            "one; the library may be newer than this version knows"
        ) from error
    return (layer for layer in layers if isinstance(layer, dict))


def _formats(layer: Mapping[str, Any]) -> Iterator[str]:
    """The types and formats of what a layer writes; their keys differ between versions."""
    for output in layer.get("Outputs", ()):
        for key, value in output.items():
            if "format" in key.lower() or "datatype" in key.lower():
                yield str(value)
