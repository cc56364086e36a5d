"""``kits-eval``: scores predicted label maps by the rules of a KiTS challenge."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kits_runtime.cli.console import (
    EXIT_OK,
    ProgressLine,
    exit_code_of,
    interrupted_once,
    say,
    set_up_logging,
)
from kits_runtime.cli.telling import add_telling
from kits_trt.evaluation.evaluate import evaluate
from kits_trt.evaluation.gates import check_gates, gate_from_text
from kits_trt.evaluation.pairs import Pair, find_pairs
from kits_trt.evaluation.protocols import PROTOCOLS, Protocol
from kits_trt.evaluation.results import table_lines, write_evaluation, write_summary
from kits_trt.evaluation.scores import CaseScores
from kits_trt.evaluation.summary import summarise

NAME = "kits-eval"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(argv)
    set_up_logging(verbose=options.verbose, debug=options.debug)
    with interrupted_once():
        return exit_code_of(lambda: _run(options), name=NAME, debug=options.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Scores predicted label maps by the rules of a KiTS challenge: Dice, and for "
        "kits23 surface Dice. Leaves evaluation.csv and summary.json.",
    )
    add = parser.add_argument
    add("--pred", type=Path, required=True, metavar="DIR", help="predictions, as kits-infer writes")
    add("--gt", type=Path, required=True, metavar="DIR", help="truth: a KiTS folder, or flat files")
    add("--protocol", choices=sorted(PROTOCOLS), default="kits23", help="(default: %(default)s)")
    add("--out", type=Path, metavar="DIR", help="where to write (default: the folder of --pred)")
    add("--cases", nargs="+", metavar="CASE", help="score these (default: all in --gt)")
    add(
        "--gate",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="end with code 6 if the mean of this score is lower, as in dice_tumor=0.75; "
        "may be given again",
    )
    add_telling(parser)
    return parser


def _run(options: argparse.Namespace) -> int:
    protocol = PROTOCOLS[options.protocol]
    gates = [gate_from_text(text, protocol) for text in options.gate]
    found = find_pairs(options.gt, options.pred, cases=options.cases)
    cases = _evaluated(found.pairs, protocol, shows=not (options.quiet or options.no_progress))
    summary = summarise(cases, protocol)
    out = options.out or options.pred
    out.mkdir(parents=True, exist_ok=True)
    write_evaluation(out / "evaluation.csv", cases, summary)
    write_summary(
        out / "summary.json",
        summary,
        protocol=protocol,
        gates=gates,
        without_truth=found.without_truth,
    )
    if not options.quiet:
        for line in table_lines(summary):
            say(line)
        if found.without_truth and options.cases is None:
            say(f"not scored, without truth: {', '.join(found.without_truth)}")
        say(f"{len(cases)} cases by {protocol.name}: {out / 'evaluation.csv'}, summary.json")
    check_gates(gates, summary.means)
    return EXIT_OK


def _evaluated(pairs: Sequence[Pair], protocol: Protocol, *, shows: bool) -> tuple[CaseScores, ...]:
    line = ProgressLine(sys.stderr, enabled=shows)
    try:
        return evaluate(
            pairs,
            protocol,
            progress=lambda done, case: line.show(f"[{done + 1}/{len(pairs)}] {case}"),
        )
    finally:
        line.clear()
