"""Writes a bundle: a folder, or one ``.kits`` file with the same bytes for the same content."""

import hashlib
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from kits_runtime.bundle import MANIFEST_NAME, Precision, open_bundle
from kits_runtime.files import replacing
from kits_runtime.manifest import manifest_to_json
from kits_runtime.manifest.schema import Card, Manifest, NetFile, ParityLink, Provenance
from kits_trt.systems import System, manifest_from_system

Float = Literal["float32", "float16"]

_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetContent:
    """One stored form of a net, ready to be written."""

    onnx: bytes
    tensors: Float
    weights: Float


def write_bundle(
    path: Path,
    system: System,
    nets: Mapping[str, Mapping[Precision, NetContent]],
    *,
    parity: tuple[ParityLink, ...],
    provenance: Provenance,
    card: Card,
    reports: Mapping[str, bytes] = MappingProxyType({}),
) -> Manifest:
    """Writes a bundle and reads it back; returns its manifest.

    ``reports`` are further files by name, for people: the manifest does not list them and the
    runtime never reads them.

    A path that ends in ``.kits`` becomes one file, any other a folder that must not exist yet.
    Either is complete or not there at all.

    Raises:
        FileExistsError: the folder is there already.
        BundleError: what was written does not read back.
    """
    contents: dict[str, bytes] = {}
    files: dict[str, dict[Precision, NetFile]] = {}
    for name, forms in nets.items():
        files[name] = {}
        for precision, form in forms.items():
            inner = f"nets/{name}.{precision}.onnx"
            contents[inner] = form.onnx
            files[name][precision] = NetFile(
                path=inner,
                sha256=hashlib.sha256(form.onnx).hexdigest(),
                bytes=len(form.onnx),
                tensors=form.tensors,
                weights=form.weights,
            )
    manifest = replace(
        manifest_from_system(system, files=files, provenance=provenance, card=card), parity=parity
    )
    contents = {MANIFEST_NAME: manifest_to_json(manifest).encode(), **reports, **contents}
    if path.suffix == ".kits":
        _write_zip(path, contents)
    else:
        _write_folder(path, contents)
    open_bundle(path).verify()
    return manifest


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    with replacing(path) as stream, zipfile.ZipFile(stream, "w") as archive:
        for inner, content in contents.items():
            entry = zipfile.ZipInfo(inner, _ZIP_DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    if path.exists():
        raise FileExistsError(f"{path}: is there already, expected none. Choose another path.")
    partial = path.with_name(f".{path.name}.part")
    try:
        for inner, content in contents.items():
            file = partial / inner
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
