"""Scores pairs of label maps, one after the other."""

from collections.abc import Callable, Sequence

from kits_runtime.errors import ScanError
from kits_trt.evaluation.label_maps import check_same_grid, check_spacing, read_labels
from kits_trt.evaluation.pairs import Pair
from kits_trt.evaluation.protocols import Protocol
from kits_trt.evaluation.scores import CaseScores, score_case

Progress = Callable[[int, str], None]


def evaluate(
    pairs: Sequence[Pair], protocol: Protocol, *, progress: Progress | None = None
) -> tuple[CaseScores, ...]:
    """The scores of each pair, in their order.

    Args:
        pairs: What to compare.
        protocol: By whose rules.
        progress: Is told how many pairs are done and which comes next.

    Raises:
        ScanError: A file cannot be read, is no label map, or lies on another grid than its
            partner; the message begins with the case.
    """
    scored = []
    for done, pair in enumerate(pairs):
        if progress is not None:
            progress(done, pair.case)
        scored.append(_scored(pair, protocol))
    return tuple(scored)


def _scored(pair: Pair, protocol: Protocol) -> CaseScores:
    try:
        truth = read_labels(pair.truth, protocol.highest_label)
        check_spacing(truth)
        prediction = read_labels(pair.prediction, protocol.highest_label)
        check_same_grid(truth, prediction)
    except ScanError as error:
        raise ScanError(f"{pair.case}: {error}") from error
    return score_case(
        pair.case,
        truth.labels,
        prediction=prediction.labels,
        spacing_mm=truth.spacing_mm,
        protocol=protocol,
    )
