"""Makes a net as fast as torch gets here: precision, memory layout and compiler, by measurement."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_REPEATS = 3
_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a net; ``dtype`` is that of weights and patches."""

    dtype: torch.dtype
    channels_last: bool
    compiled: bool

    @property
    def name(self) -> str:
        """How a record calls it."""
        parts = [_NAMES[self.dtype]]
        parts += ["channels last"] if self.channels_last else []
        parts += ["compiled"] if self.compiled else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """The fastest setting found, as a net that takes and gives float32."""

    module: Callable[[Tensor], Tensor]
    setting: Setting
    tried_ms: Mapping[str, float | str]
    device: torch.device

    @property
    def facts(self) -> Mapping[str, object]:
        """What was tried and taken."""
        return {
            "precision": self.setting.name.partition(",")[0],
            "taken": self.setting.name,
            "tried_ms": dict(self.tried_ms),
        }

    def scores(self, patches: Tensor) -> Tensor:
        """Return float32 scores of float32 patches."""
        with torch.inference_mode():
            return self.module(_arranged(patches, self.setting)).float()

    def run(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same for arrays."""
        given = torch.from_numpy(patches).to(self.device)
        scores: NDArray[np.float32] = self.scores(given).contiguous().cpu().numpy()
        return scores


def tuned_net(net: nn.Module, patch: Tensor, *, compiled: bool) -> Tuned:
    """Return the net under the setting that takes least time on a patch (or batch of patches).

    Settings: float32 and bfloat16, on a GPU float16 as well, with channels first and last; the
    best of them also compiled, if asked. The net must be where the patch is. A setting that fails
    is noted and passed over.
    """
    tried: dict[str, float | str] = {}
    modules: dict[Setting, Callable[[Tensor], Tensor]] = {}
    halves = (torch.float16,) if patch.is_cuda else ()
    for dtype in (torch.float32, torch.bfloat16, *halves):
        for last in (False, True):
            _try(
                net, Setting(dtype=dtype, channels_last=last, compiled=False), patch, tried, modules
            )
    best = _fastest(tried, modules)
    if compiled:
        also = Setting(dtype=best.dtype, channels_last=best.channels_last, compiled=True)
        _try(net, also, patch, tried, modules)
    best = _fastest(tried, modules)
    return Tuned(module=modules[best], setting=best, tried_ms=tried, device=patch.device)


def _fastest(
    tried: Mapping[str, float | str], modules: Mapping[Setting, Callable[[Tensor], Tensor]]
) -> Setting:
    return min(modules, key=lambda setting: float(tried[setting.name]))


def _try(
    net: nn.Module,
    setting: Setting,
    patch: Tensor,
    tried: dict[str, float | str],
    modules: dict[Setting, Callable[[Tensor], Tensor]],
) -> None:
    try:
        module = _prepared(net, setting)
        tried[setting.name] = round(_median_ms(module, _arranged(patch, setting)), 2)
        modules[setting] = module
    except Exception as error:  # compilers raise many kinds; the setting is simply not taken
        if setting.dtype == torch.float32 and not setting.compiled:
            raise
        tried[setting.name] = f"failed: {type(error).__name__}"


def _prepared(net: nn.Module, setting: Setting) -> Callable[[Tensor], Tensor]:
    own = copy.deepcopy(net).eval().to(setting.dtype)
    if setting.channels_last:
        own = own.to(memory_format=_layout(own))  # type: ignore[call-overload]
    if not setting.compiled:
        return own
    return torch.compile(own)


def _layout(net: nn.Module) -> torch.memory_format:
    most = max(weights.ndim for weights in net.state_dict().values())
    return torch.channels_last_3d if most == 5 else torch.channels_last


def _arranged(patch: Tensor, setting: Setting) -> Tensor:
    given = patch.to(setting.dtype)
    if not setting.channels_last:
        return given
    layout = torch.channels_last_3d if patch.ndim == 5 else torch.channels_last
    return given.contiguous(memory_format=layout)


def _median_ms(module: Callable[[Tensor], Tensor], patch: Tensor) -> float:
    spent = []
    with torch.inference_mode():
        _done(module(patch))
        for _ in range(_REPEATS):
            start = time.perf_counter()
            _done(module(patch))
            spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent)


def _done(scores: Tensor) -> None:
    """Waits for a GPU that answered before it had computed."""
    if scores.is_cuda:
        torch.cuda.synchronize(scores.device)
