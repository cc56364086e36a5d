"""The commands that would make a report's records again."""

import shlex
from collections.abc import Iterator, Sequence

from kits_bench.records import Record
from kits_bench.report.gather import KINDS, Gathered, case_of, subject_of
from kits_bench.report.rows import is_ours
from kits_bench.shapes import CASE_SETS, PUBLISHED


def commands(gathered: Gathered) -> Iterator[str]:
    """One command a mode and bundle, then the one that makes the report."""
    commits = {str(record["config"].get("commit")) for record in gathered.records}
    for commit in sorted(commits - {"None"}):
        yield f"git checkout {shlex.quote(commit.removesuffix('-dirty'))}"
        if commit.endswith("-dirty"):
            yield "# and changes that were not committed: this cannot be repeated exactly"
    yield "make .venv/.installed"
    for subject in (*gathered.subjects, None):
        for kind in KINDS:
            records = gathered.of(kind, subject) if subject else _without_bundle(gathered, kind)
            if records:
                yield _command(kind, records)
    yield f"kits-bench report --records out/bench/{shlex.quote(gathered.name)}"


def _without_bundle(gathered: Gathered, kind: str) -> tuple[Record, ...]:
    return tuple(record for record in gathered.of(kind) if "bundle" not in record)


def _command(kind: str, records: Sequence[Record]) -> str:
    first = records[0]
    words = ["kits-bench", kind, *_bundle(first), *_cases(records), *_lineup(first["config"])]
    if first["dry"]:
        words.append("--dry")
    return shlex.join(words)


def _bundle(record: Record) -> list[str]:
    if "bundle" not in record:
        return []
    if str(record["bundle"]["weights"]).startswith("seeded"):
        return ["--bundle", subject_of(record)]
    return ["--bundle", f"BUNDLE-{record['bundle']['sha256'][:12]}"]


def _cases(records: Sequence[Record]) -> list[str]:
    names = [case_of(record) for record in records if "case" in record]
    names += [case["name"] for record in records for case in record.get("cases", ())]
    if not names:
        return []
    for kind, shapes in CASE_SETS.items():
        known = {shape.name: shape for shape in shapes}
        if set(names) <= known.keys():
            if len(names) == len(known):
                return ["--cases", kind]
            chosen = [known[name] for name in names]
            numbers = [s.number if shapes is PUBLISHED else s.slices for s in chosen]
            return ["--cases", f"{kind}:{','.join(map(str, numbers))}"]
    return ["--cases", "YOUR-SCANS"]


def _lineup(config: Record) -> list[str]:
    words = ["--repeats", str(config["repeats"])]
    if config.get("threads"):
        words += ["--threads", str(config["threads"])]
    people = [person for person in config.get("contestants", ()) if isinstance(person, dict)]
    variants = [backend for backend, _ in config.get("variants", ())]
    ours = [person["backend"] for person in people if is_ours(person["name"])]
    backends = list(dict.fromkeys([*config.get("backends", ()), *variants, *ours]))
    if backends and "auto" not in backends:
        words += ["--backends", ",".join(backends)]
    others = [person["name"] for person in people if not is_ours(person["name"])]
    if people:
        words += ["--baselines", ",".join(others) or "none"]
        precision = next((p["precision"] for p in people if is_ours(p["name"])), "auto")
        words += [] if precision == "auto" else ["--precision", precision]
        words += ["--compile"] if any(person["compiled"] for person in people) else []
    return words
