"""Runs the parity chain of ``links.py`` over a system's nets and the masks of cases.

Each side is opened once, its scores and masks are kept and compared with the side that the link
names; the first link that breaks ends the export with the node that is to blame.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kits_export.blame import blamed_node
from kits_export.findings import Finding
from kits_export.links import LINKS, Link, SideName
from kits_export.masks import (
    Disagreement,
    Labels,
    VerifyCase,
    disagreements,
    half_a_hu_brighter,
    masks_of,
)
from kits_export.sides import NetForms, opened, why_not
from kits_export.windows_of_parity import Watch
from kits_runtime.engines import Engine
from kits_runtime.engines.protocol import Array
from kits_runtime.errors import BackendUnavailableError, EngineError, ParityError
from kits_runtime.manifest.schema import Manifest

Progress = Callable[[str], None]
_SCORES = {"largest": "largest difference of scores", "mean": "mean difference of scores"}
_MASKS = "largest share of a case's foreground that disagrees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """What masks may disagree by, and whether what cannot be verified is let through.

    ``max_disagree_bf16`` None writes the disagreement of bf16 down without a gate.
    """

    max_disagree: float = 0.005
    max_disagree_bf16: float | None = None
    allow_unverified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What is verified: nets in all their forms, the system's manifest, and the cases."""

    forms: Mapping[str, NetForms]
    manifest: Manifest
    cases: Sequence[VerifyCase]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verified:
    """What the chain found, and the masks of the bundle's fp32 files case by case."""

    findings: tuple[Finding, ...]
    masks: Sequence[Labels]


def require_parity(
    subject: Subject, gates: Gates, *, progress: Progress = lambda _text: None
) -> Verified:
    """What the chain found, once all of it is within tolerance.

    Raises:
        ParityError: a link is broken, or a class cannot be verified and must be.
        EngineError: a side cannot be opened.
    """
    chain = _Chain(subject, gates, progress)
    return Verified(findings=chain.findings(), masks=chain.masks["bundle"])


