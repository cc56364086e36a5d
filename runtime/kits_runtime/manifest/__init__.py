"""The manifest: the contract between whoever made a bundle and whoever runs it."""

import json

from kits_runtime.errors import ManifestError
from kits_runtime.manifest.codec import from_plain, to_plain
from kits_runtime.manifest.rules import check_manifest, check_version
from kits_runtime.manifest.schema import SCHEMA_VERSION, Manifest

__all__ = ["SCHEMA_VERSION", "manifest_from_json", "manifest_to_json"]


def manifest_from_json(text: str) -> Manifest:
    """The checked manifest that a JSON text holds.

    Raises:
        ManifestError: not JSON, a key too many or too few, a newer schema, a value that cannot be.
    """
    try:
        plain = json.loads(text, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"manifest: line {error.lineno} is not JSON ({error.msg}). Export the bundle again."
        ) from error
    if isinstance(plain, dict) and "schema" in plain:
        check_version(plain["schema"])
    manifest = from_plain(Manifest, plain)
    check_manifest(manifest)
    return manifest


def manifest_to_json(manifest: Manifest) -> str:
    """The JSON text of a manifest: the same bytes for equal manifests."""
    return json.dumps(to_plain(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ManifestError(f"{twin}: the key stands twice in one object. Keep one of them.")
    return plain


def _no_constant(name: str) -> object:
    raise ManifestError(f"manifest: found {name}, expected finite numbers. Correct the manifest.")
