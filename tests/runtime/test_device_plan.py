"""Memory of a GPU by hand: shapes in, bytes out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits_runtime.device_plan import (
    DEFAULT_LIMIT,
    DevicePlan,
    StageShape,
    expected_bytes,
    planned,
    smaller,
    within_memory,
)
from kits_runtime.errors import OutOfMemoryError

MIB = 1 << 20
SMALL = StageShape(region=(8, 16, 16), window=(8, 16, 16), in_channels=1, classes=2)
# A published net's window on the region of a whole abdomen, and three classes.
USUAL = StageShape(
    region=(128, 250, 250), window=(64, 256, 256), in_channels=1, classes=3, engine_bytes=300 * MIB
)


def test_bytes_are_those_counted_by_hand() -> None:
    stage = StageShape(
        region=(100, 200, 200), window=(50, 100, 100), in_channels=2, classes=3, engine_bytes=7
    )
    region = 2 * 100 * 200 * 200 * 4
    calls = 2 * 2 * 50 * 100 * 100 * (2 + 6) * 4
    sums = 50 * 200 * 200 * 4 * 4
    rows = 8 * 512 * 400 * 13 * 4
    found = expected_bytes((300, 512, 400), [stage], rows_at_once=8, batch=2)
    assert found == 300 * 512 * 400 * 2 + 7 + region + calls + sums + rows


def test_joined_boxes_and_slices_asked_together_are_counted() -> None:
    plain = StageShape(region=(9, 50, 60), window=(1, 50, 60), in_channels=3, classes=2)
    several = replace(plain, windows_at_once=8, joined=True)
    scan = (9, 512, 512)

    def needed(stage: StageShape, batch: int) -> int:
        return expected_bytes(scan, [stage], rows_at_once=64, batch=batch)

    more = 2 * 7 * 50 * 60 * (3 + 4) * 4 + 9 * 50 * 60 * (2 * 4 + 1)
    assert needed(several, 1) - needed(plain, 1) == more
    assert needed(several, 4) == needed(several, 1)


def test_stages_share_memory_but_their_engines_stay() -> None:
    scan = (10, 64, 64)
    one = expected_bytes(scan, [USUAL], rows_at_once=1, batch=1)
    assert expected_bytes(scan, [USUAL, USUAL], rows_at_once=1, batch=1) == one + 300 * MIB


@given(slices=st.integers(1, 1200), batch=st.sampled_from([1, 2, 4, 8]))
def test_scans_of_the_usual_plane_fit_into_two_gibibytes(slices: int, batch: int) -> None:
    plan = planned((slices, 512, 512), [USUAL], batch=batch)
    assert plan.expected_bytes <= DEFAULT_LIMIT
    again = expected_bytes(
        (slices, 512, 512), [USUAL], rows_at_once=plan.rows_at_once, batch=plan.batch
    )
    assert again == plan.expected_bytes


def test_rows_are_given_up_before_windows() -> None:
    scan = (1, 512, 512)
    roomy = planned(scan, [SMALL], batch=4)
    assert (roomy.rows_at_once, roomy.batch) == (64, 4)
    tight = planned(scan, [SMALL], batch=4, limit_bytes=roomy.expected_bytes - 1)
    assert (tight.rows_at_once, tight.batch) == (32, 4)


def test_a_limit_that_nothing_meets_ends_with_7_and_says_what_would_do() -> None:
    least = expected_bytes((100, 512, 512), [USUAL], rows_at_once=1, batch=1)
    with pytest.raises(OutOfMemoryError, match="found a limit of 64 MiB, expected at lea") as said:
        planned((100, 512, 512), [USUAL], batch=8, limit_bytes=64 * MIB)
    assert f"{-(-least // MIB)} MiB for a scan of 100 x 512 x 512 voxels" in str(said.value)
    assert said.value.exit_code == 7
    assert planned((100, 512, 512), [USUAL], limit_bytes=least).rows_at_once == 1


PLAN = DevicePlan(rows_at_once=16, batch=3, expected_bytes=5 * MIB)


@pytest.mark.parametrize("error", [MemoryError("pool"), OutOfMemoryError("driver")])
def test_a_full_device_is_met_with_one_smaller_plan(error: Exception) -> None:
    asked: list[DevicePlan] = []

    def attempt(plan: DevicePlan) -> str:
        asked.append(plan)
        if len(asked) == 1:
            raise error
        return "labels"

    assert within_memory(PLAN, attempt) == "labels"
    assert [(plan.rows_at_once, plan.batch) for plan in asked] == [(16, 3), (4, 1)]


def test_a_device_that_stays_full_ends_with_7_and_advice() -> None:
    asked: list[DevicePlan] = []

    def attempt(plan: DevicePlan) -> str:
        asked.append(plan)
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=r"full at 4 slices and 1 windows .* 5 MiB") as said:
        within_memory(PLAN, attempt)
    assert (len(asked), said.value.exit_code) == (2, 7)
    least = DevicePlan(rows_at_once=1, batch=1, expected_bytes=1)
    assert smaller(least) is None
    with pytest.raises(OutOfMemoryError, match="full at 1 slices"):
        within_memory(least, attempt)
    assert len(asked) == 3


def test_other_errors_are_not_taken_for_full_memory() -> None:
    def attempt(_plan: DevicePlan) -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        within_memory(PLAN, attempt)
