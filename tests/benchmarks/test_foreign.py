"""Foreign load is what the machine used and we did not."""

import os
from pathlib import Path

import pytest

from kits_bench.foreign import Usage, foreign_load, usage_now, worst_of

TICK = os.sysconf("SC_CLK_TCK")


def usage(*, at_s: float, busy_s: float, own_s: float, stolen_s: float = 0.0) -> Usage:
    return Usage(at_s=at_s, busy_s=busy_s, stolen_s=stolen_s, own_s=own_s)


def test_our_own_work_is_not_foreign() -> None:
    load = foreign_load(
        usage(at_s=0, busy_s=100, own_s=10), usage(at_s=10, busy_s=120, own_s=30), cores=2
    )
    assert load.cores == 0
    assert not load.flagged


def test_what_others_used_is_counted_in_cores_and_flagged() -> None:
    load = foreign_load(
        usage(at_s=0, busy_s=100, own_s=10), usage(at_s=10, busy_s=125, own_s=30), cores=2
    )
    assert load.cores == pytest.approx(0.5)
    assert load.flagged


def test_stolen_time_is_foreign() -> None:
    before, after = usage(at_s=0, busy_s=0, own_s=0), usage(at_s=4, busy_s=0, own_s=0, stolen_s=1)
    load = foreign_load(before, after, cores=2)
    assert load.stolen == pytest.approx(0.25)
    assert load.flagged


def test_a_little_of_others_is_not_flagged() -> None:
    before, after = usage(at_s=0, busy_s=0, own_s=0), usage(at_s=10, busy_s=1, own_s=0)
    assert not foreign_load(before, after, cores=2).flagged


def test_the_kernels_tables_are_read_as_they_are_written(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice
    (tmp_path / "stat").write_text(f"cpu  {7 * TICK} 0 {3 * TICK} 50 50 0 0 {2 * TICK} 0 0\nx\n")
    (tmp_path / "12").mkdir()
    times = f"{4 * TICK} {1 * TICK} {2 * TICK} 0"
    (tmp_path / "12" / "stat").write_text(f"12 (a ) b) R 1 1 1 0 -1 0 0 0 0 0 {times} 20 0\n")
    found = usage_now([12, 99], proc=tmp_path)
    assert (found.busy_s, found.stolen_s, found.own_s) == (10.0, 2.0, 7.0)


def test_this_machine_can_be_read() -> None:
    before = usage_now([os.getpid()])
    assert before.busy_s > 0
    assert before.own_s > 0


def test_a_summary_says_whether_any_run_was_disturbed() -> None:
    quiet = foreign_load(
        usage(at_s=0, busy_s=0, own_s=0), usage(at_s=1, busy_s=0, own_s=0), cores=2
    )
    loud = foreign_load(usage(at_s=0, busy_s=0, own_s=0), usage(at_s=1, busy_s=1, own_s=0), cores=2)
    found = worst_of([quiet, loud])
    assert (found["flagged"], found["flagged_runs"], found["measured"]) == (True, 1, 2)
    assert (found["mean_cores"], found["most_cores"]) == (0.5, 1.0)
