"""The state file of a check: what each item gave, under a key of everything it depends on.

It is written whole after each item, so that a kill costs the item that was running and no other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kits_bench.gpu_check.plan import Facts
from kits_runtime.errors import UsageError
from kits_runtime.files import replacing

SCHEMA = 1
State = Literal["ok", "unrun", "failed"]
Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The results of one key in a file that may hold those of others too."""

    path: Path
    key: str
    configuration: Facts

    def results(self) -> Mapping[str, Result]:
        """The results by item.

        Raises:
            UsageError: the file is no state file.
        """
        own = self._runs().get(self.key, {"items": {}})
        items: Mapping[str, Result] = own["items"]
        return items

    def put(self, item: str, result: Result) -> None:
        """Adds a result, or replaces one."""
        runs = self._runs()
        own = runs.setdefault(self.key, {"configuration": self.configuration, "items": {}})
        own["items"][item] = dict(result)
        self._write(runs)

    def forget(self, states: tuple[State, ...]) -> None:
        """Drops results in some states, so that their items run again."""
        runs = self._runs()
        if self.key in runs:
            items = runs[self.key]["items"]
            runs[self.key]["items"] = {n: r for n, r in items.items() if r["state"] not in states}
            self._write(runs)

    def _runs(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            content = json.loads(self.path.read_bytes())
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            return dict(content["runs"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.path}: found no state of a check ({error}), expected one of schema "
                f"{SCHEMA}; move it away or choose another --out"
            ) from error

    def _write(self, runs: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as stream:
            stream.write((json.dumps({"schema": SCHEMA, "runs": runs}, indent=1) + "\n").encode())
