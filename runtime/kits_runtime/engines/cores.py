"""How many threads an engine should use."""

import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(topology: Path = TOPOLOGY, quota: Path = QUOTA) -> int:
    """The number of physical cores that this process may use, at least 1.

    Counts the cores behind the processors of the scheduler's affinity mask, so two hyper-threads
    are one core. A container's quota of processor time caps it: threads beyond the quota would be
    stopped in turn, and the others would wait for them.
    """
    cores = {_siblings(topology, cpu) for cpu in os.sched_getaffinity(0)}
    limit = _quota(quota)
    return max(1, len(cores) if limit is None else min(len(cores), limit))


def _siblings(topology: Path, cpu: int) -> str:
    """What identifies the core of a processor: Linux's list of its hyper-threads."""
    try:
        return (topology / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota(path: Path) -> int | None:
    """The whole processors that a control group grants, None where it grants all."""
    try:
        granted_us, period_us = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if granted_us == "max" else int(granted_us) // int(period_us)
