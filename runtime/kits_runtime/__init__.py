"""Runs bundles on CT scans, without torch.

>>> from kits_runtime import Segmenter, read_scan, write_labels
>>> scan = read_scan("scan.nii.gz")
>>> with Segmenter.from_bundle() as segmenter:
...     result = segmenter.segment(scan.volume)
>>> write_labels("mask.nii.gz", result.model_labels, like=scan)

A name's module is imported when the name is first asked for, so that a command can say how it ends
before the array libraries are there, and no use pays for another's.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from kits_runtime.bundle import Bundle, open_bundle
    from kits_runtime.engines import EngineOptions
    from kits_runtime.errors import (
        BackendUnavailableError,
        BundleError,
        EngineError,
        EngineIncompatibleError,
        KitsError,
        ManifestError,
        OutOfMemoryError,
        ParityError,
        ScanError,
        UsageError,
    )
    from kits_runtime.nifti import Scan, read_scan, write_labels
    from kits_runtime.record import RunRecord
    from kits_runtime.segmenter import Segmentation, Segmenter
    from kits_runtime.volume import Volume, volume_from_array
else:
    _PLACES = {
        "bundle": ("Bundle", "open_bundle"),
        "engines": ("EngineOptions",),
        "errors": (
            "BackendUnavailableError",
            "BundleError",
            "EngineError",
            "EngineIncompatibleError",
            "KitsError",
            "ManifestError",
            "OutOfMemoryError",
            "ParityError",
            "ScanError",
            "UsageError",
        ),
        "nifti": ("Scan", "read_scan", "write_labels"),
        "record": ("RunRecord",),
        "segmenter": ("Segmentation", "Segmenter"),
        "volume": ("Volume", "volume_from_array"),
    }
    _PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}

    def __getattr__(name):  # noqa: ANN001, ANN202 - type checkers read the imports above
        """A public name, from its module."""
        if name not in _PLACE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_PLACE_OF[name]}"), name)
        globals()[name] = value
        return value

    def __dir__():  # noqa: ANN202
        """The public names, those included that nobody asked for yet."""
        return sorted({*globals(), *_PLACE_OF})


__all__ = [
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
