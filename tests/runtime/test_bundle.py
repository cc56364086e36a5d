import dataclasses
import hashlib
import io
import os
import random
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_examples import full_manifest
from open_files import open_files

from kits_runtime.bundle import MANIFEST_NAME, Bundle, open_bundle
from kits_runtime.errors import BundleError, ManifestError
from kits_runtime.manifest import manifest_to_json
from kits_runtime.manifest.codec import shown
from kits_runtime.manifest.schema import Manifest, NetFile

Contents = dict[str, bytes]
Write = Callable[[Path, Mapping[str, bytes]], Path]

NET = "nets/finder.fp32.onnx"
WHERE = "nets.finder.files.fp32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of a zip, its headers saying whatever a test wants."""

    name: str
    packed: bytes
    size: int
    crc: int = 0
    method: int = zipfile.ZIP_STORED
    flags: int = 0
    packed_size: int | None = None


def zip_bytes(entries: list[Entry]) -> bytes:
    """A zip written by hand, since zipfile would correct what is wrong."""
    body, directory = io.BytesIO(), io.BytesIO()
    for entry in entries:
        name = entry.name.encode()
        packed_size = len(entry.packed) if entry.packed_size is None else entry.packed_size
        facts = struct.pack(
            "<5H3L2H",
            *(20, entry.flags, entry.method, 0, 0x21),
            *(entry.crc, packed_size, entry.size, len(name), 0),
        )
        offset = body.tell()
        body.write(b"PK\3\4" + facts + name + entry.packed)
        directory.write(b"PK\1\2" + struct.pack("<H", 20) + facts)
        directory.write(struct.pack("<3H2L", 0, 0, 0, 0, offset) + name)
    count, size, start = len(entries), directory.tell(), body.tell()
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, count, count, size, start, 0)
    return body.getvalue() + directory.getvalue() + end


def stored(name: str, content: bytes) -> Entry:
    return Entry(name=name, packed=content, size=len(content), crc=zlib.crc32(content))


def deflated(name: str, content: bytes) -> Entry:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    return dataclasses.replace(stored(name, content), packed=packed, method=zipfile.ZIP_DEFLATED)


