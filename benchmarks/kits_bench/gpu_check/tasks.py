"""What an item can be: one function a task, each from settings and arguments to facts."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kits_bench.engine_options import batch_for, cached_options
from kits_bench.gpu_check.environment import environment
from kits_bench.gpu_check.plan import Facts, Interpreter, Settings
from kits_bench.gpu_check.subjects import (
    bundle_of,
    case_of,
    net_bytes,
    net_specs,
    seeded_windows,
    short_name,
    sixth_net_path,
    sixth_spec,
)
from kits_bench.sixth_net import REMARK, samples_per_second
from kits_runtime.engines import NetSpec, choose_backend, open_engine
from kits_runtime.engines.engine_cache import EngineCache, cache_folder
from kits_runtime.errors import BundleError, EngineError
from kits_runtime.files import replacing
from kits_runtime.nifti import read_scan
from kits_runtime.segmenter import Segmenter

Arguments = Mapping[str, Any]
Task = Callable[[Settings, Interpreter, Arguments], Facts]

REFERENCE = "ort-cpu"


def _environment(_settings: Settings, _interpreter: Interpreter, _arguments: Arguments) -> Facts:
    return environment()


def _engines(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """Seconds from a system to open engines, then again from the cache, and what was kept."""
    cache = EngineCache(folder=cache_folder(os.environ))
    before = {entry.path.name for entry in cache.entries()}
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with _segmenter(settings, arguments) as segmenter:
            seconds.append(round(time.perf_counter() - start, 3))
            precision = segmenter.backend.precision
    kept = [entry for entry in cache.entries() if entry.path.name not in before]
    return {
        "first_open_s": seconds[0],
        "second_open_s": seconds[1],
        "precision": precision,
        "built": [
            {"net": entry.key.net, "bytes": entry.size, **dict(entry.facts)} for entry in kept
        ],
    }


def _segmenter(settings: Settings, arguments: Arguments) -> Segmenter:
    options = cached_options(precision=arguments["precision"])
    bundle = bundle_of(arguments["system"], settings)
    return Segmenter(bundle, backend=arguments["backend"], options=options)


def _parity_path(settings: Settings, arguments: Arguments) -> Path:
    name = f"{short_name(arguments['system'])}-{arguments['case']}.npz"
    return settings.folder / "parity" / name


def _reference(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """Keeps the reference's scores of noise and its mask, which others are compared with."""
    found = _answers(settings, {**arguments, "backend": REFERENCE, "precision": "fp32"})
    bundle = bundle_of(arguments["system"], settings)
    path = _parity_path(settings, arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        np.savez(stream, bundle=np.array(bundle.sha256), **found)
    return {"foreground_voxels": int((found["mask"] > 0).sum())}


def _parity(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """The largest difference of scores on noise, and the share of the mask that differs."""
    from kits_bench.latency import disagreement

    choose_backend(arguments["backend"])  # says so before anything is read
    path = _parity_path(settings, arguments)
    bundle = bundle_of(arguments["system"], settings)
    if not path.is_file():
        raise BundleError(f"{path}: found no reference, expected one; see why its item failed")
    with np.load(path) as kept:
        expected = {name: kept[name] for name in kept.files}
    if str(expected.pop("bundle")) != bundle.sha256:
        raise BundleError(f"{path}: found the reference of another bundle; remove it, run again")
    found = _answers(settings, arguments)
    scores = {
        name.removeprefix("scores_"): _difference(found[name], expected[name])
        for name in expected
        if name != "mask"
    }
    return {
        "with": f"{REFERENCE} fp32",
        "scores": scores,
        "masks": disagreement(found["mask"], expected["mask"]),
    }


def _answers(settings: Settings, arguments: Arguments) -> dict[str, Any]:
    bundle = bundle_of(arguments["system"], settings)
    volume = read_scan(case_of(arguments["case"], settings).scan).volume
    found: dict[str, Any] = {}
    for spec in net_specs(bundle):
        with _engine(bundle, spec, arguments) as engine:
            found[f"scores_{spec.name}"] = engine.run(seeded_windows(spec, 1))
    with _segmenter(settings, arguments) as segmenter:
        found["mask"] = segmenter.segment(volume).model_labels
    return found


def _difference(found: Any, expected: Any) -> Facts:  # noqa: ANN401 - arrays
    if not np.isfinite(found).all():
        raise EngineError("scores: found values that are not finite, expected finite ones")
    apart = np.abs(found - expected)
    return {"largest": float(apart.max()), "mean": float(apart.mean())}


def _engine(bundle: Any, spec: NetSpec, arguments: Arguments) -> Any:  # noqa: ANN401
    precision = arguments["precision"]
    choice = choose_backend(arguments["backend"])
    options = replace(cached_options(precision=precision), batch=batch_for(choice, spec))
    model = net_bytes(bundle, spec.name, precision)
    return open_engine(model, spec, backend=choice, options=options)


def _kernels(settings: Settings, _interpreter: Interpreter, _arguments: Arguments) -> Facts:
    """Our own kernels against their twins; a dry run has twins in their place."""
    from kits_bench.gpu_check.kernels import TWINS, kernel_facts
    from kits_runtime.arrays import cupy_arrays
    from kits_runtime.device.plan import DEFAULT_LIMIT

    arrays = TWINS if settings.dry else cupy_arrays(0, DEFAULT_LIMIT)
    return {"kernels": kernel_facts(arrays, repeats=settings.repeats, dry=settings.dry)}


def _nets(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """Milliseconds a window of each net alone, from host memory to host memory."""
    choose_backend(arguments["backend"])
    bundle = bundle_of(arguments["system"], settings)
    found = {}
    for spec in net_specs(bundle):
        with _engine(bundle, spec, arguments) as engine:
            batch = engine.spec.batch
            patches = seeded_windows(spec, batch)
            found[spec.name] = window_ms(engine.run, patches, repeats=settings.repeats)
    return {"window_ms": found, "measured": "host to host"}


def _torch_nets(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """The same for torch: eager float32 (b0), or as fast as torch gets (b1)."""
    import torch

    from kits_bench.graph_in_torch import GraphInTorch, torch_answer
    from kits_bench.tuning import tuned_net
    from kits_bench.ways import graph_of

    device = torch.device("cpu" if settings.dry else "cuda")
    bundle = bundle_of(arguments["system"], settings)
    found: Facts = {}
    tuning: Facts = {}
    for spec in net_specs(bundle):
        net = GraphInTorch(graph_of(bundle, spec.name)).eval().to(device)
        patches = seeded_windows(spec, arguments["batch"])
        run: Callable[[Any], Any]
        if arguments["way"] == "b1":
            given = torch.from_numpy(patches).to(device)
            tuned = tuned_net(net, given, compiled=settings.compiled)
            tuning[spec.name] = dict(tuned.facts)
            run = tuned.run
        else:
            run = _eager(torch_answer, net)
        found[spec.name] = window_ms(run, patches, repeats=settings.repeats)
    return {"window_ms": found, "measured": "host to host", "tuning": tuning}


def _eager(answer: Callable[..., Any], net: object) -> Callable[[Any], Any]:
    return lambda patches: answer(net, patches)


def window_ms(run: Callable[[Any], Any], patches: Any, *, repeats: int) -> float:  # noqa: ANN401
    """The median of milliseconds a window, after a call that warms up."""
    run(patches)
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(patches)
        spent.append(time.perf_counter() - start)
    return round(statistics.median(spent) / len(patches) * 1e3, 4)


def _windows(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """Windows a second of the sixth net, from a graph that was prepared."""
    choose_backend(arguments["backend"])
    path = sixth_net_path(arguments["precision"], Path(settings.cache))
    if not path.is_file():
        raise BundleError(f"{path}: found no graph, expected one that --prepare wrote")
    options = cached_options(precision=arguments["precision"])
    spec = sixth_spec(settings)
    with open_engine(path, spec, backend=arguments["backend"], options=options) as engine:
        patches = seeded_windows(spec, engine.spec.batch)
        ms = window_ms(engine.run, patches, repeats=settings.repeats)
    return {"window_ms": ms, "remark": REMARK, "scans": dict(samples_per_second(1e3 / ms))}


def _suite_mode(settings: Settings, interpreter: Interpreter, arguments: Arguments) -> Facts:
    """One mode of the suite on one case; it leaves a record, and the item says where."""
    from kits_bench.contestants import Lineup
    from kits_bench.records import RecordStore
    from kits_bench.suite import MODES, Suite

    bundle = bundle_of(arguments["system"], settings)
    store = RecordStore(folder=settings.records(interpreter), dry=settings.dry)
    mode = arguments["mode"]
    suite = Suite(
        store=store,
        bundle=bundle,
        lineup=Lineup(
            bundle=bundle.path,
            backends=tuple(arguments["backends"]),
            baselines=tuple(arguments.get("baselines", ())),
            precision=arguments.get("precision", "auto"),
            compiled=settings.compiled,
            device="cpu" if settings.dry else "cuda",
            dry=settings.dry and mode == "latency",
        ),
        cases=tuple(case_of(name, settings) for name in arguments["cases"]),
        repeats=settings.repeats,
        told=_ignore,
    )
    records = MODES[mode](suite)
    rows = [row for record in records for row in rows_of(record)]
    states = {row["state"] for row in rows}
    state = "ok" if "ok" in states else "failed" if "failed" in states else "unrun"
    whys = [f"{_name(row)}: {row['why']}" for row in rows if row["state"] != "ok"]
    return {"state": state, "why": "; ".join(dict.fromkeys(whys))[:600], "records": list(records)}


def rows_of(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a record, one for each backend or contestant."""
    kinds = ("contestants", "backends", "nets", "variants", "lines")
    return [row for kind in kinds for row in record.get(kind, ())]


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("name") or row["backend"])


def _gpu_memory(settings: Settings, _interpreter: Interpreter, arguments: Arguments) -> Facts:
    """The most GPU memory while a case is segmented, above what was used before."""
    from kits_bench.gpu_check.gpu_memory import sampled_mib

    choose_backend(arguments["backend"])
    volume = read_scan(case_of(arguments["case"], settings).scan).volume
    with sampled_mib() as sampled, _segmenter(settings, arguments) as segmenter:
        for _ in range(2):
            segmenter.segment(volume)
    return {"case": arguments["case"], **sampled.facts}


def _ignore(_text: str) -> None:
    pass


TASKS: Mapping[str, Task] = {
    "environment": _environment,
    "engines": _engines,
    "reference": _reference,
    "parity": _parity,
    "kernels": _kernels,
    "nets": _nets,
    "torch-nets": _torch_nets,
    "suite": _suite_mode,
    "gpu-memory": _gpu_memory,
    "windows": _windows,
}
