"""The parts of a check as a table: each is a short list of items that depends on settings alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from kits_bench.gpu_check.plan import CONTENDERS, Contender, Item, Settings
from kits_bench.gpu_check.subjects import short_name

BUDGET_S = 450.0
_TORCH_BATCH = 4
_MEMORY_CASES = 2
_CASES_A_TURN = 5  # contestants stay warm over so many: B1 compiles once


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part: its number on the command line, what it is, and its items."""

    number: int
    name: str
    title: str
    items: Callable[[Settings], list[Item]]


def _environment(_settings: Settings) -> list[Item]:
    return [
        Item(id=f"environment/{where}", task="environment", interpreter=where, limit_s=120)
        for where in ("own", "trt86")
    ]


def _each(settings: Settings, systems: tuple[str, ...]) -> Iterator[tuple[str, Contender, str]]:
    yield from product(systems, settings.contenders, settings.precisions)


def _item(task: str, where: tuple[str, Contender, str], case: str | None = None) -> Item:
    system, contender, precision = where
    names = [task, short_name(system), contender.name, precision]
    arguments = {"system": system, "backend": contender.backend, "precision": precision}
    return Item(
        id="/".join([*names, *([] if case is None else [case])]),
        task=task,
        arguments=arguments if case is None else {**arguments, "case": case},
        interpreter=contender.interpreter,
        resumes=task == "engines",  # those that were built before it was ended are kept
    )


def _engines(settings: Settings) -> list[Item]:
    return [_item("engines", where) for where in _each(settings, settings.systems)]


def _parity(settings: Settings) -> list[Item]:
    items = [Item(id="parity/kernels", task="kernels", limit_s=200)]
    for system, case in product(settings.systems, settings.parity_cases):
        arguments = {"system": system, "case": case}
        name = f"parity/{short_name(system)}/reference/{case}"
        items.append(Item(id=name, task="reference", arguments=arguments))
        items += [_item("parity", where, case) for where in _each(settings, (system,))]
    return items


def _latency(settings: Settings) -> list[Item]:
    items = []
    for system in settings.headline:
        items += [_item("nets", where) for where in _each(settings, (system,))]
        for way in ("b0", "b1"):
            arguments = {"system": system, "way": way, "batch": 1 if settings.dry else _TORCH_BATCH}
            name = f"nets/{short_name(system)}/{way}"
            items.append(Item(id=name, task="torch-nets", arguments=arguments))
    for system, first in product(settings.headline, range(0, len(settings.cases), _CASES_A_TURN)):
        cases = settings.cases[first : first + _CASES_A_TURN]
        items += _suite_items(settings, system, "latency", cases, baselines=("b0", "b1"))
    return items


def _suite_items(
    settings: Settings,
    system: str,
    mode: str,
    cases: tuple[str, ...],
    *,
    baselines: tuple[str, ...] = (),
) -> list[Item]:
    """A mode in this interpreter, all its backends in turns, and in the other one."""
    items = []
    for where in ("own", "trt86"):
        backends = [c.backend for c in settings.contenders if c.interpreter == where]
        arguments = {
            "system": system,
            "mode": mode,
            "backends": backends,
            "baselines": list(baselines) if where == "own" else [],
            "precision": settings.precisions[-1],
            "cases": list(cases),
        }
        name = "/".join([mode, short_name(system), where, *(cases if len(cases) == 1 else ())])
        items.append(
            Item(id=name, task="suite", arguments=arguments, interpreter=where, resumes=True)
        )
    return items


def _cohort(settings: Settings) -> list[Item]:
    items = []
    for system in settings.headline:
        items += _suite_items(settings, system, "throughput", settings.cases)
        for case in settings.parity_cases:
            items += _suite_items(settings, system, "cold", (case,))
        for case in settings.parity_cases[:_MEMORY_CASES]:
            items += _suite_items(settings, system, "memory", (case,))
            last = settings.precisions[-1]
            items += [
                _item("gpu-memory", (system, contender, last), case) for contender in CONTENDERS
            ]
    return items


def _roofs(settings: Settings) -> list[Item]:
    items = [
        Item(
            id=f"windows/sixth/{contender.name}/{precision}",
            task="windows",
            arguments={"backend": contender.backend, "precision": precision},
            interpreter=contender.interpreter,
        )
        for contender, precision in product(settings.contenders, settings.precisions)
    ]
    for system in settings.headline:
        items += _suite_items(settings, system, "roofline", ())[:1]
    return items


def _nothing(_settings: Settings) -> list[Item]:
    return []


PARTS: tuple[Part, ...] = (
    Part(number=1, name="environment", title="what is there and what can run", items=_environment),
    Part(number=2, name="engines", title="engines of all systems", items=_engines),
    Part(number=3, name="parity", title="scores and masks against the reference", items=_parity),
    Part(number=4, name="latency", title="nets and cases beside B0 and B1", items=_latency),
    Part(number=5, name="cohort", title="throughput, cold start, memory", items=_cohort),
    Part(number=6, name="roofs", title="the sixth net and rooflines", items=_roofs),
    Part(number=7, name="summary", title="the table against the targets", items=_nothing),
)
