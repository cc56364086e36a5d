"""The contestants of a run, each a warm process that answers one request at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kits_bench.tuning_settings import MALLOC_SETTINGS

Reply = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Who runs, with what: everything a worker process must know."""

    name: str
    way: str
    bundle: str
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    compiled: bool = False
    device: str = "cpu"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> Mapping[str, object]:
        """What a record says of it; not where the bundle lies."""
        return {name: value for name, value in asdict(self).items() if name != "bundle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """What to run beside what: backends of ours, and which baselines."""

    bundle: Path
    backends: tuple[str, ...]
    baselines: tuple[str, ...]
    precision: str = "auto"
    threads: int | None = None
    compiled: bool = False
    device: str = "cpu"  # of the baselines
    dry: bool = False

    def contestants(self, *, patch_stage: bool) -> tuple[Contestant, ...]:
        """Ours first, then the baselines.

        With ``patch_stage`` B0 and B1 are whole pipelines of their own, else torch's nets in our
        stages.
        """
        ours = [self._one(f"kits-trt/{name}", "kits-trt", backend=name) for name in self.backends]
        if self.dry:
            return (self._one("kits-trt/fake", "fake"), self._one("b0", "fake"))
        ways = {
            "b0": "monai" if patch_stage else "torch",
            "b1": "tuned" if patch_stage else "torch-tuned",
            "torch": "torch",
        }
        others = [
            self._one(name, ways[name], tuned=ways[name] in ("tuned", "torch-tuned"))
            for name in self.baselines
        ]
        return (*ours, *others)

    def _one(
        self, name: str, way: str, *, backend: str = "auto", tuned: bool = False
    ) -> Contestant:
        return Contestant(
            name=name,
            way=way,
            bundle=str(self.bundle),
            backend=backend,
            precision=self.precision if way == "kits-trt" else "auto",
            threads=self.threads,
            compiled=self.compiled and tuned,
            device="cpu" if way in ("kits-trt", "fake") else self.device,
            environment=MALLOC_SETTINGS if tuned else {},
        )


class Runner:
    """A contestant's process; it is started at the first request and again after a crash."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.facts: Mapping[str, object] = {}
        self._process: subprocess.Popen[str] | None = None
        self._verdict: Reply | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        return None if self._process is None else self._process.pid

    def ask(self, scan: Path, out: Path) -> Reply:
        """The reply to one request; a contestant that cannot run says so each time."""
        if self._verdict is not None:
            return self._verdict
        if self._process is None:
            ready = self._start()
            if ready["state"] != "ready":
                self.stop()
                self._verdict = ready
                return ready
            self.facts = ready["facts"]
        reply = self._exchange({"scan": str(scan), "out": str(out)})
        if reply["state"] == "ended":
            self.stop()
        return reply

    def stop(self) -> None:
        """Ends the process."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def _start(self) -> Reply:
        spec = json.dumps(asdict(self.contestant))
        paths = os.pathsep.join(path for path in sys.path if path)
        threads = self.contestant.threads
        limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kits_bench.worker", spec],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, **limits, **self.contestant.environment},
        )
        return self._read()

    def _exchange(self, request: Mapping[str, str]) -> Reply:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._ended()
        return self._read()

    def _read(self) -> Reply:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return self._ended()
        reply: Reply = json.loads(line)
        return reply

    def _ended(self) -> Reply:
        assert self._process is not None
        code = self._process.wait()
        return {"state": "ended", "why": f"its process ended with code {code}"}
