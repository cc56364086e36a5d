"""What ``kits-info`` tells of this machine, a bundle or a checkpoint, as plain values for JSON."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from kits_runtime.bundle import open_bundle
from kits_runtime.engines import BACKENDS, choose_backend, double_installs
from kits_runtime.errors import BackendUnavailableError, BundleError, KitsError
from kits_runtime.manifest.codec import to_plain
from kits_runtime.record import versions

Facts = Mapping[str, object]

_MAX_HEADER_BYTES = 64 << 20


def environment_facts() -> Facts:
    """Versions, processors, each backend with why it cannot run here, and the one of 'auto'."""
    return {
        "versions": versions("nibabel", "isal", "onnxruntime", "openvino"),
        "machine": platform.machine(),
        "system": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "backends": {row.name: {"extra": row.extra, "why_not": row.why_not()} for row in BACKENDS},
        "chosen": _chosen(),
        "double_installs": list(double_installs()),
    }


def _chosen() -> str | None:
    try:
        return choose_backend().backend
    except BackendUnavailableError:
        return None


def facts_of(path: Path) -> Facts:
    """The facts of a bundle or a checkpoint, told apart by content.

    Raises:
        BundleError: the path is neither, or the bundle is damaged.
    """
    if path.suffix == ".safetensors":
        return checkpoint_facts(path)
    return bundle_facts(path)


def bundle_facts(path: Path) -> Facts:
    """A bundle's card, stages, nets, parity and provenance, after checking every file's hash."""
    bundle = open_bundle(path)
    files = bundle.verify()
    manifest = bundle.manifest
    return {
        "bundle": str(path),
        "sha256": bundle.sha256,
        "verified_files": dict(files),
        "schema": manifest.schema,
        "system": manifest.system,
        "preset": manifest.preset,
        "labels": list(manifest.labels),
        "stages": [stage.name for stage in manifest.stages],
        "nets": to_plain(manifest.nets),
        "parity": to_plain(manifest.parity),
        "provenance": to_plain(manifest.provenance),
        "card": to_plain(manifest.card),
    }


def checkpoint_facts(path: Path) -> Facts:
    """The header of a safetensors checkpoint: its metadata and its tensors' shapes.

    Raises:
        BundleError: the file is missing or its header is not one.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= _MAX_HEADER_BYTES:
                raise _no_checkpoint(path, f"a header of {length} bytes")
            header = json.loads(stream.read(length))
            size = os.fstat(stream.fileno()).st_size
        metadata = header.pop("__metadata__", {})
        tensors = {name: [row["dtype"], row["shape"]] for name, row in sorted(header.items())}
        ends = [int(row["data_offsets"][1]) for row in header.values()]
    except OSError as error:
        raise _no_checkpoint(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _no_checkpoint(path, f"a header that is none ({error})") from error
    if 8 + length + max(ends, default=0) != size:
        raise _no_checkpoint(path, f"{size} bytes where its header tells of another number")
    return {"checkpoint": str(path), "metadata": metadata, "tensors": tensors}


def _no_checkpoint(path: Path, found: str) -> KitsError:
    return BundleError(f"{path}: found {found}, expected a safetensors checkpoint. Check the file.")
