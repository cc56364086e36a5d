"""Memory of a GPU by hand: shapes in, bytes out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits_runtime.device.plan import (
    DEFAULT_LIMIT,
    STATISTICS_VOXELS,
    DevicePlan,
    Load,
    StageShape,
    expected_bytes,
    planned,
    smaller,
    within_memory,
)
from kits_runtime.errors import OutOfMemoryError

MIB = 1 << 20
SMALL = StageShape(plane=(16, 16), window=(8, 16, 16), in_channels=1, classes=2)
# A published net's window on the region of a whole abdomen, and three classes.
USUAL = StageShape(plane=(250, 250), window=(64, 256, 256), in_channels=1, classes=3)
PLAN = DevicePlan(rows_at_once=8, batch=2, scan_rows=16)


def load(stage: StageShape, scan: tuple[int, int, int] = (300, 512, 512)) -> Load:
    return Load(scan=scan, stages=(stage,))


def test_bytes_are_those_counted_by_hand() -> None:
    stage = StageShape(plane=(200, 300), window=(50, 100, 400), in_channels=2, classes=3, nets=2)
    plane = 200 * 400  # padded to the window along x
    source = 16 * 512 * 400 * 5
    layer = 2 * 50 * plane * 4
    sums = 50 * plane * 6 * 4
    calls = 2 * 50 * 100 * 400 * (2 * 2 + 5 * 3) * 4
    labels = 8 * 512 * 400 + 50 * plane
    all_of_it = Load(scan=(300, 512, 400), stages=(stage,), engine_bytes=7)
    inner = source + layer + sums + calls + labels
    assert expected_bytes(all_of_it, PLAN) == 300 * 512 * 400 * 2 + 7 + inner
    assert expected_bytes(all_of_it, replace(PLAN, whole_scan=False)) == 7 + inner


def test_statistics_count_where_windows_take_less() -> None:
    tiny = load(SMALL, (4, 8, 8))
    source = 16 * 64 * 5
    assert expected_bytes(tiny, PLAN) == 4 * 64 * 2 + source + STATISTICS_VOXELS * 32


def test_slices_asked_together_and_two_boxes_are_counted() -> None:
    stage = StageShape(
        plane=(500, 600), window=(1, 500, 600), in_channels=3, classes=2, slices_at_once=8
    )
    scan = (9, 512, 512)
    plane = 500 * 600
    layer = 2 * (8 + 3) * plane * 4
    sums = 8 * plane * 5 * 4
    calls = 8 * plane * (2 * 3 + 4 * 2) * 4
    labels = 8 * 512 * 512 + 8 * plane
    rest = 16 * 512 * 512 * 5 + 2 * 9 * 512 * 512
    assert expected_bytes(load(stage, scan), PLAN) == layer + sums + calls + labels + rest
    joined = 8 * 700 * 600 * 7 * 4
    twice = 2 * (layer + sums + calls) + joined + labels + rest
    assert expected_bytes(load(replace(stage, joined_plane=(700, 600)), scan), PLAN) == twice
    assert expected_bytes(load(stage, scan), replace(PLAN, batch=99)) == expected_bytes(
        load(stage, scan), PLAN
    )


def test_stages_share_memory_but_not_with_engines() -> None:
    one = Load(scan=(10, 64, 64), stages=(USUAL,))
    two = Load(scan=(10, 64, 64), stages=(USUAL, SMALL), engine_bytes=300 * MIB)
    assert expected_bytes(two, PLAN) == expected_bytes(one, PLAN) + 300 * MIB


@given(slices=st.integers(1, 10**7), batch=st.sampled_from([1, 2, 4, 8]))
def test_any_number_of_slices_of_the_usual_plane_fits_into_two_gibibytes(
    slices: int, batch: int
) -> None:
    usual = load(USUAL, (slices, 512, 512))
    plan = planned(usual, batch=batch)
    assert expected_bytes(usual, plan) <= DEFAULT_LIMIT
    if slices <= 1059:
        assert plan.whole_scan


def test_slices_are_given_up_before_windows_and_the_scan_s_place_last() -> None:
    usual = load(USUAL, (400, 512, 512))
    roomy = planned(usual, batch=4, limit_bytes=8 << 30)
    assert roomy == DevicePlan(rows_at_once=64, batch=4, scan_rows=64)
    limit = expected_bytes(usual, roomy)
    plans = []
    while roomy.whole_scan:
        roomy = planned(usual, batch=4, limit_bytes=limit - 1)
        limit = expected_bytes(usual, roomy)
        plans.append(roomy)
    assert plans[0] == DevicePlan(rows_at_once=32, batch=4, scan_rows=64)
    batches = [plan.batch for plan in plans]
    assert batches[:-1] == sorted(batches[:-1], reverse=True)
    assert plans[-2].batch == 1
    assert (plans[-1].rows_at_once, plans[-1].whole_scan) == (64, False)


def test_a_limit_that_nothing_meets_ends_with_7_and_says_what_would_do() -> None:
    usual = load(USUAL, (100, 512, 512))
    smallest = DevicePlan(rows_at_once=1, batch=1, scan_rows=4, whole_scan=False)
    least = expected_bytes(usual, smallest)
    with pytest.raises(OutOfMemoryError, match="found a limit of 64 MiB, expected at lea") as said:
        planned(usual, batch=8, limit_bytes=64 * MIB)
    assert f"{-(-least // MIB)} MiB for a scan of 100 x 512 x 512 voxels" in str(said.value)
    assert said.value.exit_code == 7
    assert planned(usual, limit_bytes=least) == smallest


@pytest.mark.parametrize("error", [MemoryError("pool"), OutOfMemoryError("driver")])
def test_a_full_device_is_met_with_one_smaller_plan(error: Exception) -> None:
    asked: list[DevicePlan] = []

    def attempt(plan: DevicePlan) -> str:
        asked.append(plan)
        if len(asked) == 1:
            raise error
        return "labels"

    assert within_memory(load(USUAL), PLAN, attempt) == "labels"
    less = DevicePlan(rows_at_once=2, batch=1, scan_rows=8, whole_scan=False)
    assert asked == [PLAN, less]
    assert expected_bytes(load(USUAL), less) < expected_bytes(load(USUAL), PLAN)


def test_a_device_that_stays_full_ends_with_7_and_advice() -> None:
    asked: list[DevicePlan] = []

    def attempt(plan: DevicePlan) -> str:
        asked.append(plan)
        raise MemoryError

    usual = load(USUAL)
    less = smaller(PLAN)
    assert less is not None
    room = -(-expected_bytes(usual, less) // MIB)
    with pytest.raises(OutOfMemoryError, match=f"at 2 slices and 1 windows .* {room} MiB") as said:
        within_memory(usual, PLAN, attempt)
    assert (len(asked), said.value.exit_code) == (2, 7)
    assert "--max-gpu-mem" in str(said.value)
    least = DevicePlan(rows_at_once=1, batch=1, scan_rows=4, whole_scan=False)
    assert smaller(least) is None
    with pytest.raises(OutOfMemoryError, match="full at 1 slices"):
        within_memory(usual, least, attempt)
    assert len(asked) == 3


def test_other_errors_are_not_taken_for_full_memory() -> None:
    def attempt(_plan: DevicePlan) -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        within_memory(load(USUAL), PLAN, attempt)
