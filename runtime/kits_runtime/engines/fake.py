"""An engine that is a plain function, for tests and dry runs."""

import threading
from collections.abc import Callable
from dataclasses import replace

from kits_runtime.engines.border import closed_error, fill_scores, run_calls
from kits_runtime.engines.protocol import Array, EngineSpec


class FakeEngine:
    """Scores from a function of patches, with all the promises of a real engine.

    The function gets at most ``spec.batch`` windows a call and returns their scores. Whatever
    backend the spec names, the engine calls itself 'fake', so no record can pass for a real one.
    """

    def __init__(self, spec: EngineSpec, function: Callable[[Array], Array]) -> None:
        self._spec = replace(spec, backend="fake")
        self._function: Callable[[Array], Array] | None = function
        self._turn = threading.Lock()

    @property
    def spec(self) -> EngineSpec:
        """What this engine is."""
        return self._spec

    def run(self, patches: Array) -> Array:
        """The function's scores, checked like any engine's."""
        with self._turn:
            return run_calls(self._spec, patches, self._call)

    def close(self) -> None:
        """Forget the function."""
        with self._turn:
            self._function = None

    def __enter__(self) -> "FakeEngine":
        """The engine itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def _call(self, patches: Array, scores: Array) -> None:
        if self._function is None:
            raise closed_error(self._spec)
        fill_scores(scores, self._function(patches), self._spec.net)
