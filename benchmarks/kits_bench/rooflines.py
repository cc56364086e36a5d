"""The rows of a roofline: each net of a bundle, or the sixth net, on each backend."""

from collections.abc import Callable
from typing import Any

import onnx

from kits_bench.contestants import Lineup
from kits_bench.engine_options import cached_options
from kits_bench.mlperf_shaped import InstanceUNet3dConfig
from kits_bench.roofline import Roof, measure_roof, median_run_s, roofline_facts, work_of
from kits_bench.sixth_net import NAME, REMARK, samples_per_second
from kits_bench.ways import graph_of
from kits_export.onnx_from_torch import INPUT_NAME, OUTPUT_NAME, onnx_from_net
from kits_runtime.bundle import Bundle
from kits_runtime.engines import Choice, EngineOptions, NetSpec, choose_backend, open_engine
from kits_runtime.engines.protocol import net_spec_from_manifest
from kits_runtime.errors import KitsError

Facts = dict[str, Any]


def bundle_rooflines(bundle: Bundle, lineup: Lineup, *, repeats: int) -> list[Facts]:
    """A row for each net and backend; one for a backend that cannot run."""
    nets = {}
    for name, net in bundle.manifest.nets.items():
        spec = net_spec_from_manifest(name, net)
        nets[name] = (spec, graph_of(bundle, name))
    return _rows(lineup, nets, repeats=repeats)


def sixth_rooflines(
    lineup: Lineup, *, repeats: int, config: InstanceUNet3dConfig | None = None
) -> list[Facts]:
    """The same for the sixth net, with its windows a second."""
    config = config or InstanceUNet3dConfig()
    import torch

    torch.manual_seed(6)
    model = onnx_from_net(config.build().eval(), input_shape=config.patch_shape)
    spec = NetSpec(
        name=NAME,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        in_channels=1,
        out_channels=config.classes,
        size_vox=config.window,
    )
    rows = _rows(lineup, {NAME: (spec, model)}, repeats=repeats)
    for row in rows:
        row["remark"] = REMARK
        if row["state"] == "ok":
            per_second = 1e3 / row["window_ms"]
            row["windows_per_s"] = round(per_second, 4)
            row["scans"] = dict(samples_per_second(per_second))
    return rows


def _rows(
    lineup: Lineup, nets: dict[str, tuple[NetSpec, onnx.ModelProto]], *, repeats: int
) -> list[Facts]:
    options = cached_options(precision=lineup.precision, threads=lineup.threads)
    rows: list[Facts] = []
    for backend in lineup.backends:
        try:
            choice = choose_backend(backend)
            roof = measure_roof(choice, options, repeats=repeats)
        except (KitsError, ValueError) as error:
            rows.append({"backend": backend, "state": "unrun", "why": " ".join(str(error).split())})
            continue
        for name, (spec, model) in nets.items():
            measure = _measurement(spec, model, choice, options, roof)
            rows.append({"backend": backend, "net": name, **_tried(measure, repeats)})
    return rows


def _measurement(
    spec: NetSpec, model: onnx.ModelProto, choice: Choice, options: EngineOptions, roof: Roof
) -> Callable[[int], Facts]:
    def measure(repeats: int) -> Facts:
        with open_engine(
            model.SerializeToString(), spec, backend=choice, options=options
        ) as engine:
            took_s = median_run_s(engine, repeats=repeats)
            precision = engine.spec.precision
        return roofline_facts(work_of(model), took_s=took_s, precision=precision, roof=roof)

    return measure


def _tried(measure: Callable[[int], Facts], repeats: int) -> Facts:
    try:
        return {"state": "ok", **measure(repeats)}
    except (KitsError, MemoryError) as error:
        return {"state": "failed", "why": " ".join(str(error).split())}