def write_folder(place: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def write_stored(place: Path, contents: Mapping[str, bytes]) -> Path:
    file = place.with_suffix(".kits")
    file.write_bytes(zip_bytes([stored(name, content) for name, content in contents.items()]))
    return file


def write_deflated(place: Path, contents: Mapping[str, bytes]) -> Path:
    file = place.with_suffix(".kits")
    file.write_bytes(zip_bytes([deflated(name, content) for name, content in contents.items()]))
    return file


every_form = pytest.mark.parametrize("write", [write_folder, write_stored, write_deflated])


def with_file(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest with facts of one net file, ``NET``, changed."""
    net = manifest.nets["finder"]
    files = {**net.files, "fp32": dataclasses.replace(net.files["fp32"], **changes)}
    nets = {**manifest.nets, "finder": dataclasses.replace(net, files=files)}
    return dataclasses.replace(manifest, nets=nets)


def files_of(manifest: Manifest) -> Iterator[NetFile]:
    for net in manifest.nets.values():
        yield from net.files.values()


def good_manifest() -> Manifest:
    """The full manifest with the sizes and hashes of the files that ``good_contents`` has."""

    def described(file: NetFile) -> NetFile:
        content = net_content(file.path)
        digest = hashlib.sha256(content).hexdigest()
        return dataclasses.replace(file, bytes=len(content), sha256=digest)

    nets = {
        name: dataclasses.replace(
            net, files={precision: described(file) for precision, file in net.files.items()}
        )
        for name, net in full_manifest().nets.items()
    }
    return dataclasses.replace(full_manifest(), nets=nets)


def net_content(path: str) -> bytes:
    return random.Random(path).randbytes(700 + len(path))


def good_contents(manifest: Manifest | None = None) -> Contents:
    text = manifest_to_json(manifest or good_manifest())
    nets = {file.path: net_content(file.path) for file in files_of(good_manifest())}
    return {MANIFEST_NAME: text.encode(), **nets}


def tree(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in sorted(place.rglob("*"))
    }


def refusal(path: Path) -> str:
    """How opening and checking a bundle ends, which must be an error that a person can read."""
    before = open_files()
    with pytest.raises(BundleError) as caught:
        open_bundle(path).verify()
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    assert message.isprintable()
    assert len(message) < 500
    assert not open_files() - before
    return message.removeprefix(f"{path}: ")


def peak_of(action: Callable[[], object]) -> int:
    """The most bytes that an action held at a time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_zip_written_by_hand_is_what_zipfile_reads() -> None:
    with zipfile.ZipFile(io.BytesIO(zip_bytes([deflated("a/b", b"x" * 99)]))) as archive:
        assert archive.testzip() is None
        assert archive.read("a/b") == b"x" * 99


def test_folder_and_zips_give_the_same_bundle(tmp_path: Path) -> None:
    contents = good_contents()
    bundles = [
        open_bundle(write(tmp_path / write.__name__, contents))
        for write in (write_folder, write_stored, write_deflated)
    ]
    for bundle in bundles:
        assert bundle.manifest == good_manifest()
        assert bundle.sha256 == hashlib.sha256(contents[MANIFEST_NAME]).hexdigest()
        assert bundle.net_bytes("finder", "fp32") == contents[NET]
        assert bundle.net_bytes("slicer", "fp16") == contents["nets/slicer.fp16.onnx"]
        assert bundle.verify() == bundles[0].verify()


@every_form
def test_verify_lists_every_file_with_its_hash(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    checked = open_bundle(write(tmp_path / "b", contents)).verify()
    assert dict(checked) == {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
    assert len(checked) == 5


@every_form
def test_files_that_the_manifest_does_not_name_are_not_read(write: Write, tmp_path: Path) -> None:
    contents = {**good_contents(), "README": b"hello", "nets/other.onnx": b"?"}
    assert set(open_bundle(write(tmp_path / "b", contents)).verify()) == set(good_contents())


@pytest.mark.parametrize("place", [0, 350, -1])
@pytest.mark.parametrize("name", [file.path for file in files_of(full_manifest())])
@every_form
def test_a_flipped_byte_in_a_net_is_noticed_and_named(
    write: Write, name: str, place: int, tmp_path: Path
) -> None:
    contents = good_contents()
    changed = bytearray(contents[name])
    changed[place] ^= 1
    path = write(tmp_path / "b", {**contents, name: bytes(changed)})
    found, expected = (hashlib.sha256(c).hexdigest()[:12] for c in (changed, contents[name]))
    _, net, precision, _ = name.replace("/", ".").split(".")
    assert refusal(path) == (
        f"nets.{net}.files.{precision}: {name}: found SHA-256 {found}..., expected {expected}.... "
        "The bundle is damaged or changed: copy or export it again."
    )


def test_a_net_beside_a_damaged_one_can_still_be_had(tmp_path: Path) -> None:
    contents = {**good_contents(), NET: b"?" * len(net_content(NET))}
    bundle = open_bundle(write_folder(tmp_path, contents))
    assert bundle.net_bytes("slicer", "fp32") == contents["nets/slicer.fp32.onnx"]
    with pytest.raises(BundleError, match=r"nets\.finder\.files\.fp32"):
        bundle.net_bytes("finder", "fp32")


def test_a_flipped_byte_in_the_manifest_is_refused_or_changes_the_name(tmp_path: Path) -> None:
    contents = good_contents()
    raw = contents[MANIFEST_NAME]
    names, refused = set(), 0
    for place in range(0, len(raw), 29):
        flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        path = write_folder(tmp_path, {MANIFEST_NAME: flipped})
        try:
            names.add(open_bundle(path).sha256)
        except BundleError:
            refused += 1
    assert hashlib.sha256(raw).hexdigest() not in names
    assert refused > len(names) > 0


def test_a_manifest_that_changes_after_opening_is_noticed(tmp_path: Path) -> None:
    bundle = open_bundle(write_folder(tmp_path, good_contents()))
    other = dataclasses.replace(good_manifest(), preset="paper")
    (tmp_path / MANIFEST_NAME).write_text(manifest_to_json(other))
    with pytest.raises(BundleError, match=r"manifest\.json: found SHA-256 .*, expected"):
        bundle.verify()


@every_form
def test_a_truncated_net_is_noticed_and_named(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    path = write(tmp_path / "b", {**contents, NET: contents[NET][:-1]})
    size = len(contents[NET])
    assert refusal(path) == (
        f"{WHERE}: found {size - 1} bytes in {NET}, expected {size}. "
        "The bundle is damaged: copy or export it again."
    )


@every_form
def test_a_padded_net_is_noticed_and_named(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    path = write(tmp_path / "b", {**contents, NET: contents[NET] + b"\0"})
    size = len(contents[NET])
    assert refusal(path).startswith(f"found {size + 1} bytes in {NET}, expected at most {size}. ")


@every_form
def test_an_empty_net_is_noticed_and_named(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "b", {**good_contents(), NET: b""})
    assert refusal(path).startswith(f"{WHERE}: found 0 bytes in {NET}, expected ")


@every_form
def test_a_truncated_manifest_is_refused(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    path = write(tmp_path / "b", {**contents, MANIFEST_NAME: contents[MANIFEST_NAME][:-40]})
    assert refusal(path).startswith("manifest: found ")


@every_form
def test_a_padded_manifest_is_refused(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    path = write(tmp_path / "b", {**contents, MANIFEST_NAME: contents[MANIFEST_NAME] + b"{}"})
    assert refusal(path).startswith("manifest: found 'Extra data' in line ")


@every_form
def test_a_missing_net_is_named(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    del contents[NET]
    assert refusal(write(tmp_path / "b", contents)).startswith(f"{NET} is missing. ")


@every_form
def test_a_missing_manifest_is_named(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    del contents[MANIFEST_NAME]
    assert refusal(write(tmp_path / "b", contents)).startswith("manifest.json is missing. ")


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("manifest.json is missing. ")


@pytest.mark.parametrize("name", ["nothing", "nothing.kits", "no/where"])
def test_a_bundle_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    assert refusal(tmp_path / name) == (
        "no such bundle, expected a folder with manifest.json or a .kits file. Check the path."
    )


def test_paths_that_no_system_takes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        open_bundle(tmp_path / ("x" * 5000))
    with pytest.raises(BundleError, match="cannot be opened"):
        open_bundle(tmp_path / "a\0b")
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / "file" / "deeper").startswith("cannot be opened (Not a directory)")


@every_form
def test_a_manifest_of_a_mebibyte_is_read_and_one_byte_more_is_not(
    write: Write, tmp_path: Path
) -> None:
    contents = good_contents()
    text = contents[MANIFEST_NAME].ljust(1 << 20)
    open_bundle(write(tmp_path / "b", {**contents, MANIFEST_NAME: text})).verify()
    path = write(tmp_path / "b", {**contents, MANIFEST_NAME: text + b" "})
    assert refusal(path).startswith(
        "found 1048577 bytes in manifest.json, expected at most 1048576. "
    )


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", "manifest.json: found byte 0xf6 at "),
        ("utf-16", "manifest.json: found byte 0xff at 0, expected UTF-8 text"),
        ("utf-8-sig", "manifest: found 'Unexpected UTF-8 BOM"),
    ],
)
@every_form
def test_a_manifest_that_is_not_plain_utf8_is_refused(
    write: Write, encoding: str, message: str, tmp_path: Path
) -> None:
    contents = good_contents()
    remarks = ("Größe",)
    card = dataclasses.replace(good_manifest().card, remarks=remarks)
    text = manifest_to_json(dataclasses.replace(good_manifest(), card=card))
    path = write(tmp_path / "b", {**contents, MANIFEST_NAME: text.encode(encoding)})
    assert refusal(path).startswith(message)


@every_form
def test_a_wrong_manifest_is_a_manifest_error_that_names_the_bundle(
    write: Write, tmp_path: Path
) -> None:
    path = write(tmp_path / "b", {MANIFEST_NAME: b"{}"})
    with pytest.raises(ManifestError) as caught:
        open_bundle(path)
    assert str(caught.value).startswith(f"{path}: card: missing key")


ESCAPES = (
    *("../secret", "nets/../../secret", "nets/..", "..", "/etc/hostname", "//etc/hostname"),
    *("..\\secret", "nets\\finder.onnx", "\\\\server\\share", "C:/secret", "C:secret", "c:\\x"),
    *("./nets/finder.fp32.onnx", "nets/./finder.fp32.onnx", "nets//finder.fp32.onnx", "nets/"),
    *("", ".", "/", "~/secret", "nets/finder\0.onnx", "nets/fin\nder.onnx", "nets/finder.onnx "),
    *("file:///etc/hostname", "nets/Größe.onnx", "x" * 101, "/".join("abcdefghi"), "nets/\u202ex"),
)


@pytest.mark.parametrize("inner", ESCAPES, ids=ascii)
@every_form
def test_a_path_that_is_not_plain_is_refused_on_opening(
    write: Write, inner: str, tmp_path: Path
) -> None:
    manifest = with_file(good_manifest(), path=inner)
    (tmp_path / "secret").write_bytes(net_content(NET))
    path = write(tmp_path / "b", good_contents(manifest))
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {WHERE}.path: found {shown(inner)}, expected a plain rela")
    assert message.isprintable()


@pytest.mark.parametrize("inner", ["net.onnx", "a/b/c/d/e/f/g/net-1_2.onnx", "..net", "a/...", "-"])
@every_form
def test_a_plain_path_is_taken(write: Write, inner: str, tmp_path: Path) -> None:
    contents = good_contents(with_file(good_manifest(), path=inner))
    contents[inner] = contents.pop(NET)
    assert inner in open_bundle(write(tmp_path / "b", contents)).verify()


@pytest.fixture
def linked(tmp_path: Path) -> Callable[[str, str], Path]:
    """A bundle's folder in which one name is a link."""

    def make(name: str, target: str) -> Path:
        write_folder(tmp_path / "outside", good_contents())
        folder = write_folder(tmp_path / "bundle", good_contents())
        (folder / "spare").write_bytes(net_content(NET))
        if (folder / name).is_dir():
            (folder / name).rename(tmp_path / "moved")
        else:
            (folder / name).unlink()
        (folder / name).symlink_to(target)
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "target", "noticed"),
    [
        (NET, "../../outside/nets/finder.fp32.onnx", NET),
        ("nets", "../outside/nets", "nets/finder.fp16.onnx"),
        (MANIFEST_NAME, "../outside/manifest.json", MANIFEST_NAME),
        (NET, "../..", NET),
        (NET, "..", NET),
    ],
)
def test_a_link_out_of_the_folder_is_not_followed(
    linked: Callable[[str, str], Path], name: str, target: str, noticed: str
) -> None:
    message = f"{noticed} leads outside the bundle through a link. Copy the file itself there."
    assert refusal(linked(name, target)) == message


def test_a_link_to_a_prefix_of_the_folders_name_leads_outside(tmp_path: Path) -> None:
    write_folder(tmp_path / "bundle-2", good_contents())
    folder = write_folder(tmp_path / "bundle", good_contents())
    (folder / NET).unlink()
    (folder / NET).symlink_to("../../bundle-2/" + NET)
    assert refusal(folder).startswith(f"{NET} leads outside the bundle")


def test_a_link_within_the_folder_is_followed(linked: Callable[[str, str], Path]) -> None:
    assert len(open_bundle(linked(NET, "../spare")).verify()) == 5


def test_a_linked_folder_is_a_bundle(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", good_contents())
    (tmp_path / "alias").symlink_to("real")
    assert len(open_bundle(tmp_path / "alias").verify()) == 5


@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_a_link_to_itself_is_refused(linked: Callable[[str, str], Path], name: str) -> None:
    message = refusal(linked(name, Path(name).name))
    assert message.startswith((f"{name} is a link to itself", f"{name} cannot be read (Too many"))


def test_a_link_to_nothing_is_a_missing_file(linked: Callable[[str, str], Path]) -> None:
    assert refusal(linked(NET, "nowhere")).startswith(f"{NET} is missing")


@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_a_folder_in_a_files_place_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, good_contents())
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder).startswith(f"found a folder or a device at {name}, expected a file")


@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_a_pipe_in_a_files_place_is_refused_without_waiting(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, good_contents())
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert refusal(folder).startswith(f"found a folder or a device at {name}, expected a file")


def test_a_pipe_in_the_bundles_place_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.kits")
    assert refusal(tmp_path / "b.kits").startswith("found neither a folder nor a file, expected")


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    contents = {name: c for name, c in good_contents().items() if not name.startswith("nets/")}
    folder = write_folder(tmp_path, {**contents, "nets": b""})
    assert refusal(folder).startswith("nets/finder.fp16.onnx cannot be read (Not a directory)")


def test_a_directory_entry_named_like_a_net_is_no_net(tmp_path: Path) -> None:
    contents = good_contents()
    contents[f"{NET}/"] = contents.pop(NET)
    assert refusal(write_stored(tmp_path / "b", contents)).startswith(f"{NET} is missing")


@every_form
def test_a_file_that_may_not_be_read_is_named(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "b", good_contents())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    assert refusal(path) == "manifest.json cannot be read (Permission denied). Check the file."


def test_a_place_that_may_not_be_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert refusal(tmp_path / "b").startswith("cannot be opened (Permission denied), expected")


def test_a_net_that_claims_gigabytes_is_refused_on_opening(tmp_path: Path) -> None:
    path = write_folder(tmp_path, good_contents(with_file(good_manifest(), bytes=3 << 30)))
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert f"{WHERE}.bytes: found 3221225472, expected at most 2147483648. " in str(caught.value)


@every_form
def test_a_claim_of_gigabytes_takes_no_memory(write: Write, tmp_path: Path) -> None:
    manifest = with_file(good_manifest(), bytes=2 << 30)
    path = write(tmp_path / "b", good_contents(manifest))
    assert peak_of(lambda: refusal(path)) < 1_000_000
    assert f"found {len(net_content(NET))} bytes in {NET}, expected 2147483648. " in refusal(path)


MIB = 1 << 20


def zeros_deflated(mebibytes: int) -> bytes:
    """So many MiB of zeros in a few bytes: one deflated MiB again and again."""
    packer = zlib.compressobj(9, wbits=-15)
    one = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return one * mebibytes + packer.flush()


def bomb(mebibytes: int, **headers: Any) -> Entry:
    return Entry(
        name=headers.pop("name", NET),
        packed=zeros_deflated(mebibytes),
        size=headers.pop("size", mebibytes * MIB),
        method=zipfile.ZIP_DEFLATED,
        **headers,
    )


def with_entry(entry: Entry, manifest: Manifest | None = None) -> bytes:
    others = good_contents(manifest)
    others.pop(entry.name, None)
    return zip_bytes([*(stored(name, content) for name, content in others.items()), entry])


def test_the_bomb_is_one() -> None:
    packed = zeros_deflated(64)
    assert len(packed) < 80_000
    assert zlib.decompress(packed, wbits=-15) == bytes(64 * MIB)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a net far larger than the manifest says": (
        lambda: with_entry(bomb(2047)),
        f"found 2146435072 bytes in {NET}, expected at most {len(net_content(NET))}. ",
    ),
    "a net that hides its size": (
        lambda: with_entry(bomb(2047, size=len(net_content(NET)))),
        f"{NET} cannot be unpacked (Bad CRC-32 for file '{NET}')",
    ),
    "a net that the manifest knows to be that large": (
        lambda: with_entry(bomb(1024), with_file(good_manifest(), bytes=1024 * MIB)),
        f"found {NET} packed from 1073741824 bytes into ",
    ),
    "a net that hides how well it is packed": (
        lambda: with_entry(
            bomb(1024, packed_size=512 * MIB), with_file(good_manifest(), bytes=1024 * MIB)
        ),
        f"found {NET} packed from 1073741824 bytes into ",
    ),
    "a manifest": (
        lambda: with_entry(bomb(2047, name=MANIFEST_NAME)),
        "found 2146435072 bytes in manifest.json, expected at most 1048576. ",
    ),
    "a manifest that hides its size": (
        lambda: with_entry(bomb(2047, name=MANIFEST_NAME, size=1000)),
        "manifest.json cannot be unpacked (Bad CRC-32 for file 'manifest.json')",
    ),
}


@pytest.mark.parametrize(("build", "message"), BOMBS.values(), ids=BOMBS.keys())
def test_a_zip_bomb_is_refused_in_little_memory(
    build: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "b.kits"
    path.write_bytes(build())
    assert path.stat().st_size < 3 * MIB
    assert refusal(path).startswith(message)
    assert peak_of(lambda: refusal(path)) < 2 * MIB


def test_a_net_may_be_large_and_well_packed_within_reason(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(MIB // 8) * 136
    digest = hashlib.sha256(content).hexdigest()
    manifest = with_file(good_manifest(), bytes=len(content), sha256=digest)
    contents = {**good_contents(manifest), NET: content}
    assert len(content) > 16 * MIB
    bundle = open_bundle(write_deflated(tmp_path / "b", contents))
    assert bundle.net_bytes("finder", "fp32") == content


@pytest.mark.parametrize(
    "method",
    [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 9, 93, 99],
    ids=lambda method: f"method {method}",
)
@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_a_method_that_cannot_be_unpacked_in_steps_is_refused(
    name: str, method: int, tmp_path: Path
) -> None:
    entry = dataclasses.replace(stored(name, good_contents()[name]), method=method)
    path = tmp_path / "b.kits"
    path.write_bytes(with_entry(entry))
    assert refusal(path) == (
        f"found {name} packed by zip method {method}, expected one of ['deflated', 'stored']. "
        "Pack the bundle again."
    )


@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_an_encrypted_entry_is_refused(name: str, tmp_path: Path) -> None:
    entry = dataclasses.replace(stored(name, good_contents()[name]), flags=1)
    path = tmp_path / "b.kits"
    path.write_bytes(with_entry(entry))
    assert refusal(path).startswith(f"found {name} encrypted, expected a plain zip. ")


@pytest.mark.parametrize("flag", [1 << 5, 1 << 6], ids=["patched data", "strong encryption"])
def test_flags_that_zip_readers_do_not_know_are_refused(flag: int, tmp_path: Path) -> None:
    entry = dataclasses.replace(stored(NET, net_content(NET)), flags=flag)
    path = tmp_path / "b.kits"
    path.write_bytes(with_entry(entry))
    assert refusal(path).startswith(f"{NET} cannot be unpacked (")


@pytest.mark.parametrize("name", [NET, MANIFEST_NAME])
def test_twin_entries_are_refused_even_when_both_are_right(name: str, tmp_path: Path) -> None:
    entries = [stored(inner, content) for inner, content in good_contents().items()]
    path = tmp_path / "b.kits"
    path.write_bytes(zip_bytes([*entries, stored(name, good_contents()[name])]))
    assert refusal(path).startswith(f"found {name} 2 times in the zip, expected once. ")


def test_a_name_that_hides_behind_a_null_is_a_twin(tmp_path: Path) -> None:
    entries = [stored(inner, content) for inner, content in good_contents().items()]
    path = tmp_path / "b.kits"
    path.write_bytes(zip_bytes([*entries, stored(f"{MANIFEST_NAME}\0.txt", b"{}")]))
    assert refusal(path).startswith("found manifest.json 2 times in the zip")


def test_a_link_in_a_zip_is_taken_for_its_text(tmp_path: Path) -> None:
    path = write_stored(tmp_path / "b", {**good_contents(), NET: b"/etc/hostname"})
    assert refusal(path).startswith(f"{WHERE}: found 13 bytes in {NET}, expected ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"PK\5\6" + bytes(18),
        b"hello",
        bytes(100_000),
        b"\x1f\x8b" + bytes(50),
        b"PK\3\4",
    ],
    ids=lambda content: repr(content[:8]),
)
def test_a_file_that_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "b.kits"
    path.write_bytes(content)
    start = "manifest.json cannot be unpacked (File is not a zip file), expected a .kits file"
    assert refusal(path).startswith((start, "manifest.json is missing"))


def test_a_zip_that_lost_its_end_is_refused(tmp_path: Path) -> None:
    path = write_deflated(tmp_path / "b", good_contents())
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        assert "File is not a zip file" in refusal(path)


@pytest.mark.parametrize("write", [write_stored, write_deflated])
def test_damaged_data_in_a_zip_is_named(write: Write, tmp_path: Path) -> None:
    contents = good_contents()
    path = write(tmp_path / "b", contents)
    raw = bytearray(path.read_bytes())
    raw[raw.index(contents[NET][100:110])] ^= 0xFF
    path.write_bytes(raw)
    assert refusal(path).startswith(f"{NET} cannot be unpacked (")


def test_what_zipfile_says_of_garbage_is_shortened(tmp_path: Path) -> None:
    path = write_stored(tmp_path / "b", good_contents())
    raw = bytearray(path.read_bytes())
    raw[26:28] = struct.pack("<H", 5000)  # the length of the first name in its own header
    path.write_bytes(raw)
    message = refusal(path)
    assert message.startswith("manifest.json cannot be unpacked (File name in directory 'mani")
    assert "...), expected a .kits file (a zip) or a folder. " in message


SMALL = zip_bytes([deflated(name, content) for name, content in good_contents().items()])


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    flips=st.lists(
        st.tuples(
            st.integers(0, len(SMALL) - 1) | st.integers(len(SMALL) - 400, len(SMALL) - 1),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_zip_with_any_bytes_changed_is_refused_or_gives_the_same(
    flips: list[tuple[int, int]], tmp_path: Path
) -> None:
    raw = bytearray(SMALL)
    for place, value in flips:
        raw[place] = value
    path = tmp_path / "b.kits"
    path.write_bytes(raw)
    made: Bundle | str
    try:
        made = open_bundle(path)
        made.verify()
    except BundleError as error:
        made = str(error)
    assert made.manifest == good_manifest() if isinstance(made, Bundle) else made.isprintable()


@every_form
def test_nothing_is_unpacked_or_left_behind(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(*_: object, **__: object) -> None:
        raise AssertionError("something was about to be unpacked")

    for name in ("extract", "extractall"):
        monkeypatch.setattr(zipfile.ZipFile, name, unpack)
    for name in ("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile"):
        monkeypatch.setattr(tempfile, name, unpack)
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path / "good", good_contents())
    bad = write(tmp_path / "bad", {**good_contents(), NET: b"damaged"})
    before, files = tree(tmp_path), open_files()
    open_bundle(good).verify()
    refusal(bad)
    assert tree(tmp_path) == before
    assert not open_files() - files


def test_a_precision_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    manifest = good_manifest()
    net = manifest.nets["slicer"]
    only = dataclasses.replace(net, files={"fp32": net.files["fp32"]})
    manifest = dataclasses.replace(manifest, nets={**manifest.nets, "slicer": only})
    bundle = open_bundle(write_folder(tmp_path, good_contents(manifest)))
    with pytest.raises(BundleError) as caught:
        bundle.net_bytes("slicer", "fp16")
    assert str(caught.value) == (
        f"{tmp_path}: net 'slicer' has no fp16 file, expected one of ['fp32']. "
        "Export the bundle with --precision fp16."
    )


def test_a_net_that_is_not_in_the_manifest_is_a_misuse(tmp_path: Path) -> None:
    bundle = open_bundle(write_folder(tmp_path, good_contents()))
    with pytest.raises(ValueError, match=r"found net 'seeker', expected one of \['finder', 'sli"):
        bundle.net_bytes("seeker", "fp32")


def test_a_bundle_is_frozen(tmp_path: Path) -> None:
    bundle = open_bundle(write_folder(tmp_path, good_contents()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.sha256 = ""  # type: ignore[misc]
    with pytest.raises(TypeError):
        bundle.verify()["x"] = ""  # type: ignore[index]
