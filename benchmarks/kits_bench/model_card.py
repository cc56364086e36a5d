"""Writes the generated parts of MODEL_CARD.md from the packaged bundle and the committed records.

``python -m kits_bench.model_card`` writes them; a test fails when they differ. What stands between
``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is generated, all else is written by hand.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kits_bench.docs import RESULTS, ROOT
from kits_runtime.bundle import open_bundle
from kits_runtime.files import replacing
from kits_runtime.segmenter import default_bundle_path

CARD = ROOT / "MODEL_CARD.md"
RECORDS = RESULTS / "default-bundle" / "accuracy"
Record = Mapping[str, Any]

_PART = re.compile(r"(<!-- begin ([a-z-]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def generated(text: str, parts: Mapping[str, str]) -> str:
    """The text with each part between its markers.

    Raises:
        ValueError: The markers and the parts are not the same.
    """
    named = [match[2] for match in _PART.finditer(text)]
    if sorted(named) != sorted(parts):
        raise ValueError(f"the card has markers for {named}, expected {sorted(parts)}")
    return _PART.sub(lambda match: f"{match[1]}{parts[match[2]]}{match[3]}", text)


def parts() -> dict[str, str]:
    """The generated parts, from what is committed."""
    texts = {"bundle": bundle_part()}
    for name, part in _PARTS.items():
        paths = sorted(RECORDS.glob(f"{name}*.json"))
        texts[name] = "\n".join(part(_read(path)) for path in paths) or "Not measured.\n"
    return texts


def bundle_part() -> str:
    """What the packaged bundle says of itself."""
    bundle = open_bundle(default_bundle_path())
    manifest = bundle.manifest
    card = manifest.card
    rows = {
        "system": f"{manifest.system}, preset {manifest.preset}",
        "SHA-256": bundle.sha256,
        "size": f"{default_bundle_path().stat().st_size / 1e6:.1f} MB",
        "labels": ", ".join(f"{value} {name}" for value, name in enumerate(manifest.labels)),
        "intended use": card.intended_use,
        "training data": card.training_data,
        "licence": card.licence,
        **{name: f"{value:g}" for name, value in card.metrics.items()},
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    remarks = [f"- {remark}" for remark in card.remarks]
    return "\n".join(["| | |", "| --- | --- |", *table, "", *remarks]) + "\n"


def frozen_part(record: Record) -> str:
    """The frozen test: all cases, then by tumour size, phase and thickness."""
    times = record.get("renderings", 1)
    cases = f"{record['all']['cases']} cases" if times == 1 else f"each case rendered {times} times"
    head = (
        f"Version {record['version']} (configuration `{record['configuration_sha256'][:16]}`), "
        f"subset *{record['subset']}*, {cases}; nothing found in "
        f"{record['empty_results']}. {_measured(record)}"
    )
    rows = [_row("**all**", record["all"])]
    for grouping, groups in record["groups"].items():
        rows.append(f"| *{grouping}* | | | |")
        rows += [_row(name, scores) for name, scores in groups.items()]
    return "\n".join([head, "", *_HEAD, *rows]) + "\n"


def ordinary_part(record: Record) -> str:
    """Warnings that were not planted, and the worst of the ordinary phantoms."""
    alarms, exact = record["alarms"], record["alarms_with_true_masks"]
    head = (
        f"{alarms['scans']} procedural phantoms, as drawn. With the bundle's masks "
        f"{alarms['scans_with_a_false_alarm']} had a warning that was not planted "
        f"({_counts(alarms['false_by_code'])}), with the true masks "
        f"{exact['scans_with_a_false_alarm']} ({_counts(exact['false_by_code'])}). Planted: "
        f"{_counts(alarms['planted_by_code'])}; missed: {_counts(alarms['missed_by_code'])} with "
        f"the bundle's masks, {_counts(exact['missed_by_code'])} with the true ones. Of "
        f"{record['tumour_free']} without a tumour "
        f"{record['tumour_free_with_a_tumour_found']} were given one. "
        f"{_measured(record)}"
    )
    cases = {case["case"]: case for case in record["cases"]}
    worst = []
    for place, name in enumerate(record["worst_first"], start=1):
        case = cases[name]
        worst.append(
            f"![found above true](docs/images/worst-{place}.png)\n\n{name}: {case['phase']}, "
            f"{case['thickness_mm']:g} mm, tumour {case['tumour_cm']:g} cm, Dice "
            f"{case['dice_kidney']:.2f} and {case['dice_tumour']:.2f}.\n"
        )
    return "\n".join([head, "", *_HEAD, _row("all", record["all"]), "", *worst])


def odd_part(record: Record) -> str:
    """What came out of scans that are no ordinary abdominal CT."""
    rows = ["| scan | voxels | found, ml | warnings | s |", "| --- | --- | --- | --- | ---: |"]
    for scan in record["scans"]:
        size = " x ".join(str(count) for count in scan["size"])
        found = ", ".join(f"{name} {ml:.0f}" for name, ml in scan["volumes_ml"].items() if ml)
        codes = ", ".join(scan["warnings"]) or "none"
        rows.append(
            f"| {scan['scan']} | {size} | {found or 'nothing'} | {codes} "
            f"| {scan['total_ms'] / 1000:.1f} |"
        )
    peak = max(scan["peak_rss_mb"] for scan in record["scans"])
    machine = record["machine"]
    load = f"{machine['cores']} cores under a load of {machine['load_before']:g}"
    told = f"Peak memory {peak} MB; {load}. {_measured(record)}"
    return "\n".join([*rows, "", told]) + "\n"


def robustness_part(record: Record) -> str:
    """Dice along each sweep."""
    head = (
        f"Medians over {len(record['cases'])} cases of the dev subset, rendered anew for each row, "
        f"arterial, noise 8 HU, 256 pixels, 3 mm (5 mm where pixels change) unless the row says "
        f"otherwise. {_measured(record)}"
    )
    rows = ["| setting | kidney + tumour | tumour |", "| --- | --- | --- |"]
    for point in record["points"]:
        kidney, tumour = point["dice_kidney"], point["dice_tumour"]
        rows.append(
            f"| {point['sweep']} {point['value']} | {_bar(kidney['median'])} "
            f"| {_bar(tumour['median'])} |"
        )
    return "\n".join([head, "", *rows]) + "\n"


_PARTS: Mapping[str, Callable[[Record], str]] = {
    "frozen-test": frozen_part,
    "robustness": robustness_part,
    "ordinary": ordinary_part,
    "odd-scans": odd_part,
}
_HEAD = (
    "| | cases | Dice kidney + tumour, median (95 %) | Dice tumour, median (95 %) |",
    "| --- | ---: | --- | --- |",
)


def _row(name: str, scores: Record) -> str:
    cells = [_interval(scores["dice_kidney"]), _interval(scores["dice_tumour"])]
    return f"| {name} | {scores['cases']} | {cells[0]} | {cells[1]} |"


def _interval(facts: Record | None) -> str:
    if facts is None:
        return "-"
    if facts["interval_95_of_median"] is None:
        return f"{facts['median']:.3f} (few)"
    low, high = facts["interval_95_of_median"]
    return f"{facts['median']:.3f} ({low:.3f} to {high:.3f})"


def _bar(value: float) -> str:
    """A figure with a bar of up to twenty characters, so that a column reads as a curve."""
    return f"{value:.3f} `{'#' * round(20 * value):20}`"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _measured(record: Record) -> str:
    bundle = record["bundle"]["sha256"]
    own = bundle == open_bundle(default_bundle_path()).sha256
    which = "the packaged bundle" if own else "an earlier bundle"
    return f"Measured with {which}, `{bundle[:16]}`, at commit {record['machine']['commit']}."


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def main(_argv: Sequence[str] | None = None) -> int:
    """Writes the card's generated parts."""
    text = generated(CARD.read_text(encoding="utf-8"), parts())
    with replacing(CARD) as stream:
        stream.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
