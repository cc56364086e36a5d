"""The device's path gives what the host's gives, on arrays that never leave the device unasked."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from compiled_kernels import compiled_launch, compiler
from device_arrays import get, put, strict_arrays
from digital_phantom import Levels, manifest_of, nets_of, phantom
from host_device import engine_of
from hypothesis import given
from hypothesis import strategies as st
from stages import unhurried, volume

from kits_runtime.boxes import Means
from kits_runtime.cascade import CascadeResult, run_cascade
from kits_runtime.clock import Clock
from kits_runtime.decide import surely
from kits_runtime.device.labels import DeviceWayBack
from kits_runtime.device.nets import net_on_device
from kits_runtime.device.place import OnDevice, place_on
from kits_runtime.device.plan import DevicePlan
from kits_runtime.engines import NetSpec
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.errors import EngineError
from kits_runtime.grid import box_of, grid_over
from kits_runtime.infer import RunNet, Slab
from kits_runtime.kernels.launching import Launch
from kits_runtime.kernels.twins import launch_twin
from kits_runtime.manifest.schema import Argmax, Decide, Resample, Threshold
from kits_runtime.place import HostPlace, LabelsOf
from kits_runtime.wayback import Sure
from kits_trt.systems import SYSTEMS

Array = npt.NDArray[np.float32]
lengths = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**32 - 1)


PLAN = DevicePlan(rows_at_once=5, batch=3, scan_rows=6)


def on_device(
    system: str, scan: Any, plan: DevicePlan = PLAN, launch: Launch = launch_twin
) -> CascadeResult:
    manifest, arrays = manifest_of(system, "small"), strict_arrays(launch)
    functions = nets_of(system)
    nets = {}
    for name, net in manifest.nets.items():
        spec = net_spec_from_manifest(name, net)
        nets[name] = net_on_device(engine_of(spec, functions[name]), arrays)
    place = partial(place_on, OnDevice(arrays=arrays, plan=plan))
    return run_cascade(scan, manifest, nets=nets, clock=Clock(), means=Means(place=place))


@pytest.fixture(
    params=[
        "twins",
        pytest.param("sources", marks=pytest.mark.skipif(compiler() is None, reason="no compiler")),
    ]
)
def launch(request: pytest.FixtureRequest) -> Launch:
    """The kernels' twins, or their sources compiled for the processor."""
    return launch_twin if request.param == "twins" else compiled_launch()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("whole", [True, False])
def test_every_system_makes_the_same_mask_on_a_device(
    system: str, whole: bool, launch: Launch
) -> None:
    noise = np.random.default_rng(5).integers(-45, 46, (17, 44, 50)).astype(np.int16)
    data = phantom((17, 44, 50), (9.0, 7.6, 6.7), levels=Levels()).data + noise
    scan = volume(data, (9.0, 7.6, 6.7))
    manifest = manifest_of(system, "small")

    host = run_cascade(scan, manifest, nets=one_at_a_time(system), clock=Clock())
    device = on_device(system, scan, replace(PLAN, whole_scan=whole), launch)

    assert len(np.unique(host.labels)) > 1
    np.testing.assert_array_equal(device.labels, host.labels)
    for name, outcome in host.outcomes.items():
        np.testing.assert_array_equal(device.outcomes[name].placed, outcome.placed)
    assert device.labels.dtype == np.uint8


def one_at_a_time(system: str) -> dict[str, RunNet]:
    """The phantom's nets asked for each window alone: some of them look at all they are given."""

    def alone(net: RunNet) -> RunNet:
        return lambda patches: np.concatenate([net(patch[None]) for patch in patches])

    return {name: alone(net) for name, net in nets_of(system).items()}


@unhurried
@given(
    model=lengths,
    scan=lengths,
    seed=seeds,
    decide=st.sampled_from([Argmax(labels=(0, 1, 2)), Threshold(at_least=1.2, labels=(1, 2))]),
    cut=st.integers(1, 9),
    rows_at_once=st.integers(1, 4),
)
def test_slices_written_together_are_those_written_one_by_one(
    model: tuple[int, int, int],
    scan: tuple[int, int, int],
    seed: int,
    decide: Decide,
    cut: int,
    rows_at_once: int,
) -> None:
    step = Resample(spacing_mm=(None, None, None), size_vox=model, interpolation="linear")
    grid = grid_over(scan, (1.0, 1.0, 1.0), step)
    box = box_of(model)
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((len(decide.labels), *model)).astype(np.float32)
    if isinstance(decide, Argmax):
        scores[0] += 1.5

    def labels(kind: Any, wrap: Callable[[Array], Any]) -> tuple[Any, Any, Any]:
        placed, on_scan = np.zeros(model, np.uint8), np.zeros(scan, np.uint8)
        sure = Sure(decide=surely(decide, 1.4), placed=np.zeros(model, np.uint8))
        given = LabelsOf(
            grid=grid, box=box, decide=decide, placed=placed, on_scan=on_scan, sure=sure
        )
        back = kind(given)
        for start in range(0, model[0], cut):
            part = scores[:, start : start + cut].copy()
            empty = start == cut  # the second slab is one that nobody was asked about
            back.push(Slab(depth=part.shape[1], scores=None if empty else wrap(part)))
        return placed, on_scan, sure.placed

    there = partial(DeviceWayBack, arrays=strict_arrays(), rows_at_once=rows_at_once)
    here = HostPlace(volume=volume(np.zeros((2, 2, 2), np.int16)), threads=1).way_back
    for found, expected in zip(labels(there, put), labels(here, lambda part: part), strict=True):
        np.testing.assert_array_equal(found, expected)


NET = NetSpec(
    name="tiny",
    input_name="patches",
    output_name="scores",
    in_channels=1,
    out_channels=1,
    size_vox=(2, 2),
)


def test_a_net_on_the_device_refuses_what_does_not_fit_and_what_is_not_finite() -> None:
    ask = net_on_device(engine_of(NET, lambda patches: patches, (2, 1)), strict_arrays())
    patches = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    np.testing.assert_array_equal(get(ask(put(patches))), patches)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"are \(3, 1, 2, 1\), expected \(3, 1, 2, 2\)"):
        ask(put(patches[..., :1]))  # type: ignore[arg-type]
    patches[2, 0, 1, 1] = np.nan
    with pytest.raises(EngineError, match="net tiny on fake in fp32: found scores that are not"):
        ask(put(patches))  # type: ignore[arg-type]


def test_the_stand_in_for_a_device_lets_no_array_through() -> None:
    """What the tests above rest on."""
    device, host = put(np.ones(3, np.float32)), np.ones(3, np.float32)
    attempts: list[Callable[[], object]] = [
        lambda: device + host,
        lambda: host + device,
        lambda: np.asarray(device),
        lambda: device[np.array([0])],
        lambda: strict_arrays().xp.maximum(device, host),
    ]
    for attempt in attempts:
        with pytest.raises(TypeError):
            attempt()
    with pytest.raises(AssertionError, match="overlap"):
        device[:2] = device[1:]
