"""Makes, on a machine without a GPU, what a check needs: bundles, the sixth net's graphs, cases.

The machine with the GPU then needs neither onnxscript nor a network. Cases are optional: they are
made there from their numbers where they were not carried along.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import torch

from kits_bench.bundles import seeded_bundle
from kits_bench.case_files import cases_named
from kits_bench.gpu_check.subjects import prepared_path, sixth_net_path
from kits_bench.mlperf_shaped import InstanceUNet3dConfig
from kits_export.half_graph import half_from_float
from kits_export.onnx_from_torch import onnx_from_net
from kits_export.write_bundle import NetContent, write_bundle
from kits_runtime.bundle import open_bundle
from kits_runtime.errors import UsageError
from kits_trt.systems import SYSTEMS

Told = Callable[[str], None]

PIECE = "kits-gpu.tar"
SUMS = "SHA256SUMS"
_MIB = 1 << 20


def prepare(
    out: Path,
    systems: Sequence[str] | None,
    cases: Sequence[str] | None,
    *,
    part_mb: int | None,
    told: Told,
) -> None:
    """Fills a folder; what is there already stays. With ``part_mb`` it is also packed into pieces.

    Raises:
        UsageError: a system is not SYSTEM:PRESET.
    """
    out.mkdir(parents=True, exist_ok=True)
    for system in systems or [f"{name}:paper" for name in SYSTEMS]:
        prepare_bundle(system, out, told)
    if not systems:
        prepare_sixth_net(InstanceUNet3dConfig(), out)
        told("the sixth net: done")
    for name in cases or ():
        cases_named(name, out, told)
    if part_mb is not None:
        pieces = pack(out, out.with_name(out.name + "-pieces"), most_bytes=part_mb * _MIB)
        told(f"{len(pieces)} pieces in {pieces[0].parent}; there: cat {PIECE}.* | tar x")


def prepare_bundle(system: str, out: Path, told: Told) -> Path:
    """A bundle of seeded weights with the nets in both precisions."""
    name, _, preset = system.partition(":")
    if name not in SYSTEMS or preset not in ("paper", "small"):
        raise UsageError(
            f"--systems: found {system!r}, expected SYSTEM:PRESET with one of "
            f"{', '.join(SYSTEMS)} and paper or small; name such ones"
        )
    target = prepared_path(name, preset, out)
    if (target / "manifest.json").is_file():
        told(f"{system}: is there already")
        return target
    plain = seeded_bundle(name, preset, out)  # type: ignore[arg-type]
    add_half(plain, target)
    shutil.rmtree(plain)
    told(f"{system}: done")
    return target


def add_half(plain: Path, target: Path) -> None:
    """Writes a float32 bundle of a system again, with FP16-typed graphs beside its own."""
    bundle = open_bundle(plain)
    manifest = bundle.manifest
    contents = {}
    for name in manifest.nets:
        exact = bundle.net_bytes(name, "fp32")
        half = half_from_float(onnx.load_from_string(exact)).model
        contents[name] = {
            "fp32": NetContent(onnx=exact, tensors="float32", weights="float32"),
            "fp16": NetContent(
                onnx=half.SerializeToString(deterministic=True),
                tensors="float16",
                weights="float16",
            ),
        }
    write_bundle(
        target,
        SYSTEMS[manifest.system](manifest.preset),  # type: ignore[arg-type]
        contents,  # type: ignore[arg-type]
        parity=(),
        provenance=manifest.provenance,
        card=manifest.card,
    )


def prepare_sixth_net(config: InstanceUNet3dConfig, out: Path) -> None:
    """The sixth net's graphs in both precisions."""
    torch.manual_seed(6)
    exact = onnx_from_net(config.build().eval(), input_shape=config.patch_shape)
    for precision, model in (("fp32", exact), ("fp16", half_from_float(exact).model)):
        path = sixth_net_path(precision, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def pack(folder: Path, pieces: Path, *, most_bytes: int) -> list[Path]:
    """A folder as one tar file in pieces of at most so many bytes, with their sums beside them.

    Raises:
        UsageError: the folder of pieces has something in it.
    """
    pieces.mkdir(parents=True, exist_ok=True)
    if any(pieces.iterdir()):
        raise UsageError(f"{pieces}: found files, expected an empty folder; remove it")
    whole = pieces / PIECE
    with tarfile.open(whole, "w") as archive:
        archive.add(folder, arcname=folder.name)
    made: list[Path] = []
    with whole.open("rb") as stream:
        while content := stream.read(most_bytes):
            made.append(_piece(pieces / f"{PIECE}.{len(made):03d}", content))
    whole.unlink()
    lines = [f"{_sha256(path.open('rb'))}  {path.name}\n" for path in made]
    (pieces / SUMS).write_text("".join(lines), encoding="ascii")
    return made


def _piece(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _sha256(stream: BinaryIO) -> str:
    with stream:
        return hashlib.sha256(stream.read()).hexdigest()
