"""The bundles and cases that a check measures, from what was carried along or made here."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kits_bench.case_files import BenchCase, cases_named, phantom_case
from kits_bench.gpu_check.plan import Settings
from kits_bench.seeded import seeded_path
from kits_bench.shapes import CaseShape
from kits_bench.sixth_net import NAME, WINDOW_VOX
from kits_runtime.bundle import Bundle, open_bundle
from kits_runtime.engines import NetSpec
from kits_runtime.engines.protocol import Array, net_spec_from_manifest
from kits_runtime.errors import BundleError
from kits_runtime.segmenter import default_bundle_path

DRY_CASE = "dry"
DRY_SHAPE = CaseShape(name="dry_00012", number=9000, size=(12, 48, 48), spacing_mm=(10, 8, 8))
DRY_WINDOW_VOX = (4, 8, 8)
SIXTH_NETS = "nets"


def short_name(system: str) -> str:
    """A system's name as ids and files have it."""
    path = Path(system)
    return path.name.partition(".")[0] if path.exists() else system.replace(":", "-")


def bundle_of(system: str, settings: Settings) -> Bundle:
    """The bundle of 'SYSTEM:PRESET', 'default', or a path.

    Raises:
        BundleError: a seeded bundle was not carried along and cannot be made here.
    """
    if system == "default":
        return open_bundle(default_bundle_path())
    name, _, preset = system.partition(":")
    if not preset or Path(system).exists():
        return open_bundle(Path(system))
    found = prepared_path(name, preset, Path(settings.cache))
    if not (found / "manifest.json").is_file():
        raise BundleError(
            f"{found}: found no bundle, expected one that was prepared; call "
            "scripts/gpu_check.sh --prepare where torch, onnx and onnxscript are, and carry its "
            "folder here as --cache"
        )
    return open_bundle(found)


def prepared_path(system: str, preset: str, cache: Path) -> Path:
    """Where a bundle of seeded weights in both precisions lies."""
    plain = seeded_path(system, preset, cache)
    return plain.with_name(plain.name + "-both")


def sixth_net_path(precision: str, cache: Path) -> Path:
    """Where the sixth net's graph lies."""
    return cache / SIXTH_NETS / f"sixth.{precision}.onnx"


def sixth_spec(settings: Settings) -> NetSpec:
    """The sixth net's contract; a dry run has small windows."""
    return NetSpec(
        name=NAME,
        input_name="patches",
        output_name="scores",
        in_channels=1,
        out_channels=3,
        size_vox=DRY_WINDOW_VOX if settings.dry else WINDOW_VOX,
    )


def case_of(name: str, settings: Settings) -> BenchCase:
    """One case by its number; made here, once, where it was not carried along."""
    cache = Path(settings.cache)
    if name == DRY_CASE:
        return phantom_case(DRY_SHAPE, cache, _ignore)
    return cases_named(name, cache, _ignore)[0]


def net_specs(bundle: Bundle) -> Iterator[NetSpec]:
    """The contracts of a bundle's nets."""
    for name, net in bundle.manifest.nets.items():
        yield net_spec_from_manifest(name, net)


def net_bytes(bundle: Bundle, name: str, precision: str) -> bytes:
    """A net's graph in a precision, or in the one that there is."""
    files = bundle.manifest.nets[name].files
    wanted = precision if precision in files else next(iter(files))
    return bundle.net_bytes(name, wanted)  # type: ignore[arg-type]


def seeded_windows(spec: NetSpec, count: int) -> Array:
    """Windows of noise, the same wherever they are drawn."""
    return np.random.default_rng(11).random(spec.input_shape(count), np.float32)


def _ignore(_text: str) -> None:
    pass
