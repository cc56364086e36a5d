"""Runs bundles on CT scans, without torch.

>>> from kits_runtime import Segmenter, read_scan, write_labels
>>> scan = read_scan("scan.nii.gz")
>>> with Segmenter.from_bundle() as segmenter:
...     result = segmenter.segment(scan.volume)
>>> write_labels("mask.nii.gz", result.model_labels, like=scan)
"""

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
