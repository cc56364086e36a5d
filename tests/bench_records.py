"""Made-up records of every mode of the benchmarks, for tests of what is made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kits_bench.figures import percentiles, ratio_of_medians
from kits_bench.shapes import PUBLISHED

Record = dict[str, Any]

WHY = "BackendUnavailableError: backend ort-cuda: <no> driver & no GPU, expected one"
QUIET = {
    "flagged": False, "flagged_runs": 0, "measured": 12, "mean_cores": 0.013, "most_cores": 0.041,
    "load_average": 0.4,
}  # fmt: skip
BUSY = {**QUIET, "flagged": True, "flagged_runs": 3, "mean_cores": 0.187, "most_cores": 1.234}
MACHINE = {
    "processor": "Some <Processor> & Co", "cores": 2, "memory_gb": 25.3, "system": "Linux",
    "load_before": 0.12, "versions": {"python": "3.11.7", "torch": "2.13.0"}, "commit": "abc123",
}  # fmt: skip


def record(kind: str, subject: str, **facts: Any) -> Record:
    """A record with everything that all kinds share."""
    system, _, preset = subject.partition(":")
    sha256 = (subject * 8).encode().hex()[:64]
    config = {
        "kind": kind,
        "bundle_sha256": sha256 if preset else subject,
        "case_sha256": "none",
        "repeats": 3,
        "threads": 2,
        "commit": "abc123",
        "backends": ["openvino", "ort-cuda"],
        **facts.pop("config", {}),
    }
    weights = "seeded, untrained; masks by a small fitted guide"
    bundle = {"system": system, "preset": preset, "sha256": sha256, "weights": weights}
    made: Record = {
        "schema": 2,
        "kind": kind,
        "dry": False,
        "config_sha256": "0" * 64,
        "config": config,
        "machine": dict(MACHINE),
        **({"bundle": bundle} if preset else {}),
        "foreign_load": dict(QUIET),
    }
    return {**made, **facts}


def case_facts(number: int) -> Record:
    """The facts of a published shape."""
    shape = next(shape for shape in PUBLISHED if shape.number == number)
    return {
        "name": shape.name, "sha256": "1" * 64, "size": list(shape.size),
        "spacing_mm": list(shape.spacing_mm), "bytes": 1, "made": "phantom, seed 1, version 1",
        "published_s": shape.published_s,
    }  # fmt: skip


def row(name: str, wall_ms: Sequence[float], phases: Mapping[str, float]) -> Record:
    """A contestant who finished; a tenth of its time is the way back."""
    net_ms = sum(ms for stage, ms in phases.items() if stage.endswith("net"))
    without = [round(0.9 * ms, 2) for ms in wall_ms]
    found: Record = {
        **asked(name),
        "state": "ok",
        "runs_with": {"backend": "openvino", "precision": "bf16", "threads": 2},
        "wall_ms": list(wall_ms),
        "without_way_back_ms": without,
        **percentiles(wall_ms),
        "without_way_back": percentiles(without),
        "first_ms": 2 * wall_ms[0],
        "phase_ms": dict(phases),
        "net_ms": round(net_ms, 2),
        "other_ms": round(percentiles(wall_ms)["p50"] - net_ms, 2),
        "windows": {"net": 12},
        "peak_rss_mb": 512.3,
    }
    if name == "b1":
        tried = {"fp32": 812.3, "bf16": 401.7, "bf16, compiled": "failed: RuntimeError"}
        tuning = {"net": {"precision": "bf16", "taken": "bf16", "tried_ms": tried}}
        found["runs_with"] = {"backend": "torch", "precision": "bf16", "tuning": tuning}
        found["environment"] = {"MALLOC_TRIM_THRESHOLD_": "17179869184"}
    if not name.startswith("kits-trt/"):
        found["agreement"] = {
            "with": "kits-trt/openvino", "differing_share_1": 0.0312,
            "differing_share_2": 0.0456, "differing_share_foreground": 0.0273,
        }  # fmt: skip
    return found


def asked(name: str) -> Record:
    """What a record says of a contestant before it runs."""
    ours = name.startswith("kits-trt/")
    return {
        "name": name,
        "way": "kits-trt" if ours else "monai" if name == "b0" else "tuned",
        "backend": name.partition("/")[2] if ours else "auto",
        "precision": "auto",
        "threads": 2,
        "compiled": False,
        "environment": {},
    }


def latency(subject: str, number: int, base_ms: float, **facts: Any) -> Record:
    """Three contestants who finished, and one that cannot run."""
    ours = row(
        "kits-trt/openvino",
        [base_ms, base_ms + 31.7, base_ms - 17.2],
        {"read": 0.2 * base_ms, "net": 0.6 * base_ms, "way_back": 0.15 * base_ms, "x": 0.1},
    )
    b0_ms = [6.13 * ms for ms in ours["wall_ms"]]
    b0 = row("b0", [round(ms, 2) for ms in b0_ms], {"load": 1200.0, "net": 2100.0, "save": 900.0})
    b1_ms = [1.47 * ms for ms in ours["wall_ms"]]
    b1 = row("b1", [round(ms, 2) for ms in b1_ms], {"load": 330.0, "net": 901.0})
    absent = {**asked("kits-trt/ort-cuda"), "state": "unrun", "why": WHY}
    rows = [ours, absent, b0, b1]
    ratios = [
        {
            "slower": other["name"],
            "faster": ours["name"],
            "whole": ratio_of_medians(other["wall_ms"], ours["wall_ms"]).to_plain(),
            "without_way_back": ratio_of_medians(
                other["without_way_back_ms"], ours["without_way_back_ms"]
            ).to_plain(),
        }
        for other in (b0, b1)
    ]
    config = {"contestants": [asked(each["name"]) for each in rows], "backends": []}
    made = record("latency", subject, config=config, repeats=3, contestants=rows, ratios=ratios)
    return {**made, "case": case_facts(number), "slices": {"all": 1}, **facts}


def every_mode(subject: str = "unet3d:paper") -> list[Record]:
    """Records of all modes, each with something that cannot run."""
    times = {36: 1712.4, 41: 801.3, 61: 553.9}
    flagged = {41: {"foreign_load": dict(BUSY)}}
    measured = [latency(subject, n, ms, **flagged.get(n, {})) for n, ms in times.items()]
    absent = {"backend": "ort-cuda", "state": "unrun", "why": WHY}
    ok = {"backend": "openvino", "state": "ok"}
    cold = {**ok, "first_window_s": 1.014, "labels_s": 1.987, "all_first_window_s": [1.014]}
    busy = {"read": 0.313, "segment": 0.921, "write": 0.087, "net": 0.777}
    cohort = {
        **ok, "cases": 3, "wall_ms": 3456.7, "net_ms": 2345.6, "wall_over_net": 1.474,
        "cases_per_minute": 52.07, "busy_share": busy,
    }  # fmt: skip
    variants = [
        {**ok, "precision": "fp32", "with": "openvino fp32", **_differing(0.0)},
        {**ok, "precision": "bf16", "with": "openvino fp32", **_differing(0.00123)},
        {**absent, "precision": "fp16"},
    ]
    points = [(163, 1712.4), (52, 801.3), (29, 553.9)]
    lines = [
        _line("kits-trt/openvino", points, 8.61, 312.4),
        _line("b0", [(n, 6.13 * ms) for n, ms in points], 52.8, 1915.0),
        _line("b1", [(n, 1.47 * ms) for n, ms in points], 12.7, 459.0),
        {"name": "torch", "points": [], "state": "unrun", "why": "fewer than two numbers"},
    ]
    return [
        *measured,
        record("cold", subject, case=case_facts(61), backends=[cold, absent]),
        record("throughput", subject, cases=[{"name": "case_00061"}], backends=[cohort, absent]),
        record("parity", subject, case=case_facts(61), variants=variants),
        record("memory", subject, case=case_facts(61), backends=[{**ok, "peak_mb": 498}, absent]),
        record("roofline", subject, nets=[_net("net", 97.3, 181.4), absent]),
        record("scaling", subject, cases=[{"name": "case_00061"}], lines=lines),
        record("windows", "sixth", nets=[_sixth(), absent]),
    ]


def _differing(amount: float) -> Record:
    names = ("1", "2", "foreground")
    return {f"differing_share_{name}": amount for name in names}


def _line(name: str, points: Sequence[tuple[int, float]], slope: float, intercept: float) -> Record:
    fitted = {"slope_ms_per_slice": slope, "intercept_ms": intercept, "r2": 0.987}
    return {"name": name, "points": [list(p) for p in points], "state": "ok", **fitted}


def _net(name: str, window_ms: float, reached: float) -> Record:
    return {
        "backend": "openvino", "net": name, "state": "ok", "window_ms": window_ms,
        "gflop": 17.65, "least_mb": 7.1, "unfused_mb": 431.0, "flop_per_byte_unfused": 40.95,
        "flop_per_byte_least": 2480.0, "gflop_per_s": reached, "roof_gflop_per_s": 388.0,
        "roof_gb_per_s": 13.1, "attainable_gflop_per_s": 388.0, "share_of_roof": 0.4675,
        "precision": "bf16",
    }  # fmt: skip


def _sixth() -> Record:
    scans = {
        "windows_per_sample": 60.4, "samples_per_s": 0.0033, "public_h200_samples_per_s": 6.84,
        "remark": "not an MLPerf result",
    }  # fmt: skip
    return {**_net("sixth", 4990.0, 191.0), "windows_per_s": 0.2004, "scans": scans}


def write_records(folder: Path, records: Sequence[Record]) -> Path:
    """Writes records as the suite names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(records):
        path = folder / f"{each['kind']}-{number}.json"
        path.write_text(json.dumps(each), encoding="utf-8")
    return folder
