"""Notices what else uses the processors while a benchmark runs."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
FLAG_FROM_CORES = 0.10  # per core that this process may use
_STOLEN_FIELD = 7
_IDLE_FIELDS = (3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor seconds so far: of the whole machine, stolen by its host, and our own."""

    at_s: float
    busy_s: float
    stolen_s: float
    own_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLoad:
    """The mean number of cores that others used, and that the host took away, over some time."""

    cores: float
    stolen: float
    load_average: float
    flagged: bool

    def to_plain(self) -> dict[str, float | bool]:
        """The load as JSON takes it."""
        return {
            "cores": round(self.cores, 3),
            "stolen": round(self.stolen, 3),
            "load_average": round(self.load_average, 2),
            "flagged": self.flagged,
        }


def usage_now(own: Iterable[int], proc: Path = PROC) -> Usage:
    """The processor time used so far; ``own`` are the processes that belong to the benchmark."""
    tick = os.sysconf("SC_CLK_TCK")
    first = (proc / "stat").read_text(encoding="utf-8").splitlines()[0]
    fields = [int(part) / tick for part in first.split()[1:9]]
    idle = sum(fields[field] for field in _IDLE_FIELDS)
    stolen = fields[_STOLEN_FIELD] if len(fields) > _STOLEN_FIELD else 0.0
    return Usage(
        at_s=time.monotonic(),
        busy_s=sum(fields) - idle - stolen,
        stolen_s=stolen,
        own_s=sum(_used_by(pid, proc) / tick for pid in own),
    )


def foreign_load(before: Usage, after: Usage, *, cores: int) -> ForeignLoad:
    """What others used between two readings, flagged where it may have changed a measurement."""
    elapsed = max(after.at_s - before.at_s, 1e-9)
    own = after.own_s - before.own_s
    others = max(0.0, (after.busy_s - before.busy_s - own) / elapsed)
    stolen = max(0.0, (after.stolen_s - before.stolen_s) / elapsed)
    return ForeignLoad(
        cores=others,
        stolen=stolen,
        load_average=os.getloadavg()[0],
        flagged=others + stolen > FLAG_FROM_CORES * cores,
    )


def worst_of(loads: Iterable[ForeignLoad]) -> Mapping[str, object]:
    """A summary for a record: mean and most of what others used, and whether any was flagged."""
    all_loads = list(loads)
    if not all_loads:
        return {"flagged": False, "measured": 0}
    taken = [load.cores + load.stolen for load in all_loads]
    return {
        "flagged": any(load.flagged for load in all_loads),
        "flagged_runs": sum(load.flagged for load in all_loads),
        "measured": len(all_loads),
        "mean_cores": round(sum(taken) / len(taken), 3),
        "most_cores": round(max(taken), 3),
        "load_average": all_loads[-1].to_plain()["load_average"],
    }


def _used_by(pid: int, proc: Path) -> float:
    """Ticks that a process and its ended children used; 0 where it is gone."""
    try:
        told = (proc / str(pid) / "stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    # The name in brackets may hold blanks; what counts begins after it.
    fields = told.rpartition(")")[2].split()
    return float(sum(int(field) for field in fields[11:15]))
