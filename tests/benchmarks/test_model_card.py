"""The card says what the packaged bundle and the committed records say."""

import json
import re
from typing import Any

import pytest

from kits_bench.accuracy import Result, accuracy_of
from kits_bench.docs import ROOT
from kits_bench.frozen_test.configuration import read_configuration, rendered_anew
from kits_bench.model_card import CARD, RECORDS, generated, parts, robustness_part
from kits_runtime import qc


def test_the_cards_generated_parts_are_those_of_the_records() -> None:
    text = CARD.read_text(encoding="utf-8")
    assert text == generated(text, parts())


def test_the_frozen_test_is_measured_with_the_packaged_system() -> None:
    records = [json.loads(path.read_text()) for path in RECORDS.glob("frozen-test*.json")]
    assert len(records) >= 1
    for record in records:
        frozen = read_configuration(record["version"])
        assert record["configuration_sha256"] == frozen.sha256
        shown = [
            (case.case, case.phase)
            for number in range(record.get("renderings", 1))
            for case in rendered_anew(frozen, number).of(record["subset"])
        ]
        assert [(case["case"], case["phase"]) for case in record["cases"]] == shown
        assert accuracy_of(_results(record))["all"] == record["all"]


def _results(record: dict[str, Any]) -> list[Result]:
    return [Result(**{**case, "warnings": tuple(case["warnings"])}) for case in record["cases"]]


def test_every_part_of_the_card_was_measured() -> None:
    assert "Not measured" not in CARD.read_text(encoding="utf-8")


def test_a_part_replaces_what_stood_between_its_markers() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert generated(text, {"x": "new\n"}) == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"


def test_a_part_without_a_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="markers for \\['x'\\], expected \\['x', 'y'\\]"):
        generated("<!-- begin x -->\n<!-- end x -->\n", {"x": "", "y": ""})


def test_a_curve_shows_each_point_with_a_bar_of_its_height() -> None:
    facts = {"median": 0.5}
    record = {
        "cases": ["a"],
        "bundle": {"sha256": "0" * 64},
        "machine": {"commit": "abc"},
        "points": [{"sweep": "noise", "value": "4", "dice_kidney": facts, "dice_tumour": facts}],
    }
    text = robustness_part(record)
    assert "| noise 4 | 0.500 `##########          ` |" in text
    assert "Measured with an earlier bundle, `0000000000000000`, at commit abc." in text


def test_every_picture_of_the_card_is_committed() -> None:
    named = re.findall(r"\]\((docs/[^)]+)\)", CARD.read_text(encoding="utf-8"))
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_page_of_warnings_tells_the_thresholds_of_the_code() -> None:
    page = (ROOT / "docs" / "warnings.md").read_text(encoding="utf-8")
    share = f"{100 * qc.MOST_TUMOUR_SHARE:.0f} %"
    for value in (
        f"{qc.NEGATIVE_BELOW_HU} HU",
        f"{qc.LEAST_SECTION_CM2} cm2",
        f"{qc.ENHANCED_FROM_HU} HU",
        f"less than {qc.LEAST_SIDE_ML} or more than {qc.MOST_SIDE_ML} ml",
        f"more than {qc.MOST_TUMOUR_ML} ml of tumour, or more than {share}",
    ):
        assert value in page