@dataclass(slots=True)
class _Chain:
    subject: Subject
    gates: Gates
    progress: Progress
    windows: dict[str, Array] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    scores: dict[SideName, dict[str, Array]] = field(default_factory=dict)
    masks: dict[SideName, list[Labels]] = field(default_factory=dict)
    brighter: dict[int, Labels] = field(default_factory=dict)

    def findings(self) -> tuple[Finding, ...]:
        self._measure_reference()
        found: list[Finding] = []
        for link in LINKS:
            missing = why_not(link.right, self.subject.forms)
            if missing is not None:
                found.append(_not_run(link, missing))
                continue
            self.progress(link.name)
            with opened(link.right, self.subject.forms) as engines:
                found += self._compared_scores(link, engines)
                if link.masks != "none":
                    found += self._compared_masks(link, engines)
        return tuple(found)

    def _measure_reference(self) -> None:
        """Runs torch over the cases; keeps its masks and the windows to compare scores on."""
        self.progress("torch")
        with opened("torch", self.subject.forms) as engines:
            watch = Watch(engines)
            self.masks["torch"] = [
                masks_of(case, self.subject.manifest, watch.nets) for case in self.subject.cases
            ]
            self.windows = {name: watch.windows(name) for name in engines}
            self.asked = {name: watch.seen(name) for name in engines}
            self.scores["torch"] = {
                name: engine.run(self.windows[name]) for name, engine in engines.items()
            }

    def _compared_scores(self, link: Link, engines: Mapping[str, Engine]) -> list[Finding]:
        found = []
        self.scores[link.right] = {}
        for name, engine in engines.items():
            windows = self.windows[name]
            try:
                right = engine.run(windows)
            except BackendUnavailableError:
                raise
            except EngineError as error:
                raise self._broken(link, name, windows, str(error)) from error
            self.scores[link.right][name] = right
            apart = np.abs(right - self.scores[link.left][name])
            value = float(apart.max() if link.scores.measure == "largest" else apart.mean())
            if not value <= link.scores.value:
                what = f"{_SCORES[link.scores.measure]} {value:.3g}"
                raise self._broken(link, name, windows, what, tolerance=link.scores.value)
            found.append(
                Finding(
                    link=link.name,
                    subject=name,
                    measure=_SCORES[link.scores.measure],
                    value=value,
                    tolerance=link.scores.value,
                    status="ok",
                    reason=link.scores.reason,
                    remark="" if self.asked[name] else "on random patches alone, no case asked it",
                )
            )
        return found

    def _compared_masks(self, link: Link, engines: Mapping[str, Engine]) -> list[Finding]:
        self.masks[link.right] = [self._mask(link, case, engines) for case in self.subject.cases]
        labels = self.subject.manifest.labels
        return [self._judged(link, value, labels[value]) for value in range(1, len(labels))]

    def _mask(self, link: Link, case: VerifyCase, engines: Mapping[str, Engine]) -> Labels:
        watch = Watch(engines)
        try:
            return masks_of(case, self.subject.manifest, watch.nets)
        except EngineError as error:
            assert watch.last is not None
            raise self._broken(link, *watch.last, f"{case.name}: {error}") from error

    def _judged(self, link: Link, value: int, label: str) -> Finding:
        """The finding of one class, once its worst case is within the gate or excused."""
        rows = disagreements(
            self.subject.cases, self.masks[link.left], self.masks[link.right], value
        )
        if not any(row.union for row in rows):
            return self._unverifiable(link, label, "it is empty on every verify case", value=None)
        index = max(range(len(rows)), key=lambda each: rows[each].share)
        worst, gate = rows[index], self._gate(link)
        if gate is not None and worst.share > gate:
            return self._beyond(link, label, worst, moved=self._moved(index, value))
        return Finding(
            link=link.name,
            subject=label,
            measure=_MASKS,
            value=worst.share,
            tolerance=gate,
            status="recorded" if gate is None else "ok",
            reason=link.masks_reason,
            remark=f"{worst.voxels} of {worst.union} voxels in {worst.case}",
        )

    def _beyond(self, link: Link, label: str, worst: Disagreement, *, moved: float) -> Finding:
        """A class whose masks disagree: the link's fault, or that of a net that is undecided."""
        gate = self._gate(link)
        told = f"{worst.voxels} of {worst.union} voxels in {worst.case}"
        if moved >= worst.share:
            why = (
                f"{told} disagree, {worst.share:.3g}, and half a HU on the scan moves {moved:.3g}: "
                "the net is undecided there"
            )
            return self._unverifiable(link, label, why, value=worst.share)
        nodes = {
            name: blamed_node(link, forms, self.windows[name])
            for name, forms in self.subject.forms.items()
        }
        blamed = "; ".join(f"net {name}: {node}" for name, node in nodes.items() if node)
        raise ParityError(
            f"{link.name}: masks of {label}: found {told} that disagree ({worst.share:.3g}), "
            f"expected at most {gate:g}. First suspect: {blamed or 'no single node stands out'}. "
            "No bundle is left; keep that node float32, or export with --precision fp32."
        )

    def _unverifiable(self, link: Link, label: str, why: str, *, value: float | None) -> Finding:
        if not self.gates.allow_unverified:
            raise ParityError(
                f"{link.name}: masks of {label} cannot be verified: {why}; expected masks that say "
                "something. Give --verify cases that show the class, or --allow-unverified."
            )
        return Finding(
            link=link.name,
            subject=label,
            measure=_MASKS,
            value=value,
            tolerance=self._gate(link),
            status="not verifiable",
            reason=link.masks_reason,
            remark=why,
        )

    def _gate(self, link: Link) -> float | None:
        return self.gates.max_disagree if link.masks == "gate" else self.gates.max_disagree_bf16

    def _moved(self, index: int, value: int) -> float:
        """How much of a class the bundle itself moves when a case is half a HU brighter."""
        if index not in self.brighter:
            case = half_a_hu_brighter(self.subject.cases[index])
            with opened("bundle", self.subject.forms) as engines:
                nets = {name: engine.run for name, engine in engines.items()}
                self.brighter[index] = masks_of(case, self.subject.manifest, nets)
        usual = self.masks["bundle"][index]
        case = self.subject.cases[index]
        return disagreements([case], [usual], [self.brighter[index]], value)[0].share

    def _broken(
        self, link: Link, net: str, windows: Array, found: str, *, tolerance: float | None = None
    ) -> ParityError:
        node = blamed_node(link, self.subject.forms[net], windows)
        allowed = "finite scores" if tolerance is None else f"at most {tolerance:g}"
        return ParityError(
            f"{link.name}: net {net}: found {found}, expected {allowed}. First offending node: "
            f"{node or 'none alone, the difference builds up'}. No bundle is left."
        )


def _not_run(link: Link, why: str) -> Finding:
    return Finding(
        link=link.name,
        subject="-",
        measure="-",
        value=None,
        tolerance=None,
        status="not run",
        reason=link.scores.reason,
        remark=why,
    )
