"""A run on a stand-in for a GPU: planned, tried smaller once, with the labels of the host."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from device_arrays import strict_arrays
from digital_phantom import Levels, manifest_of, nets_of, phantom
from host_device import engine_of
from stages import volume

from kits_runtime import device_run
from kits_runtime.arrays import Arrays
from kits_runtime.cascade import CascadeResult, Means, run_cascade
from kits_runtime.clock import Clock
from kits_runtime.device_plan import planned
from kits_runtime.device_run import Where, run_where, stage_shape, where_for
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


def run(where: Where) -> CascadeResult:
    return run_where(
        where,
        cascade,
        engines=engines_of(MANIFEST),
        stages=MANIFEST.stages,
        volume=SCAN,
        means=Means(),
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
    assert opened == [(3, 1 << 30), (3, 1 << 30)]


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
    assert shape.engine_bytes == int(np.prod(net.size_vox)) * 4 * (1 + net.out_channels)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("preset", ["small", "paper"])
def test_the_longest_scan_of_kits_fits_into_two_gibibytes_beside_its_engines(
    system: str, preset: Preset
) -> None:
    manifest = manifest_of(system, preset)
    scan = volume(np.zeros((2, 2, 2), np.int16), (0.5, 0.78, 0.78))
    longest = replace(scan, data=np.broadcast_to(scan.data[:1, :1, :1], (1059, 512, 512)))
    engines = {}
    for name, net in manifest.nets.items():
        spec = net_spec_from_manifest(name, net)
        told = EngineSpec(net=spec, backend="fake", precision="fp16", batch=1, threads=1)
        engines[name] = FakeEngine(told, lambda patches: patches)
    shapes = [stage_shape(stage, longest, engines) for stage in manifest.stages]
    plan = planned(longest.shape, shapes)
    assert plan.rows_at_once >= 32
    assert plan.expected_bytes > 2 * 1059 * 512 * 512


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
