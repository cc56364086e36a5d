"""The manifest: the contract between whoever made a bundle and whoever runs it."""

import json

from kits_runtime.errors import ManifestError
from kits_runtime.manifest.codec import from_plain, shown, to_plain
from kits_runtime.manifest.rules import check_manifest, check_version
from kits_runtime.manifest.schema import SCHEMA_VERSION, Manifest

__all__ = ["SCHEMA_VERSION", "manifest_from_json", "manifest_to_json"]

_MOST_DIGITS = 400


def manifest_from_json(text: str) -> Manifest:
    """The checked manifest that a JSON text holds.

    Raises:
        ManifestError: not JSON, a key too many or too few, a newer schema, a value that cannot be.
    """
    try:
        plain = json.loads(
            text,
            object_pairs_hook=_without_twins,
            parse_constant=_no_constant,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"manifest: found {error.msg!r} in line {error.lineno}, column {error.colno}, "
            "expected JSON. Export the bundle again."
        ) from error
    except RecursionError as error:
        raise ManifestError(
            "manifest: found lists or objects nested without end, expected a manifest. "
            "Do not use this bundle unless you know who made it."
        ) from error
    if isinstance(plain, dict) and "schema" in plain:
        check_version(plain["schema"])
    manifest = from_plain(Manifest, plain)
    check_manifest(manifest)
    return manifest


def manifest_to_json(manifest: Manifest) -> str:
    """The JSON text of a manifest: the same text for equal manifests.

    Raises:
        ManifestError: a field holds what its type does not allow, so nobody could read it back.
    """
    typed = from_plain(Manifest, to_plain(manifest))
    return json.dumps(to_plain(typed), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    plain: dict[str, object] = {}
    for name, value in pairs:
        if name in plain:
            raise ManifestError(
                f"manifest: found the key {shown(name)} twice in one object, expected it once. "
                "Keep one of them."
            )
        plain[name] = value
    return plain


def _no_constant(name: str) -> object:
    raise ManifestError(f"manifest: found {name}, expected finite numbers. Correct the manifest.")


def _short_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ManifestError(
            f"manifest: found a whole number of {len(digits)} digits, expected at most "
            f"{_MOST_DIGITS}. Correct the manifest."
        )
    return int(digits)
