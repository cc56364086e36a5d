"""The modes of the suite: each goes through cases, skips finished ones and leaves records.

A backend that cannot run here is a row that says why, never the end of a run.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits_bench import pipeline
from kits_bench.case_files import BenchCase
from kits_bench.contestants import Lineup, Runner
from kits_bench.engine_options import cached_options
from kits_bench.figures import least_squares
from kits_bench.latency import case_latency, disagreement
from kits_bench.machine import commit, engine_versions
from kits_bench.patch_stage import is_patch_stage
from kits_bench.records import Record, RecordStore, config_sha256
from kits_bench.seeded import weights_of
from kits_bench.sixth_net import NAME as SIXTH
from kits_bench.watch import watched
from kits_runtime.bundle import Bundle
from kits_runtime.engines import choose_backend
from kits_runtime.errors import KitsError
from kits_runtime.nifti import read_scan
from kits_runtime.segmenter import Segmenter

Told = Callable[[str], None]
Facts = dict[str, Any]

_MANY = 50  # cases in a row, to see whether memory rises


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What one run measures, with what, and where its records go."""

    store: RecordStore
    bundle: Bundle
    lineup: Lineup
    cases: tuple[BenchCase, ...]
    repeats: int
    told: Told

    @property
    def subject(self) -> str:
        """The bundle's short name in file names."""
        return f"{self.bundle.manifest.system}-{self.bundle.manifest.preset}"

    @property
    def bundle_facts(self) -> Facts:
        """What records say of the bundle."""
        manifest = self.bundle.manifest
        return {
            "system": manifest.system,
            "preset": manifest.preset,
            "sha256": self.bundle.sha256,
            "weights": weights_of(manifest.card),
        }

    def config(self, kind: str, case_sha256: str, **more: object) -> Facts:
        """Everything that a record of this run depends on."""
        return {
            "kind": kind,
            "bundle_sha256": self.bundle.sha256,
            "case_sha256": case_sha256,
            "repeats": self.repeats,
            "threads": self.lineup.threads,
            "commit": commit(),
            "versions": dict(engine_versions()),
            **more,
        }

    def record(self, case: str, config: Mapping[str, Any], measure: Callable[[], Facts]) -> Record:
        """The record of a case: the one that is there, or a new one."""
        path = self.store.path(str(config["kind"]), self.subject, case)
        there = self.store.finished(path, config)
        if there is not None:
            self.told(f"{path.name}: is there already, measured just so")
            return there
        facts = {"bundle": self.bundle_facts, **measure()}
        return self.store.write(path, config, facts)


def latency(suite: Suite) -> tuple[Record, ...]:
    """File to file, warm, all contestants in turns; one record a case."""
    people = suite.lineup.contestants(patch_stage=is_patch_stage(suite.bundle))
    facts = [dict(each.facts) for each in people]
    records = []
    with _runners(suite, people) as runners:
        for case in suite.cases:
            config = suite.config("latency", case.sha256, contestants=facts)
            records.append(
                suite.record(
                    case.name,
                    config,
                    lambda case=case: case_latency(  # type: ignore[misc]
                        runners, case, repeats=suite.repeats, told=suite.told
                    ),
                )
            )
    return tuple(records)


@contextmanager
def _runners(suite: Suite, people: Sequence[Any]) -> Iterator[list[Runner]]:
    runners = [Runner(each) for each in people]
    try:
        yield runners
    finally:
        for runner in runners:
            runner.stop()


def cold(suite: Suite) -> tuple[Record, ...]:
    """From the start of a process to its first window and to the labels; one record a case."""

    def measure(case: BenchCase, backend: str) -> Facts:
        return pipeline.cold_start(
            case.scan, bundle=str(suite.bundle.path), backend=backend, repeats=suite.repeats
        )

    return _each_case(suite, "cold", measure)


