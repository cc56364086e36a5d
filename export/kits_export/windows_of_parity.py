"""The windows on which scores are compared: some at random, some as the pipeline cuts them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kits_runtime.engines import Engine, NetSpec
from kits_runtime.engines.protocol import Array
from kits_runtime.infer import RunNet

_LARGE_VOX = 1 << 20  # a window of more voxels costs seconds, so one of each kind has to do
_SEED = 0


def random_windows(spec: NetSpec) -> Array:
    """Uniform values in 0 to 1, the range that most systems scale to; one window."""
    return np.random.default_rng(_SEED).random(spec.input_shape(1), dtype=np.float32)


class Watch:
    """Nets that run as before while the windows with the most foreground are kept.

    Also keeps the windows of the last call, so that who catches an engine's error can say which.
    """

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._kept: dict[str, list[tuple[float, NDArray[np.float32]]]] = {
            name: [] for name in engines
        }
        self.last: tuple[str, Array] | None = None

    @property
    def nets(self) -> Mapping[str, RunNet]:
        """The nets by name, as the executor takes them."""
        return {name: self._watched(name) for name in self._engines}

    def windows(self, name: str) -> Array:
        """Random windows of a net and those that were kept."""
        spec = self._engines[name].spec.net
        kept = [window[None] for _, window in self._kept[name]]
        return np.concatenate([random_windows(spec), *kept])

    def seen(self, name: str) -> int:
        """How many windows of the cases were kept; 0 where the net was never asked."""
        return len(self._kept[name])

    def _watched(self, name: str) -> RunNet:
        engine = self._engines[name]

        def run(patches: Array) -> Array:
            self.last = (name, patches.copy())
            scores = engine.run(patches)
            for patch, score in zip(patches, scores, strict=True):
                self._keep(name, patch, _foreground(score))
            return scores

        return run

    def _keep(self, name: str, patch: NDArray[np.float32], foreground: float) -> None:
        kept = self._kept[name]
        most = 1 if patch.size > _LARGE_VOX else 2
        if len(kept) < most or foreground > kept[-1][0]:
            kept.append((foreground, patch.copy()))
            kept.sort(key=lambda pair: -pair[0])
            del kept[most:]


def _foreground(score: NDArray[np.float32]) -> float:
    """The sum of a window's foreground scores; a lone channel is foreground."""
    return float(score.sum() if len(score) == 1 else score[1:].sum())
