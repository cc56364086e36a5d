"""Opens a bundle, a folder or one ``.kits`` zip, and hands out its files only after checking them.

The manifest names every file with its size and SHA-256. Nothing else is read, nothing is unpacked
to disk, and no path may leave the bundle.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal

from kits_runtime.errors import BundleError
from kits_runtime.manifest import manifest_from_json
from kits_runtime.manifest.schema import Manifest, Net, NetFile

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_NET_BYTES = 2 << 30

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A checked manifest and the place its files come from.

    ``sha256`` is that of the manifest, which holds the hashes of all other files: it names the
    bundle.
    """

    manifest: Manifest
    path: Path
    sha256: str

    def net_bytes(self, name: str, precision: Precision) -> bytes:
        """The verified content of one net's file.

        Raises:
            BundleError: the net has no such file, or its content is not what the manifest says.
        """
        files = self.manifest.nets[name].files
        if precision not in files:
            raise BundleError(
                f"{self.path}: net {name!r} has no {precision} file, expected one of "
                f"{sorted(files)}. Export the bundle with --precision {precision}."
            )
        return _verified(self.path, files[precision], f"nets.{name}.files.{precision}")

    def verify(self) -> Mapping[str, str]:
        """The SHA-256 of every file by path, after reading and checking all of them."""
        checked = {MANIFEST_NAME: self.sha256}
        for name, net in self.manifest.nets.items():
            for precision, file in net.files.items():
                _verified(self.path, file, f"nets.{name}.files.{precision}")
                checked[file.path] = file.sha256
        return MappingProxyType(checked)


def open_bundle(path: Path) -> Bundle:
    """The bundle at a path; nets are read, and checked, when they are asked for.

    Raises:
        BundleError: nothing there, not a bundle, an unsafe path, or a manifest that is wrong.
    """
    if not path.exists():
        raise BundleError(
            f"{path}: no such bundle. Give a folder with {MANIFEST_NAME} or a .kits file."
        )
    raw = _read(path, MANIFEST_NAME, limit=_MAX_MANIFEST_BYTES)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path}: {MANIFEST_NAME} is not UTF-8 text (byte {error.start}). Export it again."
        ) from error
    try:
        manifest = manifest_from_json(text)
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from error
    for name, net in manifest.nets.items():
        _check_paths(path, name, net)
    return Bundle(manifest=manifest, path=path, sha256=hashlib.sha256(raw).hexdigest())


def _check_paths(bundle: Path, name: str, net: Net) -> None:
    for precision, file in net.files.items():
        where = f"{bundle}: nets.{name}.files.{precision}"
        inner = PurePosixPath(file.path)
        plain = str(inner) == file.path and "\\" not in file.path and file.path != "."
        if inner.is_absolute() or ".." in inner.parts or not plain:
            raise BundleError(
                f"{where}.path: found {file.path!r}, expected a plain relative path inside the "
                "bundle. Do not use this bundle unless you know who made it."
            )
        if file.bytes > _MAX_NET_BYTES:
            raise BundleError(
                f"{where}.bytes: found {file.bytes}, expected at most {_MAX_NET_BYTES}. "
                "Do not use this bundle unless you know who made it."
            )


def _verified(bundle: Path, file: NetFile, where: str) -> bytes:
    content = _read(bundle, file.path, limit=file.bytes)
    if len(content) != file.bytes:
        raise BundleError(
            f"{bundle}: {where}: found {len(content)} bytes in {file.path}, expected {file.bytes}. "
            "The bundle is damaged: copy or export it again."
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise BundleError(
            f"{bundle}: {where}: found SHA-256 {digest[:12]}... for {file.path}, expected "
            f"{file.sha256[:12]}.... The bundle is damaged or changed: copy or export it again."
        )
    return content


def _read(bundle: Path, name: str, *, limit: int) -> bytes:
    """At most ``limit + 1`` bytes of a file of the bundle, so that a larger one is noticed."""
    try:
        content = (
            _from_folder(bundle, name, limit) if bundle.is_dir() else _from_zip(bundle, name, limit)
        )
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle}: {name} is missing. Copy or export the bundle again."
        ) from error
    except OSError as error:
        raise BundleError(
            f"{bundle}: {name} cannot be read ({error.strerror or error}). Check the file."
        ) from error
    if len(content) > limit:
        raise BundleError(
            f"{bundle}: {name} holds more than the {limit} bytes that it may. "
            "The bundle is damaged or unsafe: do not use it."
        )
    return content


def _from_folder(bundle: Path, name: str, limit: int) -> bytes:
    file = bundle / name
    root = bundle.resolve()
    if root not in file.resolve().parents:
        raise BundleError(
            f"{bundle}: {name} leads outside the bundle through a link. Copy the file itself there."
        )
    with file.open("rb") as stream:
        return stream.read(limit + 1)


def _from_zip(bundle: Path, name: str, limit: int) -> bytes:
    try:
        with zipfile.ZipFile(bundle) as archive:
            twins = [entry for entry in archive.infolist() if entry.filename == name]
            if not twins:
                raise FileNotFoundError(name)
            if len(twins) > 1:
                raise BundleError(f"{bundle}: {name} is there {len(twins)} times, expected once.")
            with archive.open(twins[0]) as stream:
                return stream.read(limit + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(
            f"{bundle}: {name} cannot be unpacked ({error}), expected a .kits file (a zip) or a "
            "folder. Copy or export the bundle again."
        ) from error
