"""The engine around whatever computes a net on a GPU: memory, copies and the promises of engines.

Buffers for the largest batch lie on the device for the engine's life, so that a graph recorded with
their addresses stays good. Patches and scores pass through page-locked memory of the host, or, for
arrays that are on the device already, from there.
"""

import threading
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any, Protocol

import numpy as np

from kits_runtime.engines.border import closed_error, converted, run_calls
from kits_runtime.engines.cuda_memory import Device
from kits_runtime.engines.protocol import Array, EngineSpec


class Compute(Protocol):
    """What computes a net between two places on the device."""

    @property
    def batches(self) -> tuple[int, ...]:
        """How many windows it can take at once, the largest first."""
        ...

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Those of patches and scores on the device."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a record should say of it, once it has computed."""
        ...

    def bind(self, patches: int, scores: int) -> None:
        """Get ready to read and write at these addresses."""
        ...

    def queue(self, windows: int) -> None:
        """Compute so many windows, one of ``batches``, in the device's order."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class GpuEngine:
    """One net on a GPU; it owns the device object and the computing it is given."""

    def __init__(self, spec: EngineSpec, device: Device, compute: Compute) -> None:
        self._device = device
        self._compute: Compute | None = compute
        self._turn = threading.Lock()
        self._in_dtype, self._out_dtype = compute.dtypes
        self._batches = compute.batches
        self._most = most = compute.batches[0]
        self._in_bytes = prod(spec.net.input_shape(1)) * self._in_dtype.itemsize
        self._out_bytes = prod(spec.net.output_shape(1)) * self._out_dtype.itemsize
        with device.current():
            self._patches_at = device.allocate(most * self._in_bytes)
            self._scores_at = device.allocate(most * self._out_bytes)
            self._sent = device.pinned(most * self._in_bytes).view(self._in_dtype)
            self._got = device.pinned(most * self._out_bytes).view(self._out_dtype)
            compute.bind(self._patches_at, self._scores_at)
        self._spec = spec

    @property
    def spec(self) -> EngineSpec:
        """What this engine is; notes may come with the first windows."""
        compute = self._compute
        return self._spec if compute is None else replace(self._spec, notes=compute.notes)

    @property
    def dtypes(self) -> "tuple[np.dtype[Any], np.dtype[Any]]":
        """Those of patches and scores where they lie on the device."""
        return self._in_dtype, self._out_dtype

    @property
    def device_bytes(self) -> int:
        """What its buffers take on the device; the library's own memory is not known."""
        return (self._in_bytes + self._out_bytes) * self._most

    @property
    def batches(self) -> tuple[int, ...]:
        """How many windows it may take at once, the largest first."""
        return self._batches

    def limit_batch(self, batch: int) -> None:
        """Take at most so many windows at once, where smaller batches are to be had."""
        with self._turn:
            self._batches = tuple(b for b in self._batches if b <= batch) or self._batches[-1:]
            self._spec = replace(self._spec, batch=self._batches[0])

    def run(self, patches: Array) -> Array:
        """The scores of ``patches``, see ``Engine.run``."""
        with self._turn:
            if self._compute is None:
                raise closed_error(self._spec)
            with self._device.current():
                return run_calls(self._spec, patches, self._call)

    def run_at(self, patches: int, scores: int, windows: int) -> None:
        """Compute windows that lie at one address of the device and leave scores at another.

        Both are contiguous and of ``dtypes``. What wrote the patches must be done; when this
        returns, the scores are there. They are not checked.

        Raises:
            EngineError: the engine is closed, or failed.
        """
        with self._turn, self._device.current():
            for first, count, room in self._parts(windows):
                self._device.copy(
                    self._patches_at, patches + first * self._in_bytes, count * self._in_bytes
                )
                self._ready().queue(room)
                self._device.copy(
                    scores + first * self._out_bytes, self._scores_at, count * self._out_bytes
                )
            self._device.wait()

    def close(self) -> None:
        """Give the net, the memory and the stream back."""
        with self._turn:
            if self._compute is not None:
                self._spec = self.spec
                with self._device.current():
                    self._compute.close()
                self._compute = None
                self._device.close()

    def __enter__(self) -> "GpuEngine":
        """The engine itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close."""
        self.close()

    def _ready(self) -> Compute:
        if self._compute is None:
            raise closed_error(self._spec)
        return self._compute

    def _parts(self, windows: int) -> Iterator[tuple[int, int, int]]:
        """First window, number of windows and batch of each call that these windows take.

        A batch that is too large is used only where there is no smaller one: then the rest of its
        windows is whatever lies there, and nobody reads their scores.
        """
        batches = self._batches
        first = 0
        while first < windows:
            left = windows - first
            room = next((batch for batch in batches if batch <= left), batches[-1])
            yield first, min(room, left), room
            first += room

    def _call(self, patches: Array, scores: Array) -> None:
        given = converted(patches, self._in_dtype, self._spec)
        for first, count, room in self._parts(len(given)):
            part = slice(first, first + count)
            sent = self._sent[: given[part].size]
            np.copyto(sent.reshape(given[part].shape), given[part])
            self._device.upload(self._patches_at, sent)
            self._ready().queue(room)
            got = self._got[: scores[part].size]
            self._device.download(got, self._scores_at)
            self._device.wait()
            scores[part] = got.reshape(scores[part].shape)
