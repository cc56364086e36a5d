"""The process of one item: does what the request says and leaves an answer in a file."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kits_bench.gpu_check.plan import settings_from_plain
from kits_runtime.errors import BackendUnavailableError, KitsError

_LOOKS_EVERY_S = 0.5


def main() -> None:
    """Reads the request from the command line and answers it."""
    request = json.loads(sys.argv[1])
    _end_with_parent()
    logging.basicConfig(level=logging.WARNING)
    answer = answer_of(request)
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def answer_of(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the item gave: its state, its facts, or one line on why there are none."""
    from kits_bench.gpu_check.tasks import TASKS

    try:
        settings = settings_from_plain(request["settings"])
        facts = TASKS[request["task"]](settings, request["interpreter"], request["arguments"])
    except BackendUnavailableError as error:
        return {"state": "unrun", "why": _line(error), "facts": {}}
    except ImportError as error:
        return {"state": "unrun", "why": f"a package is missing here: {_line(error)}", "facts": {}}
    except (KitsError, ArithmeticError, LookupError, MemoryError, OSError) as error:
        return {"state": "failed", "why": _line(error), "facts": {}}
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:  # libraries raise these
        return {"state": "failed", "why": _line(error), "facts": {}}
    state = facts.pop("state", "ok")
    return {"state": state, "why": facts.pop("why", ""), "facts": facts}


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, KitsError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:400]


def _end_with_parent() -> None:
    """Ends this process and all that it started once the one that asked for it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOKS_EVERY_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
