"""The files that an evaluation leaves, and its table for people."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from kits_runtime.files import replacing
from kits_trt.evaluation.gates import Gate, is_met
from kits_trt.evaluation.protocols import Protocol
from kits_trt.evaluation.scores import CaseScores
from kits_trt.evaluation.summary import RESAMPLES, SEED, Summary

SHOWN_CASES = 20
_FROM = "95 % interval from"


def write_evaluation(path: Path, cases: Sequence[CaseScores], summary: Summary) -> None:
    """Writes a row a case and a last row ``average``, as the KiTS23 evaluation does."""
    names = tuple(summary.scores)
    rows = [",".join(("caseID", *names))]
    rows += [_row(case.case, [case.scores[name] for name in names]) for case in cases]
    rows.append(_row("average", [summary.means[name] for name in names]))
    _write_text(path, "\n".join(rows) + "\n")


def write_summary(
    path: Path,
    summary: Summary,
    *,
    protocol: Protocol,
    gates: Sequence[Gate],
    without_truth: Sequence[str],
) -> None:
    """Writes the summary as JSON."""
    plain = {
        "protocol": protocol.name,
        "cases": len(summary.worst_first),
        "regions": [dataclasses.asdict(region) for region in protocol.regions],
        "scores": {
            name: {
                "mean": score.mean,
                "median": score.median,
                "interval_95_of_mean": list(score.interval),
                "lowest": score.lowest,
                "highest": score.highest,
            }
            for name, score in summary.scores.items()
        },
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "empty_cases": {name: dataclasses.asdict(count) for name, count in summary.empty.items()},
        "gates": [
            {
                "score": gate.score,
                "expected": gate.least,
                "found": summary.means[gate.score],
                "met": is_met(gate, summary.means),
            }
            for gate in gates
        ],
        "predictions_without_truth": list(without_truth),
        "worst_first": [
            {"case": case.case, "mean": case.mean, **case.scores} for case in summary.worst_first
        ],
    }
    _write_text(path, json.dumps(plain, indent=1, allow_nan=False) + "\n")


def table_lines(summary: Summary) -> list[str]:
    """The worst cases, then all cases together, as lines of one table."""
    names = tuple(summary.scores)
    shown = summary.worst_first[:SHOWN_CASES]
    width = max(len(title) for title in (_FROM, *(case.case for case in shown)))
    lines = ["  ".join(["worst first".ljust(width), *names])]

    def add(title: str, values: Sequence[float]) -> None:
        cells = [f"{value:.4f}".rjust(len(n)) for n, value in zip(names, values, strict=True)]
        lines.append("  ".join([title.ljust(width), *cells]))

    for case in shown:
        add(case.case, [case.scores[name] for name in names])
    hidden = len(summary.worst_first) - len(shown)
    if hidden:
        lines.append(f"... and {hidden} better cases")
    scores = list(summary.scores.values())
    add("mean", [score.mean for score in scores])
    add(_FROM, [score.interval[0] for score in scores])
    add("95 % interval to", [score.interval[1] for score in scores])
    add("median", [score.median for score in scores])
    return lines + _empty_lines(summary)


def _empty_lines(summary: Summary) -> list[str]:
    return [
        f"{name} is empty in {count.truth} truths and {count.prediction} predictions, "
        f"{count.both} times in both"
        for name, count in summary.empty.items()
        if count.truth or count.prediction
    ]


def _row(name: str, values: Sequence[float]) -> str:
    return ",".join([name, *(f"{value:.8f}" for value in values)])


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as stream:
        stream.write(text.encode())
