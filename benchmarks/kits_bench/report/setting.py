"""How it was measured: answers to a sceptic, the environment, the load, and how to repeat it."""

from collections.abc import Iterator, Sequence

from kits_bench.records import Record
from kits_bench.report.blocks import (
    Answers,
    Code,
    Section,
    Table,
    Text,
    counted,
    figure,
    listed,
    share,
)
from kits_bench.report.gather import KINDS, Gathered, case_of, subject_of
from kits_bench.report.repeat import commands
from kits_bench.report.rows import names_of, stopped_rows
from kits_bench.report.story import machine_line


def questions(gathered: Gathered) -> Section:
    """What a sceptical reader asks first, answered from the records."""
    pairs = (
        ("What was timed?", _what(gathered)),
        ("On what?", _on_what(gathered)),
        ("How often, in what order?", _how_often(gathered.of("latency"))),
        ("Do the masks agree?", _agreement(gathered)),
        ("Was the machine quiet?", _quiet(gathered)),
        ("What is missing?", _missing(gathered)),
    )
    return Section(title="What a sceptic asks", parts=(Answers(pairs=pairs),))


def _what(gathered: Gathered) -> str:
    weights = sorted({str(r["bundle"]["weights"]) for r in gathered.records if "bundle" in r})
    told = (
        "Latency is from a scan's file to its mask's file in a process that is warm; what each "
        "other mode times stands in its section. "
    )
    return told + (f"Weights: {listed(weights)}." if weights else "No bundle was measured.")


def _on_what(gathered: Gathered) -> str:
    made = sorted({str(r["case"].get("made", "unknown")).partition(",")[0]
                   for r in gathered.records if "case" in r})  # fmt: skip
    cases = {case_of(record) for record in gathered.records if "case" in record}
    told = f"{machine_line(gathered)}, {figure(gathered.machine['memory_gb'])} GB of memory"
    return f"{told}; {counted(len(cases), 'case')} ({listed(made) or 'none'})."


def _how_often(records: Sequence[Record]) -> str:
    if not records:
        return "No latency was measured."
    repeats = listed(sorted({str(record["repeats"]) for record in records}))
    threads = sorted({str(r["config"]["threads"] or "as many as cores") for r in records})
    return (
        f"{repeats} rounds a case that count, after one that warms up. Each contestant lives in a "
        "process of its own; in each round all are asked one after the other, and another one "
        f"begins. Threads: {listed(threads)}. Intervals are 95 % bootstrap intervals: rounds are "
        "drawn within a case, cases within a total."
    )


def _agreement(gathered: Gathered) -> str:
    beside = [
        (row["agreement"]["differing_share_foreground"], f"{row['name']} on {case_of(record)}")
        for record in gathered.of("latency")
        for row in record["contestants"]
        if "agreement" in row
    ]
    beside += [
        (row["differing_share_foreground"], f"{row['backend']} {row['precision']}")
        for record in gathered.of("parity")
        for row in record["variants"]
        if row["state"] == "ok" and row["with"] != f"{row['backend']} {row['precision']}"
    ]
    if not beside:
        return "Not known: no two masks of one case were compared."
    most, who = max(beside)
    return (
        f"Over {counted(len(beside), 'comparison')} the most that a foreground differs is "
        f"{share(most)} of the union ({who}); each is in the tables."
    )


def _quiet(gathered: Gathered) -> str:
    loads = [r["foreign_load"] for r in gathered.records if "foreign_load" in r]
    if not loads:
        return "Not known: no record watched it."
    flagged = sum(bool(load["flagged"]) for load in loads)
    most = max((load.get("most_cores", 0.0) for load in loads), default=0.0)
    state = "yes" if not flagged else f"not always: {flagged} of {len(loads)} records are marked *"
    return (
        f"{state.capitalize()}; at the worst moment others, or the machine's host, took "
        f"{figure(most)} of {gathered.machine['cores']} cores. A mark stands from a tenth of the "
        "cores on."
    )


def _missing(gathered: Gathered) -> str:
    found = []
    for subject in gathered.subjects:
        lacks = [kind for kind in KINDS[:-1] if not gathered.of(kind, subject)]
        found += [f"{subject} has no {listed(lacks)}"] if lacks else []
    found += [] if gathered.of("windows") else ["the sixth net is unrun (mode windows)"]
    for subject in gathered.subjects:
        records = gathered.of("latency", subject)
        lacks = [base for base in ("b0", "b1") if records and base not in names_of(records)]
        found += [f"{subject} was run without {listed(lacks)}"] if lacks else []
        stopped = dict(stopped_rows(records))
        found += [f"{name} did not finish all of {subject}" for name in stopped]
    if gathered.left_out:
        left_out = counted(gathered.left_out, "record")
        found.append(f"{left_out} in the folder not of this suite")
    return f"{'; '.join(dict.fromkeys(found))}." if found else "Nothing: every mode has a record."


