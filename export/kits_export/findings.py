"""What the parity chain found, as values, as a report for programs and as a table for people."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from kits_runtime.manifest.schema import ParityLink

REPORT_NAME = "parity.json"
REPORT_FORMAT = 1
Status = Literal["ok", "recorded", "not verifiable", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One measurement of one link: the scores of a net, or the masks of a class.

    ``value`` is None where nothing could be measured, ``tolerance`` where no gate was set;
    ``remark`` says why.
    """

    link: str
    subject: str
    measure: str
    value: float | None
    tolerance: float | None
    status: Status
    reason: str
    remark: str = ""


def parity_links(findings: Iterable[Finding]) -> tuple[ParityLink, ...]:
    """The measured gates as the manifest holds them; what was told without a gate has 1."""
    return tuple(
        ParityLink(
            link=f"{each.link}: {each.subject}",
            measure=each.measure,
            value=each.value,
            tolerance=1.0 if each.tolerance is None else each.tolerance,
        )
        for each in findings
        if each.value is not None and each.status in ("ok", "recorded")
    )


def unverified(findings: Iterable[Finding]) -> tuple[str, ...]:
    """One sentence for each thing that could not be verified."""
    return tuple(
        f"Not verified: {each.link}, {each.subject}: {each.remark}."
        for each in findings
        if each.status == "not verifiable"
    )


def report(findings: Sequence[Finding], facts: Mapping[str, object]) -> bytes:
    """The content of ``parity.json``."""
    plain = {
        "format": REPORT_FORMAT,
        **facts,
        "links": [asdict(each) for each in findings],
    }
    return (json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def table_lines(findings: Sequence[Finding]) -> list[str]:
    """A table of the findings, one line each under a heading."""
    rows = [("link", "of", "measure", "found", "allowed", "")]
    rows += [
        (
            each.link,
            each.subject,
            each.measure,
            "-" if each.value is None else f"{each.value:.2g}",
            "-" if each.tolerance is None else f"{each.tolerance:g}",
            each.status + (f": {each.remark}" if each.remark else ""),
        )
        for each in findings
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)), row[5]]
        )
        for row in rows
    ]
