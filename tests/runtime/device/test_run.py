"""A run on a stand-in for a GPU: planned, tried smaller once, with the labels of the host."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from device_arrays import METER, strict_arrays
from digital_phantom import Levels, manifest_of, nets_of, phantom
from host_device import HostDevice, engine_of
from stages import volume

from kits_runtime.arrays import Arrays
from kits_runtime.boxes import Means
from kits_runtime.cascade import CascadeResult, run_cascade
from kits_runtime.clock import Clock
from kits_runtime.device import run as device_run
from kits_runtime.device.nets import net_on_device
from kits_runtime.device.place import OnDevice, place_on
from kits_runtime.device.plan import DEFAULT_LIMIT, DevicePlan, expected_bytes, planned
from kits_runtime.device.run import Where, load_of, run_where, stage_shape, where_for
from kits_runtime.device.upload import Upload, Uploads
from kits_runtime.engines import EngineSpec, FakeEngine
from kits_runtime.engines.gpu_engine import GpuEngine
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.errors import OutOfMemoryError
from kits_runtime.infer import RunNet
from kits_runtime.manifest.schema import Manifest
from kits_trt.systems import SYSTEMS, Preset

SYSTEM = "unet3d"
MANIFEST = manifest_of(SYSTEM, "small")
SCAN = volume(phantom((17, 44, 50), (9.0, 7.6, 6.7), levels=Levels()).data, (9.0, 7.6, 6.7))


def engines_of(manifest: Manifest) -> dict[str, GpuEngine]:
    made = {}
    for name, net in manifest.nets.items():
        spec = net_spec_from_manifest(name, net)
        made[name] = engine_of(spec, nets_of(SYSTEM)[name])
    return made


def cascade(nets: Mapping[str, RunNet], means: Means) -> CascadeResult:
    return run_cascade(SCAN, MANIFEST, nets=nets, clock=Clock(), means=means)


def run(where: Where, upload: Upload | None = None) -> CascadeResult:
    return run_where(
        where,
        cascade,
        engines=engines_of(MANIFEST),
        stages=MANIFEST.stages,
        volume=SCAN,
        means=Means(),
        upload=upload,
    )


def test_a_full_device_gives_the_same_labels_by_a_smaller_plan() -> None:
    opened: list[tuple[int, int]] = []

    def arrays_on(gpu: int, limit_bytes: int) -> Arrays:
        opened.append((gpu, limit_bytes))
        if len(opened) == 1:
            raise MemoryError
        return strict_arrays()

    found = run(Where(gpu=3, limit_bytes=1 << 30, arrays_on=arrays_on))
    expected = run(Where())

    assert set(np.unique(expected.labels).tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(found.labels, expected.labels)
    room = (1 << 30) * 3 // 4 - load_of(MANIFEST.stages, SCAN, engines_of(MANIFEST)).engine_bytes
    assert opened == [(3, room), (3, room)]


def test_a_scan_that_was_uploaded_ahead_is_segmented_from_there() -> None:
    device = HostDevice()
    uploads = Uploads(device, room_bytes=1 << 30)
    stored = SCAN.orientation.to_source(SCAN.data)
    voxels = np.asfortranarray(stored).reshape(-1, order="F").view(np.uint8)
    upload = uploads.begin()
    upload.follow(voxels, len(voxels))
    opened: list[int] = []

    def arrays_on(_gpu: int, _limit: int) -> Arrays:
        opened.append(0)
        arrays = strict_arrays()

        def put(array: npt.NDArray[Any]) -> Any:
            assert array.shape not in (stored.shape, SCAN.shape) or len(opened) > 1
            return arrays.put(array)

        if len(opened) == 2:
            raise MemoryError
        return replace(arrays, put=put)

    where = Where(gpu=0, arrays_on=arrays_on)
    expected = run(Where()).labels
    np.testing.assert_array_equal(run(where, upload).labels, expected)
    # A full device: the second plan gives the scan's place up and takes parts from the host.
    np.testing.assert_array_equal(run(where, upload).labels, expected)
    assert (len(opened), upload.finish()) == (3, False)
    uploads.close()


def test_a_limit_that_is_too_small_is_said_before_anything_is_asked_of_the_device() -> None:
    def arrays_on(_gpu: int, _limit: int) -> Arrays:
        raise AssertionError

    with pytest.raises(OutOfMemoryError, match="found a limit of 1 MiB, expected at least"):
        run(Where(gpu=0, limit_bytes=1 << 20, arrays_on=arrays_on))


def test_a_stage_is_planned_by_its_grid_its_window_and_its_engines_buffers() -> None:
    stage, engines = MANIFEST.stages[0], engines_of(MANIFEST)
    shape = stage_shape(stage, SCAN, engines)
    net = engines[stage.nets[0]].spec.net
    assert shape.window == net.size_vox
    assert (shape.in_channels, shape.classes) == (net.in_channels, net.out_channels)
    held = load_of((stage,), SCAN, engines)
    assert held.engine_bytes == int(np.prod(net.size_vox)) * 4 * (1 + net.out_channels)
    assert (held.scan, held.voxel_bytes) == (SCAN.shape, 2)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("preset", ["small", "paper"])
@pytest.mark.parametrize("slices", [600, 1059, 10**6])
def test_scans_of_any_length_fit_into_two_gibibytes_beside_their_engines(
    system: str, preset: Preset, slices: int
) -> None:
    manifest = manifest_of(system, preset)
    scan = volume(np.zeros((2, 2, 2), np.int16), (0.5, 0.78, 0.78))
    longest = replace(scan, data=np.broadcast_to(scan.data[:1, :1, :1], (slices, 512, 512)))
    engines = {}
    for name, net in manifest.nets.items():
        spec = net_spec_from_manifest(name, net)
        told = EngineSpec(net=spec, backend="fake", precision="fp16", batch=1, threads=1)
        engines[name] = FakeEngine(told, lambda patches: patches)
    ahead = Where(gpu=0).ahead_bytes
    load = replace(load_of(manifest.stages, longest, engines), ahead_bytes=ahead)
    plan = planned(load)
    assert expected_bytes(load, plan) <= DEFAULT_LIMIT
    assert plan.rows_at_once >= 32
    if slices == 600:  # longer ones may come in parts
        assert plan.whole_scan


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("slices", [40, 160])
def test_a_run_keeps_within_its_plan(system: str, whole: bool, slices: int) -> None:
    """Arrays of the device are counted, what numpy needs inside a call is not."""
    manifest, functions = manifest_of(system, "small"), nets_of(system)
    scan = volume(phantom((slices, 44, 50), (3.0, 7.6, 6.7), levels=Levels()).data, (3.0, 7.6, 6.7))
    engines = {}
    for name, net in manifest.nets.items():
        engines[name] = engine_of(net_spec_from_manifest(name, net), functions[name])
    load = replace(load_of(manifest.stages, scan, engines), engine_bytes=0)
    plan = DevicePlan(rows_at_once=4, batch=2, scan_rows=8, whole_scan=whole)
    arrays = strict_arrays()
    nets = {name: net_on_device(engine, arrays) for name, engine in engines.items()}
    place = partial(place_on, OnDevice(arrays=arrays, plan=plan))

    METER.begin()
    before = METER.now
    run_cascade(scan, manifest, nets=nets, clock=Clock(), means=Means(place=place))

    assert 0 < METER.most - before <= expected_bytes(load, plan)
    assert METER.now == before


def test_arrays_stay_on_the_host_unless_cupy_is_there_and_all_nets_run_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engines = engines_of(MANIFEST)
    spec: EngineSpec = replace(next(iter(engines.values())).spec)
    on_host = FakeEngine(spec, lambda patches: patches)
    monkeypatch.setattr(device_run, "has_cupy", lambda: False)
    assert where_for(engines, 1, 5).gpu is None
    monkeypatch.setattr(device_run, "has_cupy", lambda: True)
    assert where_for(engines, 1, 5) == Where(gpu=1, limit_bytes=5)
    assert where_for({**engines, "other": on_host}, 1, 5).gpu is None