def setting_sections(gathered: Gathered) -> Iterator[Section]:
    """The machine, its versions, contestants' settings, the load, and the commands."""
    parts = [_environment(gathered)]
    contestants = _contestants(gathered.of("latency"))
    parts += [contestants] if contestants is not None else []
    yield Section(title="Environment", parts=tuple(parts))
    yield Section(title="Load by others", parts=(_loads(gathered),))
    told = "The cases and seeded bundles are made again, bit by bit, from their seeds."
    lines = Code(lines=tuple(commands(gathered)))
    yield Section(title="How to repeat it", parts=(Text(text=told), lines))


def _environment(gathered: Gathered) -> Table:
    machine = gathered.machine
    versions: dict[str, set[str]] = {}
    for record in gathered.records:
        for name, version in record["machine"].get("versions", {}).items():
            versions.setdefault(name, set()).add(str(version))
    loads = [record["machine"].get("load_before", 0.0) for record in gathered.records]
    commits = sorted({str(record["machine"].get("commit")) for record in gathered.records})
    facts = {
        **{name: str(machine[name]) for name in ("processor", "gpu", "cores", "system")
           if name in machine},
        "memory": f"{figure(machine['memory_gb'])} GB",
        "records": str(len(gathered.records)),
        "load before": f"{figure(min(loads))} to {figure(max(loads))}",
        "commit": listed(commits),
        **{subject: _hash_of(gathered, subject) for subject in gathered.subjects},
        **{name: listed(sorted(found)) for name, found in versions.items()},
    }  # fmt: skip
    rows = tuple((name, value) for name, value in facts.items())
    return Table(title="Machine and versions", columns=("fact", "value"), rows=rows)


def _hash_of(gathered: Gathered, subject: str) -> str:
    record = next(r for r in gathered.records if subject_of(r) == subject)
    return f"bundle {record['config']['bundle_sha256'][:12]}"


def _contestants(records: Sequence[Record]) -> Table | None:
    rows: dict[tuple[str, ...], None] = {}
    for record in records:
        for row in record["contestants"]:
            if row["state"] == "ok":
                runs = row.get("runs_with", {})
                plain = [f"{k} {v}" for k, v in runs.items() if k != "tuning"]
                kept = [f"{k}={v}" for k, v in row.get("environment", {}).items()]
                name = f"{subject_of(record)}, {row['name']}"
                rows[name, row["way"], ", ".join(plain), _tuning(runs), " ".join(kept)] = None
    columns = ("contestant", "way", "runs with", "tried on a window; taken", "environment")
    return Table(title="Contestants", columns=columns, rows=tuple(rows)) if rows else None


def _tuning(runs: object) -> str:
    tuning = runs.get("tuning", {}) if isinstance(runs, dict) else {}
    return "; ".join(f"{name}: {_tuned(facts)}" for name, facts in tuning.items())


def _tuned(facts: object) -> str:
    if not isinstance(facts, dict) or "tried_ms" not in facts:
        return str(facts)
    tried = [
        f"{name} {ms}" if isinstance(ms, str) else f"{name} {figure(ms)} ms"
        for name, ms in facts["tried_ms"].items()
    ]
    return f"{', '.join(tried)}; taken {facts['taken']}"


def _loads(gathered: Gathered) -> Table:
    rows: list[tuple[str, ...]] = []
    for record in gathered.records:
        load = record.get("foreign_load")
        name = f"{record['kind']} {subject_of(record)} {case_of(record)}".strip()
        if load is None:
            rows.append((name, "not watched", "", "", ""))
            continue
        runs = f"{load.get('flagged_runs', 0)} of {load['measured']}"
        cores = [figure(load[field]) if field in load else "" for field in _CORES]
        rows.append((name, "yes *" if load["flagged"] else "no", runs, *cores))
    columns = ("record", "marked", "marked runs", "cores taken, mean", "cores taken, most")
    return Table(title="What other processes used", columns=columns, rows=tuple(rows))


_CORES = ("mean_cores", "most_cores")