def memory(suite: Suite) -> tuple[Record, ...]:
    """The peak of resident memory of a process that segments a case, then of one with many.

    One record a case and, where there are several, one of a cohort that goes round them.
    """

    def measure(case: BenchCase, backend: str) -> Facts:
        return pipeline.peak_memory(case.scan, bundle=str(suite.bundle.path), backend=backend)

    def of_many(backend: str) -> Facts:
        with tempfile.TemporaryDirectory() as name:
            for number in range(_MANY):
                scan = suite.cases[number % len(suite.cases)].scan.resolve()
                (Path(name) / f"case_{number:05d}{''.join(scan.suffixes)}").symlink_to(scan)
            return pipeline.peak_memory(Path(name), bundle=str(suite.bundle.path), backend=backend)

    records = _each_case(suite, "memory", measure)
    return records if len(suite.cases) < 2 else (*records, _cohort(suite, "memory", of_many))


def _each_case(
    suite: Suite, kind: str, measure: Callable[[BenchCase, str], Facts]
) -> tuple[Record, ...]:
    backends = list(suite.lineup.backends)

    def rows(case: BenchCase) -> Facts:
        suite.told(f"{kind}: {case.name}")
        with watched() as load:
            found = [_row(backend, lambda b=backend: measure(case, b)) for backend in backends]  # type: ignore[misc]
        return {"case": dict(case.facts), "backends": found, "foreign_load": load.facts}

    return tuple(
        suite.record(
            case.name,
            suite.config(kind, case.sha256, backends=backends),
            lambda case=case: rows(case),  # type: ignore[misc]
        )
        for case in suite.cases
    )


def _row(backend: str, measure: Callable[[], Facts]) -> Facts:
    """What was measured with a backend, or why nothing was."""
    try:
        choose_backend(backend)
    except (KitsError, ValueError) as error:
        return {"backend": backend, "state": "unrun", "why": str(error)}
    try:
        return {"backend": backend, "state": "ok", **measure()}
    except (KitsError, MemoryError, RuntimeError, OSError) as error:
        return {"backend": backend, "state": "failed", "why": " ".join(str(error).split())}


def _all_cases_sha256(suite: Suite) -> str:
    return config_sha256({case.name: case.sha256 for case in suite.cases})


def throughput(suite: Suite) -> tuple[Record, ...]:
    """All cases in a row as kits-infer runs them; one record."""

    def measure(backend: str) -> Facts:
        options = cached_options(precision=_precision(suite), threads=suite.lineup.threads)
        with (
            tempfile.TemporaryDirectory() as name,
            Segmenter(suite.bundle, backend=backend, options=options) as segmenter,
        ):
            pipeline.throughput(segmenter, suite.cases[0].scan)  # warms up
            listing = Path(name) / "cases.txt"
            listing.write_text("".join(f"{case.scan.resolve()}\n" for case in suite.cases))
            return pipeline.throughput(segmenter, listing)

    return (_cohort(suite, "throughput", measure),)


def _cohort(suite: Suite, kind: str, measure: Callable[[str], Facts]) -> Record:
    """The record of a measurement of all cases at once, with each backend."""
    backends = list(suite.lineup.backends)

    def rows() -> Facts:
        suite.told(f"{kind}: all cases")
        with watched() as load:
            found = [_row(b, lambda b=b: measure(b)) for b in backends]  # type: ignore[misc]
        return {"cases": _names(suite), "backends": found, "foreign_load": load.facts}

    config = suite.config(kind, _all_cases_sha256(suite), backends=backends)
    return suite.record("cohort", config, rows)


def _names(suite: Suite) -> list[Facts]:
    return [{"name": case.name, "sha256": case.sha256} for case in suite.cases]


def _precision(suite: Suite) -> Any:  # noqa: ANN401 - checked by EngineOptions
    return suite.lineup.precision


