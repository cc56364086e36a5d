"""Watches the processors over a block that runs in this process and its children."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from kits_bench.foreign import foreign_load, usage_now, worst_of


@dataclass(slots=True)
class Watched:
    """What was found once the block has ended."""

    facts: Mapping[str, object] = field(default_factory=dict)


@contextmanager
def watched() -> Iterator[Watched]:
    """Fills in, at the block's end, what others used of the processors meanwhile."""
    found = Watched()
    before = usage_now([os.getpid()])
    try:
        yield found
    finally:
        after = usage_now([os.getpid()])
        load = foreign_load(before, after, cores=len(os.sched_getaffinity(0)))
        found.facts = worst_of([load])
