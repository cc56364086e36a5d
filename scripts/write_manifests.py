"""Writes docs/manifests/: the manifest of each published system, without nets.

Usage: python scripts/write_manifests.py [OUT]
"""

import sys
from pathlib import Path

from kits_runtime.manifest import manifest_to_json
from kits_runtime.manifest.schema import Card, NetFile, Provenance
from kits_trt.systems import SYSTEMS, System, manifest_from_system

NO_HASH = "0" * 64


def example_from_system(system: System) -> str:
    """The JSON text of a system's manifest whose net files are placeholders."""
    files = {
        name: {
            "fp32": NetFile(
                path=f"nets/{name}.fp32.onnx",
                sha256=NO_HASH,
                bytes=1,
                tensors="float32",
                weights="float32",
            )
        }
        for name in system.nets
    }
    manifest = manifest_from_system(
        system,
        files=files,
        provenance=Provenance(checkpoint_sha256=None, commit=None, opset=17, tools={}),
        card=Card(
            intended_use="example of a manifest, without nets",
            training_data="none",
            licence="Apache-2.0",
            metrics={},
            remarks=("Hashes are zeros and sizes are 1: the nets are not here.",),
        ),
    )
    return manifest_to_json(manifest)


def main() -> None:
    """Writes one file a system."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs/manifests"
    out.mkdir(parents=True, exist_ok=True)
    for name, build in SYSTEMS.items():
        (out / f"{name}.json").write_text(example_from_system(build("paper")), encoding="utf-8")


if __name__ == "__main__":
    main()
