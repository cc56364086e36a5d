"""Opens a bundle, a folder or one ``.kits`` zip, and hands out its files only after checking them.

The manifest names every file with its size and SHA-256. Nothing else is read, nothing is unpacked
to disk, and no path may leave the bundle.
"""

import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from kits_runtime.errors import BundleError
from kits_runtime.manifest import manifest_from_json
from kits_runtime.manifest.codec import shown
from kits_runtime.manifest.schema import Manifest, Net, NetFile

MANIFEST_NAME = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_NET_BYTES = 2 << 30
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,100}"
_PLAIN_PATH = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")

# zipfile inflates these two in bounded steps; the others it inflates whole, whatever their size.
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
_ENCRYPTED = 0x1
# Weights hardly shrink. Deflate may shrink a thousandfold, so a small file could fill the memory.
_ROOMY_BYTES = 16 << 20
_MAX_INFLATION = 100

# What zipfile was seen to raise for damaged archives, besides OSError.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_MOST_SAID = 100
_UNSAFE = "Do not use this bundle unless you know who made it."

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
            ValueError: the manifest has no net of this name.
        """
        if name not in self.manifest.nets:
            raise ValueError(f"found net {name!r}, expected one of {sorted(self.manifest.nets)}")
        files = self.manifest.nets[name].files
        if precision not in files:
            raise BundleError(
                f"{self.path}: net {name!r} has no {precision} file, expected one of "
                f"{sorted(files)}. Export the bundle with --precision {precision}."
            )
        return _verified(self.path, files[precision], f"nets.{name}.files.{precision}")

    def verify(self) -> Mapping[str, str]:
        """The SHA-256 of every file by path, after reading and checking all of them."""
        raw = _read(self.path, MANIFEST_NAME, limit=_MAX_MANIFEST_BYTES)
        _check_sha256(self.path, MANIFEST_NAME, raw, expected=self.sha256)
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
    _check_place(path)
    raw = _read(path, MANIFEST_NAME, limit=_MAX_MANIFEST_BYTES)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path}: {MANIFEST_NAME}: found byte {raw[error.start]:#04x} at {error.start}, "
            "expected UTF-8 text. Export the bundle again."
        ) from error
    try:
        manifest = manifest_from_json(text)
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from error
    for name, net in manifest.nets.items():
        _check_files(path, name, net)
    return Bundle(manifest=manifest, path=path, sha256=hashlib.sha256(raw).hexdigest())


def _check_place(path: Path) -> None:
    expected = f"expected a folder with {MANIFEST_NAME} or a .kits file. Check the path."
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such bundle, {expected}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be opened ({_reason(error)}), {expected}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise BundleError(f"{path}: found neither a folder nor a file, {expected}")


def _check_files(bundle: Path, name: str, net: Net) -> None:
    for precision, file in net.files.items():
        where = f"{bundle}: nets.{name}.files.{precision}"
        if not _PLAIN_PATH.fullmatch(file.path):
            raise BundleError(
                f"{where}.path: found {shown(file.path)}, expected a plain relative path inside "
                f"the bundle, of letters, digits, '.', '_' and '-'. {_UNSAFE}"
            )
        if file.bytes > _MAX_NET_BYTES:
            raise BundleError(
                f"{where}.bytes: found {shown(file.bytes)}, expected at most {_MAX_NET_BYTES}. "
                f"{_UNSAFE}"
            )


def _verified(bundle: Path, file: NetFile, where: str) -> bytes:
    content = _read(bundle, file.path, limit=file.bytes)
    if len(content) != file.bytes:
        raise BundleError(
            f"{bundle}: {where}: found {len(content)} bytes in {file.path}, expected {file.bytes}. "
            "The bundle is damaged: copy or export it again."
        )
    _check_sha256(bundle, f"{where}: {file.path}", content, expected=file.sha256)
    return content


def _check_sha256(bundle: Path, where: str, content: bytes, *, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise BundleError(
            f"{bundle}: {where}: found SHA-256 {found[:12]}..., expected {expected[:12]}.... "
            "The bundle is damaged or changed: copy or export it again."
        )


def _read(bundle: Path, name: str, *, limit: int) -> bytes:
    """A file of the bundle, of at most ``limit`` bytes."""
    try:
        read = _from_folder if bundle.is_dir() else _from_zip
        return read(bundle, name, limit)
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle}: {name} is missing. Copy or export the bundle again."
        ) from error
    except OSError as error:
        raise BundleError(
            f"{bundle}: {name} cannot be read ({_reason(error)}). Check the file."
        ) from error


def _from_folder(bundle: Path, name: str, limit: int) -> bytes:
    try:
        root, file = bundle.resolve(strict=True), (bundle / name).resolve(strict=True)
    except RuntimeError as error:  # what a circle of links is before Python 3.13
        raise BundleError(
            f"{bundle}: {name} is a link to itself. Copy the file itself there."
        ) from error
    if root not in file.parents:
        raise BundleError(
            f"{bundle}: {name} leads outside the bundle through a link. Copy the file itself there."
        )
    if not file.is_file():
        raise BundleError(
            f"{bundle}: found a folder or a device at {name}, expected a file. {_UNSAFE}"
        )
    size = file.stat().st_size
    _check_size(bundle, name, size, limit)
    with file.open("rb") as stream:
        return stream.read(size)


def _from_zip(bundle: Path, name: str, limit: int) -> bytes:
    try:
        with zipfile.ZipFile(bundle) as archive:
            entry = _only_entry(bundle, archive, name)
            _check_entry(bundle, entry, limit)
            with archive.open(entry) as stream:
                return stream.read(entry.file_size)
    except _ZIP_ERRORS as error:
        raise BundleError(
            f"{bundle}: {name} cannot be unpacked ({_reason(error)}), expected a .kits file (a "
            "zip) or a folder. Copy or export the bundle again."
        ) from error


def _only_entry(bundle: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    entries = [entry for entry in archive.infolist() if entry.filename == name]
    if not entries:
        raise FileNotFoundError(name)
    if len(entries) > 1:
        raise BundleError(
            f"{bundle}: found {name} {len(entries)} times in the zip, expected once. {_UNSAFE}"
        )
    return entries[0]


def _check_entry(bundle: Path, entry: zipfile.ZipInfo, limit: int) -> None:
    name, size = entry.filename, entry.file_size
    if entry.flag_bits & _ENCRYPTED:
        raise BundleError(
            f"{bundle}: found {name} encrypted, expected a plain zip. Copy or export it again."
        )
    if entry.compress_type not in _METHODS:
        raise BundleError(
            f"{bundle}: found {name} packed by zip method {entry.compress_type}, expected one of "
            f"{sorted(_METHODS.values())}. Pack the bundle again."
        )
    _check_size(bundle, name, size, limit)
    packed = min(entry.compress_size, bundle.stat().st_size)
    if size > _ROOMY_BYTES and size > _MAX_INFLATION * packed:
        raise BundleError(
            f"{bundle}: found {name} packed from {size} bytes into {packed}, expected at most "
            f"{_MAX_INFLATION} to 1. {_UNSAFE}"
        )


def _check_size(bundle: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise BundleError(
            f"{bundle}: found {size} bytes in {name}, expected at most {limit}. "
            "The bundle is damaged or unsafe: do not use it."
        )


def _reason(error: Exception) -> str:
    """What an error says, on one short line: zipfile quotes whatever it read."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return said if len(said) <= _MOST_SAID else said[: _MOST_SAID - 3] + "..."
