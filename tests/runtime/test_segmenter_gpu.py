"""The whole way from a bundle to a record with GPU engines in host memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from bundles import phantom, write_scan
from device_arrays import strict_arrays
from host_device import HostDevice, open_like_cuda, open_like_tensorrt

from kits_runtime import EngineOptions, Segmenter, segmenter, volume_from_array
from kits_runtime.arrays import Arrays
from kits_runtime.bundle import Bundle, open_bundle
from kits_runtime.cases import Case
from kits_runtime.cohort import run_cohort
from kits_runtime.device.run import NO_CUPY, Where
from kits_runtime.engines import NetSpec, choose
from kits_runtime.engines.protocol import Engine, Precision
from kits_runtime.pipeline import job_for
from kits_runtime.segmenter import GpuUse

OPENERS: Mapping[str, Callable[..., Engine]] = {
    "ort-cuda": open_like_cuda,
    "trt": open_like_tensorrt,
}


@pytest.fixture(params=OPENERS)
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[EngineOptions]:
    """A machine whose one backend is on a GPU; the options of each net that it opens."""
    seen: list[EngineOptions] = []

    def opener(model: Any, net: NetSpec, options: EngineOptions) -> Engine:
        seen.append(options)
        return OPENERS[request.param](model, net, replace(options, precision="fp32"))

    row = next(row for row in choose.BACKENDS if row.name == request.param)
    others = (other for other in choose.BACKENDS if not other.on_gpu)
    rows = (replace(row, why_not=lambda: None, open=opener), *others)
    monkeypatch.setattr(choose, "BACKENDS", rows)
    return seen


@pytest.mark.parametrize("device", ["host", "device"])
def test_a_gpu_gives_the_labels_of_the_processor(
    two_stages: Path,
    asked: list[EngineOptions],
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if device == "device":
        there = Where(
            gpu=0,
            arrays_on=lambda _gpu, _limit: strict_arrays(),
            device_of=lambda _gpu: HostDevice(),
        )
        monkeypatch.setattr(segmenter, "where_for", lambda *_: there)
    made = phantom()
    scan = volume_from_array(made.data, made.affine)
    options = EngineOptions(engine_cache=tmp_path / "engines")
    with Segmenter.from_bundle(two_stages, options=options, gpu=GpuUse(device="cuda")) as gpu:
        found = gpu.segment(scan)
        again = gpu.segment(scan)
    monkeypatch.undo()
    with Segmenter.from_bundle(two_stages, backend="ort-cpu") as processor:
        expected = processor.segment(scan)

    assert found.labels.any()
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(again.labels, expected.labels)
    assert found.record.windows == expected.record.windows
    assert (NO_CUPY in found.record.warnings) == (device == "host")
    assert asked


@pytest.mark.parametrize(("wanted", "file"), [("auto", "fp16"), ("fp16", "fp16"), ("fp32", "auto")])
def test_a_gpu_takes_the_half_precision_file_unless_fp32_is_asked_for(
    one_stage: Path,
    asked: list[EngineOptions],
    wanted: Precision,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = open_bundle(one_stage)
    nets = {
        name: replace(net, files={**net.files, "fp16": net.files["fp32"]})
        for name, net in bundle.manifest.nets.items()
    }
    read: list[str] = []

    def net_bytes(self: Bundle, name: str, precision: str) -> bytes:
        read.append(precision)
        return original(self, name, "fp32")

    original = Bundle.net_bytes
    monkeypatch.setattr(Bundle, "net_bytes", net_bytes)
    both = replace(bundle, manifest=replace(bundle.manifest, nets=nets))
    options = EngineOptions(precision=wanted)
    with Segmenter(both, options=options, gpu=GpuUse(device="cuda")):
        pass
    assert set(read) == {"fp32" if wanted == "fp32" else "fp16"}
    assert {options.precision for options in asked} == {wanted if file == "auto" else file}


def test_a_cohort_s_scans_are_uploaded_while_they_are_read(
    one_stage: Path,
    asked: list[EngineOptions],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    device, whole = HostDevice(), phantom().data.size

    def arrays_on(_gpu: int, _limit: int) -> Arrays:
        arrays = strict_arrays()

        def put(array: npt.NDArray[Any]) -> Any:
            assert array.size != whole, "a scan was uploaded again"
            return arrays.put(array)

        return replace(arrays, put=put)

    there = Where(gpu=0, arrays_on=arrays_on, device_of=lambda _gpu: device)
    monkeypatch.setattr(segmenter, "where_for", lambda *_: there)
    masks = {}
    for name, gpu in (("gpu", True), ("processor", False)):
        folder = tmp_path / name
        folder.mkdir()
        cases = [Case(name=side, scan=tmp_path / f"{side}.nii.gz") for side in ("left", "right")]
        for case in cases:
            write_scan(case.scan, phantom(tumour_on=case.name))  # type: ignore[arg-type]
        jobs = [job_for(case, folder, with_picture=False) for case in cases]
        if not gpu:
            monkeypatch.undo()
        use = GpuUse(device="cuda" if gpu else "cpu")
        backend = "auto" if gpu else "ort-cpu"
        with Segmenter.from_bundle(one_stage, backend=backend, gpu=use) as opened:
            done = run_cohort(
                opened, jobs, progress=lambda *_: None, finished=lambda _outcome: None
            )
        assert [outcome.error for outcome in done] == [None, None]
        masks[name] = [nib.load(job.mask).get_fdata() for job in jobs]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(masks["gpu"], masks["processor"])
    assert device.closed == 1