def parity(suite: Suite) -> tuple[Record, ...]:
    """The masks of every backend and precision against those of the first; one record a case."""
    variants = [(b, p) for b in suite.lineup.backends for p in ("fp32", "bf16", "fp16")]

    def measure(case: BenchCase) -> Facts:
        suite.told(f"parity: {case.name}")
        volume = read_scan(case.scan).volume
        rows: list[Facts] = []
        first = None
        for backend, precision in variants:
            row: Facts = {"backend": backend, "precision": precision}
            try:
                options = cached_options(precision=precision, threads=suite.lineup.threads)
                with Segmenter(suite.bundle, backend=backend, options=options) as segmenter:
                    mask = segmenter.segment(volume).model_labels
            except (KitsError, ValueError, MemoryError) as error:
                rows.append({**row, "state": "unrun", "why": " ".join(str(error).split())})
                continue
            if first is None:
                first = mask, f"{backend} {precision}"
            rows.append({**row, "state": "ok", "with": first[1], **disagreement(mask, first[0])})
        return {"case": dict(case.facts), "variants": rows}

    return tuple(
        suite.record(
            case.name,
            suite.config("parity", case.sha256, variants=[list(each) for each in variants]),
            lambda case=case: measure(case),  # type: ignore[misc]
        )
        for case in suite.cases
    )


def roofline(suite: Suite) -> tuple[Record, ...]:
    """GFLOP, bytes and speed of each net beside a roof measured in the same run; one record."""
    from kits_bench.rooflines import bundle_rooflines

    def measure() -> Facts:
        with watched() as load:
            rows = bundle_rooflines(suite.bundle, suite.lineup, repeats=suite.repeats)
        return {"nets": rows, "foreign_load": load.facts}

    config = suite.config("roofline", "none", backends=list(suite.lineup.backends))
    return (suite.record("nets", config, measure),)


def sixth(suite: Suite) -> tuple[Record, ...]:
    """Windows a second of the sixth net; one record, which belongs to no bundle."""
    from kits_bench.rooflines import sixth_rooflines

    def measure() -> Facts:
        with watched() as load:
            rows = sixth_rooflines(suite.lineup, repeats=suite.repeats)
        return {"nets": rows, "foreign_load": load.facts}

    config = {**suite.config("windows", "none"), "bundle_sha256": SIXTH}
    config["backends"] = list(suite.lineup.backends)
    path = suite.store.path("windows", SIXTH, "nets")
    there = suite.store.finished(path, config)
    return (there or suite.store.write(path, config, measure()),)


def scaling(suite: Suite) -> tuple[Record, ...]:
    """The line of milliseconds against slices through the latency of all cases; one record."""
    measured = latency(suite)
    points: dict[str, list[tuple[int, float]]] = {}
    for record in measured:
        for row in record["contestants"]:
            if row["state"] == "ok":
                points.setdefault(row["name"], []).append((record["case"]["size"][0], row["p50"]))
    lines = [_line_of(name, found) for name, found in points.items()]
    config = suite.config(
        "scaling",
        _all_cases_sha256(suite),
        contestants=[record["config_sha256"] for record in measured],
    )
    facts = {"cases": _names(suite), "lines": lines}
    return (suite.record("cohort", config, lambda: facts),)


def _line_of(name: str, points: Sequence[tuple[int, float]]) -> Facts:
    row: Facts = {"name": name, "points": [list(point) for point in points]}
    slices = [point[0] for point in points]
    if len(set(slices)) < 2:
        return {**row, "state": "unrun", "why": "fewer than two different numbers of slices"}
    line = least_squares(slices, [point[1] for point in points])
    return {
        **row,
        "state": "ok",
        "slope_ms_per_slice": round(line.slope, 4),
        "intercept_ms": round(line.intercept, 2),
        "r2": round(line.r2, 4),
    }


MODES: Mapping[str, Callable[[Suite], tuple[Record, ...]]] = {
    "latency": latency,
    "cold": cold,
    "throughput": throughput,
    "parity": parity,
    "memory": memory,
    "roofline": roofline,
    "scaling": scaling,
    "windows": sixth,
}
