"""The names that users of the runtime may rely on; a change here is a change for them."""

from types import ModuleType

import pytest

import kits_runtime

PUBLIC_NAMES = [
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "EngineError",
    "EngineIncompatibleError",
    "EngineOptions",
    "KitsError",
    "ManifestError",
    "OutOfMemoryError",
    "ParityError",
    "RunRecord",
    "Scan",
    "ScanError",
    "Segmentation",
    "Segmenter",
    "UsageError",
    "Volume",
    "open_bundle",
    "read_scan",
    "volume_from_array",
    "write_labels",
]


def test_runtime_declares_exactly_the_pinned_names() -> None:
    assert sorted(kits_runtime.__all__) == sorted(PUBLIC_NAMES)


def test_every_pinned_name_is_there() -> None:
    assert [name for name in PUBLIC_NAMES if not hasattr(kits_runtime, name)] == []


def test_runtime_shows_no_name_beyond_the_pinned_ones() -> None:
    shown = {
        name
        for name, value in vars(kits_runtime).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert shown <= set(PUBLIC_NAMES)


def test_every_pinned_name_is_listed_before_anyone_asks_for_it() -> None:
    assert set(PUBLIC_NAMES) <= set(dir(kits_runtime))


def test_another_name_is_refused_as_modules_do() -> None:
    with pytest.raises(AttributeError, match="'kits_runtime' has no attribute 'read_scans'"):
        _ = kits_runtime.read_scans  # type: ignore[attr-defined]
