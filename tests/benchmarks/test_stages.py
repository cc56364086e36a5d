"""Timed stages give the usual ways' results, and the record holds what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from kits_bench.records import record_of, stages_facts, stages_table, write_record
from kits_bench.stages import Stage, label_likeness, stages_of, timed_stages
from kits_runtime.nifti import read_scan
from kits_trt.phantom.cases import Plan, make_cases


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stage, ...]:
    folder = tmp_path_factory.mktemp("bench")
    plan = Plan(out=folder, seed=7, size=(40, 96, 96), spacing_mm=(5.0, 4.0, 4.0))
    make_cases(plan, 1, lambda _done, _count, _text: None)
    case = folder / "case_00000"
    labels = read_scan(case / "segmentation.nii.gz").volume.data.astype(np.uint8)
    return stages_of(case / "imaging.nii.gz", labels, folder)


@pytest.mark.filterwarnings("ignore")
def test_our_stages_give_the_results_of_the_usual_ways(stages: tuple[Stage, ...]) -> None:
    for timing in timed_stages(stages, repeats=1):
        # MONAI aligns the centres of first voxels, so its grid lies a part of a voxel beside ours.
        least = 0.9 if timing.way == "MONAI Spacing" else 0.999
        assert timing.likeness >= least, (timing.stage, timing.way)
        assert len(timing.ms) == 1
        assert timing.ms[0] > 0


def test_ways_are_run_in_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []

    def way(name: str) -> str:
        calls.append(name)
        return name

    stage = Stage(
        name="turns",
        ours=lambda: way("a"),
        usual={"other": lambda: way("b")},
        likeness=lambda one, other: float(one == other),
    )
    ours, other = timed_stages([stage], repeats=2)
    assert calls == ["a", "b"] * 3
    assert (len(ours.ms), len(other.ms)) == (2, 2)
    assert (ours.likeness, other.likeness) == (1.0, 0.0)


def test_likeness_counts_disagreement_against_the_union_of_foregrounds() -> None:
    one, other = np.zeros(100, np.uint8), np.zeros(100, np.uint8)
    one[:4], other[1:5] = 1, 1
    assert label_likeness(one, other) == pytest.approx(1 - 2 / 5)


def test_the_table_is_made_of_the_record(tmp_path: Path) -> None:
    stage = Stage(
        name="a stage", ours=lambda: 1, usual={"usual": lambda: 1}, likeness=lambda _a, _b: 0.5
    )
    facts = {"timings": stages_facts(timed_stages([stage], repeats=3))}
    record = record_of("stages", scan={"size": [1]}, repeats=3, facts=facts)
    write_record(tmp_path / "deep" / "record.json", record)
    found = json.loads((tmp_path / "deep" / "record.json").read_text())
    found["timings"][0]["median_ms"], found["timings"][1]["median_ms"] = 2.0, 9.0
    last = stages_table(found).splitlines()[-1]
    assert last == "| | usual | 9.0 | 4.5 x | 50.00% |"
    assert found["machine"]["cores"] >= 1
    assert found["dry"] is False
