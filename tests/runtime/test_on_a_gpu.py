"""What only a GPU can show; skipped without one."""

from functools import partial

import nets
import numpy as np
import pytest
from digital_phantom import Levels, manifest_of, nets_of, phantom
from stages import volume

from kits_bench.gpu_check.kernels import kernel_facts
from kits_runtime.arrays import cupy_arrays
from kits_runtime.boxes import Means
from kits_runtime.cascade import run_cascade
from kits_runtime.clock import Clock
from kits_runtime.device.place import OnDevice, place_on
from kits_runtime.device.plan import DevicePlan
from kits_runtime.device.run import has_cupy
from kits_runtime.engines import BACKENDS, EngineOptions, NetSpec, open_engine
from kits_runtime.engines.cuda_driver import visible_gpus
from kits_runtime.engines.cuda_memory import CudaDevice
from kits_runtime.infer import RunNet
from kits_trt.systems import SYSTEMS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not visible_gpus().devices, reason="no NVIDIA GPU"),
]
NET = NetSpec(
    name="tiny",
    input_name=nets.INPUT,
    output_name=nets.OUTPUT,
    in_channels=2,
    out_channels=3,
    size_vox=(8, 8, 8),
)


def test_bytes_survive_the_way_to_the_device_and_back() -> None:
    device = CudaDevice()
    sent, got = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    with device.current():
        first, second = device.allocate(sent.nbytes), device.allocate(sent.nbytes)
        device.upload(first, sent)
        device.wait()
        graph = device.recorded(lambda: device.copy(second, first, sent.nbytes))
        device.launch(graph)
        device.download(got, second)
        device.wait()
    device.close()
    np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize("backend", [row.name for row in BACKENDS if row.on_gpu])
def test_each_backend_computes_what_the_processor_does(backend: str) -> None:
    row = next(row for row in BACKENDS if row.name == backend)
    why = row.why_not()
    if why is not None:
        pytest.skip(why)
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((3, 2, 3, 3, 3)).astype(np.float32)
    model = nets.conv_softmax_net(weights, np.zeros(3, np.float32), size=NET.size_vox)
    patches = rng.standard_normal(NET.input_shape(7)).astype(np.float32)
    options = EngineOptions(batch=4, precision="fp32")
    with (
        open_engine(model, NET, backend=backend, options=options) as gpu,
        open_engine(model, NET, backend="ort-cpu") as processor,
    ):
        found = gpu.run(patches)
        assert gpu.spec.notes == ()
        # Sums of 54 products of numbers near 1 in another order keep five digits.
        np.testing.assert_allclose(found, processor.run(patches), atol=1e-5)


@pytest.mark.skipif(not has_cupy(), reason="cupy is not installed")
def test_each_kernel_gives_its_twin_s_bits() -> None:
    facts = kernel_facts(cupy_arrays(0, 2 << 30), repeats=1, dry=False)
    assert len(facts) == 4


@pytest.mark.skipif(not has_cupy(), reason="cupy is not installed")
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("whole", [True, False])
def test_every_system_makes_the_same_mask_with_cupy(system: str, whole: bool) -> None:
    noise = np.random.default_rng(5).integers(-45, 46, (17, 44, 50)).astype(np.int16)
    data = phantom((17, 44, 50), (9.0, 7.6, 6.7), levels=Levels()).data + noise
    scan, manifest = volume(data, (9.0, 7.6, 6.7)), manifest_of(system, "small")
    arrays = cupy_arrays(0, 2 << 30)
    plan = DevicePlan(rows_at_once=5, batch=3, scan_rows=6, whole_scan=whole)

    def beside(net: RunNet) -> RunNet:
        return lambda patches: arrays.put(net(arrays.get(patches)))

    functions = nets_of(system)
    host = run_cascade(scan, manifest, nets=functions, clock=Clock())
    device = run_cascade(
        scan,
        manifest,
        nets={name: beside(net) for name, net in functions.items()},
        clock=Clock(),
        means=Means(place=partial(place_on, OnDevice(arrays=arrays, plan=plan))),
    )
    if system in ("cascaded-vnet", "multistage25d", "resunet-msvnet"):
        # Their statistics are float64 sums in the device's order, so float32 values may differ in
        # the last bit and a voxel in a hundred thousand may change sides.
        assert np.count_nonzero(device.labels != host.labels) <= 1e-5 * host.labels.size + 1
    else:
        np.testing.assert_array_equal(device.labels, host.labels)
