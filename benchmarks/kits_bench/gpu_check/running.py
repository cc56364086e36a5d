"""Runs items one after the other within a time budget, each in a process of its own.

Whatever an item does (an error, a crash of a library, an endless loop), the next one runs.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kits_bench.gpu_check.ledger import Ledger, Result
from kits_bench.gpu_check.plan import Item, Settings, source_roots

Told = Callable[[str], None]

ENGINES = "cache"  # beside the results
LEAST_S = 5.0  # with less time left, no item is started
_TAIL = 4000
# The launcher of an interpreter may set PYTHONPATH itself, so the path travels in the code.
_CHILD = "import sys; sys.path[:0] = {roots!r}; from kits_bench.gpu_check.task import main; main()"


def run_items(
    items: Sequence[Item], settings: Settings, ledger: Ledger, *, budget_s: float, told: Told
) -> bool:
    """Runs what has no result yet; True if nothing is left, False where the budget ended first."""
    done = ledger.results()
    pending = [item for item in items if item.id not in done]
    start = time.monotonic()
    for place, item in enumerate(pending):
        why = known_why(item, ledger.results())
        if why is not None:
            ledger.put(item.id, {"state": "unrun", "why": why, "seconds": 0.0, "facts": {}})
            told(f"{item.id}: unrun: {why}")
            continue
        left_s = budget_s - (time.monotonic() - start)
        if place and left_s < LEAST_S:
            told(f"the time budget ended; {len(pending) - place} items are left")
            return False
        limit_s = min(item.limit_s, left_s)
        before = _kept(settings)
        result = run_item(item, settings, limit_s=limit_s)
        if result is None and (_short(place, item, limit_s) or _grew(item, before, settings)):
            told(f"{item.id}: cut short by the time budget; it goes on next time")
            return False
        result = result or _failed(f"it ran past {limit_s:.0f} s and was ended", limit_s)
        ledger.put(item.id, result)
        end = f": {result['why']}" if result.get("why") else ""
        told(f"{item.id}: {result['state']}, {result['seconds']:.1f} s{end}")
    return True


def _short(place: int, item: Item, limit_s: float) -> bool:
    """Whether an item had less time than it could have had as the first one."""
    return place > 0 and limit_s < item.limit_s


def _grew(item: Item, before: Mapping[Path, float], settings: Settings) -> bool:
    """Whether an item that resumes left a record, or an engine, before it was ended."""
    return item.resumes and _kept(settings) != before


def _kept(settings: Settings) -> Mapping[Path, float]:
    found = [
        *(settings.folder / "records").rglob("*.json"),
        *(settings.folder / ENGINES).rglob("*.json"),
    ]
    return {path: path.stat().st_mtime for path in found}


def known_why(item: Item, results: Mapping[str, Result]) -> str | None:
    """Why an item's backend cannot run, where the environment's part has found out already."""
    told = results.get(f"environment/{item.interpreter}")
    backend = item.arguments.get("backend")
    if told is None or backend is None:
        return None
    if told["state"] != "ok":
        return str(told["why"])
    why: str | None = told["facts"]["backends"][backend]["why_not"]
    return None if why is None else f"backend {backend}: {why}"


def run_item(item: Item, settings: Settings, *, limit_s: float) -> Result | None:
    """What an item gave; None if it did not end within the limit."""
    python, why = interpreter_of(item, settings)
    if python is None:
        return {"state": "unrun", "why": why, "seconds": 0.0, "facts": {}}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        answer, log = Path(name) / "answer.json", Path(name) / "log.txt"
        request = {
            "settings": {**settings.configuration, "out": settings.out, "cache": settings.cache},
            "task": item.task,
            "arguments": dict(item.arguments),
            "interpreter": item.interpreter,
            "answer": str(answer),
        }
        code = _waited(python, request, log, limit_s)
        seconds = time.monotonic() - start
        if code is None:
            return None
        if answer.is_file():
            return {**json.loads(answer.read_bytes()), "seconds": round(seconds, 2)}
        return _failed(f"its process ended with code {code} ({_last_line(log)})", seconds)


def interpreter_of(item: Item, settings: Settings) -> tuple[str | None, str]:
    """The Python that runs an item, or why there is none."""
    if item.interpreter == "own":
        return sys.executable, ""
    given = settings.trt86_python
    if not given:
        return None, "TRT86_PYTHON is not set: no Python 3.10 with tensorrt 8.6 was named"
    found = shutil.which(given)
    if found is None:
        return None, f"TRT86_PYTHON is {given!r}: no such program"
    return found, ""


def _waited(python: str, request: Mapping[str, Any], log: Path, limit_s: float) -> int | None:
    """The exit code; None if the process had to be ended, with all that it had started.

    Engines are kept beside the results, so that every item finds those that earlier ones built.
    """
    kept = Path(request["settings"]["out"]) / ENGINES
    paths = os.pathsep.join(path for path in sys.path if path)
    own = {"PYTHONPATH": paths} if python == sys.executable else {}
    with log.open("wb") as stream:
        child = subprocess.Popen(
            [python, "-c", _CHILD.format(roots=list(source_roots())), json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **own, "KITS_CACHE": str(kept)},
            start_new_session=True,
        )
        try:
            return child.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_group(child)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself and left nobody behind
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _failed(why: str, seconds: float) -> Result:
    return {"state": "failed", "why": why, "seconds": round(seconds, 2), "facts": {}}


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-_TAIL:].decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
