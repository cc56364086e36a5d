"""What is known of seeded bundles without making one: neither torch nor onnx is needed."""

from pathlib import Path

from kits_runtime.manifest.schema import Card

WEIGHTS = "seeded, untrained; masks by a small fitted guide"
VERSION = 2  # of what bundles.py makes; counts up when a bundle of the same name would differ


def weights_of(card: Card) -> str:
    """What a bundle's card says of its weights: seeded, or trained on something."""
    return WEIGHTS if WEIGHTS in card.remarks else "as the bundle's card says"


def seeded_path(system: str, preset: str, cache: Path) -> Path:
    """Where a system's bundle of seeded weights lies once it was made."""
    return cache / "bundles" / f"{system}-{preset}-v{VERSION}"
