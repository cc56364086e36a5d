"""The last part: a table for people and one record with everything that the check found."""

from collections.abc import Mapping, Sequence

from kits_bench.gpu_check.ledger import Result
from kits_bench.gpu_check.parts import PARTS
from kits_bench.gpu_check.plan import Settings
from kits_bench.gpu_check.targets import rows_of, table
from kits_bench.machine import machine_facts
from kits_bench.records import SCHEMA, write_record

NAME = "gpu-check"
Results = Mapping[str, Result]


def write_summary(settings: Settings, results: Results) -> str:
    """Writes the table and the record, and returns the text of the table.

    What no item gave is in neither; figures of a dry run are marked as such in both.
    """
    rows = rows_of(results, settings)
    text = "\n".join([*_head(settings, results), table(rows, dry=settings.dry), *_bad(results)])
    record = {
        "schema": SCHEMA,
        "kind": NAME,
        "dry": settings.dry,
        "config": settings.configuration,
        "machine": dict(machine_facts()),
        "targets": [row.to_plain() for row in rows],
        "items": {name: _without_records(result) for name, result in results.items()},
    }
    write_record(settings.records("own") / f"{NAME}.json", record)
    settings.folder.mkdir(parents=True, exist_ok=True)
    (settings.folder / "summary.md").write_text(text, encoding="utf-8")
    return text


def _head(settings: Settings, results: Results) -> list[str]:
    lines = [f"# Check on {settings.gpu}", ""]
    for part in PARTS:
        items = part.items(settings)
        states = [results[item.id]["state"] for item in items if item.id in results]
        if items:
            counts = ", ".join(f"{states.count(s)} {s}" for s in ("ok", "unrun", "failed"))
            left = len(items) - len(states)
            lines.append(f"- {part.number} {part.name}: {counts}, {left} not reached")
    return [*lines, ""]


def _bad(results: Results) -> Sequence[str]:
    """Reasons, each once, with how many items gave it."""
    whys: dict[str, list[str]] = {}
    for name, result in results.items():
        if result["state"] != "ok":
            whys.setdefault(f"{result['state']}: {result['why']}", []).append(name)
    lines = [
        f"- {why} ({len(names)} items, the first is {names[0]})" for why, names in whys.items()
    ]
    return ["## What did not run", "", *lines, ""] if lines else []


def _without_records(result: Result) -> Result:
    """A result without the records that lie beside it in files of their own."""
    facts = {name: value for name, value in result["facts"].items() if name != "records"}
    return {**result, "facts": facts}
