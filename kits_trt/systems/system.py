"""What a system is on this side of the bundle: its stages and the shapes of its nets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kits_runtime.manifest import SCHEMA_VERSION
from kits_runtime.manifest.schema import Card, Manifest, Net, NetFile, Provenance, Stage
from kits_trt.systems.recipe import Recipe

Preset = Literal["paper", "small"]
NetFiles = Mapping[Literal["fp32", "fp16"], NetFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetShape:
    """The tensors of one net: channels in and out, and the spatial size of one window."""

    in_channels: int
    out_channels: int
    size_vox: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One published method in one preset: its stages, and how its nets are taught."""

    name: str
    preset: Preset
    labels: tuple[str, ...]
    nets: Mapping[str, NetShape]
    stages: tuple[Stage, ...]
    overlay: tuple[str, ...]
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


def manifest_from_system(
    system: System, *, files: Mapping[str, NetFiles], provenance: Provenance, card: Card
) -> Manifest:
    """The manifest of a system with its net files; the export adds the parity links."""
    nets = {
        name: Net(
            input_name="patches",
            output_name="scores",
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            size_vox=shape.size_vox,
            files=files[name],
        )
        for name, shape in system.nets.items()
    }
    return Manifest(
        schema=SCHEMA_VERSION,
        system=system.name,
        preset=system.preset,
        labels=system.labels,
        nets=nets,
        stages=system.stages,
        overlay=system.overlay,
        parity=(),
        provenance=provenance,
        card=card,
    )
