"""One contestant in a process of its own, warm between requests: JSON lines in, JSON lines out.

``python -m kits_bench.worker SPEC`` opens the contestant that the JSON describes, says that it is
ready, then answers one request a line until its input ends. What libraries print goes to stderr.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from kits_runtime.errors import BackendUnavailableError, KitsError
from kits_runtime.record import peak_rss_mb


def main() -> int:
    """Serves requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # nothing a library prints may stand between the answers
    logging.disable(logging.WARNING)
    spec = json.loads(sys.argv[1])
    try:
        way = open_way(spec)
    except (BackendUnavailableError, ImportError) as error:
        return _said(answers, {"state": "unrun", "why": _line(error)})
    except (KitsError, MemoryError, RuntimeError, OSError, ValueError) as error:
        return _said(answers, {"state": "failed", "why": _line(error)})
    _said(answers, {"state": "ready", "facts": way.facts})
    for line in sys.stdin:
        _said(answers, _answered(way, json.loads(line)))
    return 0


def open_way(spec: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a Way, imported when it is known which
    """The contestant that a specification names; its libraries are imported here."""
    from kits_bench import ways
    from kits_bench.engine_options import cached_options

    bundle, threads = Path(spec["bundle"]), spec["threads"]
    if spec["way"] == "kits-trt":
        options = cached_options(precision=spec["precision"], threads=threads)
        return ways.OurWay(bundle, backend=spec["backend"], options=options)
    if spec["way"] == "fake":
        return ways.fake_way(bundle)
    import torch

    device = spec["device"]
    if threads is not None:
        torch.set_num_threads(threads)
    if spec["way"] == "monai":
        from kits_bench.monai_way import MonaiWay

        return MonaiWay(bundle, device=device)
    if spec["way"] == "tuned":
        from kits_bench.tuned_way import TunedWay

        return TunedWay(bundle, compiled=spec["compiled"], device=device)
    tuned = spec["way"] == "torch-tuned"
    return ways.torch_way(bundle, tuned=tuned, compiled=spec["compiled"], device=device)


def _answered(way: Any, request: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ANN401
    out = Path(request["out"])
    out.mkdir(parents=True, exist_ok=True)
    try:
        answer = way.segment(Path(request["scan"]), out)
    except (KitsError, MemoryError, RuntimeError, OSError, ValueError) as error:
        return {"state": "failed", "why": _line(error)}
    return {
        "state": "ok",
        "wall_ms": answer.wall_ms,
        "way_back_ms": answer.way_back_ms,
        "phase_ms": dict(answer.phase_ms),
        "windows": dict(answer.windows),
        "mask": str(answer.mask),
        "peak_rss_mb": peak_rss_mb(),
    }


def _said(stream: TextIO, answer: Mapping[str, object]) -> int:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
    return 0


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


if __name__ == "__main__":
    sys.exit(main())
