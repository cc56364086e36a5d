"""From trained nets to a bundle that computes what they compute, or to nothing."""

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kits_export.card import card_of, provenance_of
from kits_export.findings import REPORT_NAME, Finding, parity_links, report, unverified
from kits_export.masks import (
    PHANTOM_PLANE_VOX,
    Labels,
    VerifyCase,
    disagreements,
    phantom_cases,
)
from kits_export.onnx_from_torch import OPSET
from kits_export.parity import Gates, Progress, Subject, require_parity
from kits_export.place import check_place, staged
from kits_export.sides import NetForms, net_forms
from kits_export.trained import TrainedSystem, require_half_weights
from kits_export.write_bundle import Float, NetContent, write_bundle
from kits_runtime.bundle import Bundle, Precision, open_bundle
from kits_runtime.errors import ParityError
from kits_runtime.manifest.schema import Card, Manifest, Provenance
from kits_runtime.segmenter import Segmenter
from kits_trt.systems import Preset, System, manifest_from_system

Build = Callable[[Bundle], None]

# Two of the built-in phantoms with tumours; nets of the paper's size take minutes for one.
_PHANTOMS: Mapping[Preset, tuple[int, ...]] = {"small": (5, 9), "paper": (5,)}
# These windows take two TFLOP each and keep their size in mm: 200 mm hold 16 of them, 300 mm 33.
_NARROW_VOX: Mapping[tuple[str, Preset], int] = {("cascaded-vnet", "paper"): 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to make.

    ``precision`` fp16 makes both files of each net. ``weights`` float16 stores the fp32 file's
    weights as halves, at half the size.
    """

    precision: Literal["fp16", "fp32"] = "fp16"
    weights: Float = "float32"
    gates: Gates = field(default_factory=Gates)
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The manifest of the bundle that was left, and what the parity chain found."""

    manifest: Manifest
    findings: tuple[Finding, ...]


def export_bundle(
    trained: TrainedSystem,
    out: Path,
    *,
    cases: Sequence[VerifyCase] = (),
    options: ExportOptions | None = None,
    progress: Progress = lambda _text: None,
    build: Build | None = None,
) -> Exported:
    """Leave a verified bundle at ``out``, or raise and leave nothing.

    Args:
        trained: The system and its nets.
        out: A ``.kits`` file or a folder.
        cases: Scans whose masks are compared; built-in phantoms if none.
        options: Precision, gates and whether a bundle that is there may be replaced.
        progress: Called with what is being done.
        build: Called with the verified bundle before it is put in place: builds engines.

    Raises:
        UsageError: something is there already.
        BundleError: a weight is not finite, or beyond half where FP16 is asked for.
        ParityError: a link of the parity chain is broken; the message names link and node.
    """
    options = options or ExportOptions()
    check_place(out, overwrite=options.overwrite)
    if options.precision == "fp16":
        require_half_weights(trained, where="checkpoint")
    with staged(out) as place:
        forms = _forms(trained, options, progress)
        verify = tuple(cases) or _built_in(trained.system)
        subject = Subject(forms=forms, manifest=_bare_manifest(trained.system), cases=verify)
        verified = require_parity(subject, options.gates, progress=progress)
        findings = verified.findings
        contents = {name: _contents(each) for name, each in forms.items()}
        manifest = write_bundle(
            place,
            trained.system,
            contents,
            parity=parity_links(findings),
            provenance=provenance_of(trained),
            card=card_of(trained, unverified(findings)),
            reports={
                REPORT_NAME: report(findings, _report_facts(trained, contents, verify, options))
            },
        )
        progress("the bundle as written")
        _require_same_masks(place, verify[0], verified.masks[0], options.gates)
        if build is not None:
            build(open_bundle(place))
    return Exported(manifest=manifest, findings=findings)


def _built_in(system: System) -> tuple[VerifyCase, ...]:
    plane_vox = _NARROW_VOX.get((system.name, system.preset), PHANTOM_PLANE_VOX)
    return phantom_cases(_PHANTOMS[system.preset], plane_vox=plane_vox)


def _forms(
    trained: TrainedSystem, options: ExportOptions, progress: Progress
) -> dict[str, NetForms]:
    forms = {}
    for name, net in trained.nets.items():
        progress(f"ONNX of {name}")
        forms[name] = net_forms(
            net,
            name,
            trained.system.nets[name],
            half=options.precision == "fp16",
            weights=options.weights,
        )
    return forms


def _contents(forms: NetForms) -> dict[Precision, NetContent]:
    exact = forms.stored is forms.exact
    contents: dict[Precision, NetContent] = {
        "fp32": NetContent(
            onnx=forms.stored.SerializeToString(deterministic=True),
            tensors="float32",
            weights="float32" if exact else "float16",
        )
    }
    if forms.half is not None:
        contents["fp16"] = NetContent(
            onnx=forms.half.model.SerializeToString(deterministic=True),
            tensors="float16",
            weights="float16",
        )
    return contents


def _bare_manifest(system: System) -> Manifest:
    """The manifest as the executor needs it: without files."""
    return manifest_from_system(
        system,
        files={name: {} for name in system.nets},
        provenance=Provenance(checkpoint_sha256=None, commit=None, opset=OPSET, tools={}),
        card=Card(intended_use="", training_data="", licence="", metrics={}, remarks=()),
    )


def _report_facts(
    trained: TrainedSystem,
    contents: Mapping[str, Mapping[Precision, NetContent]],
    cases: Sequence[VerifyCase],
    options: ExportOptions,
) -> dict[str, object]:
    gates = options.gates
    return {
        "system": trained.system.name,
        "preset": trained.system.preset,
        "checkpoint_sha256": trained.sha256,
        "files": {
            f"nets/{name}.{precision}.onnx": hashlib.sha256(content.onnx).hexdigest()
            for name, kinds in contents.items()
            for precision, content in kinds.items()
        },
        "cases": [case.name for case in cases],
        "max_disagree": gates.max_disagree,
        "max_disagree_bf16": gates.max_disagree_bf16,
        "allow_unverified": gates.allow_unverified,
        "tools": dict(provenance_of(trained).tools),
        "machine": platform.machine(),
    }


def _require_same_masks(place: Path, case: VerifyCase, expected: Labels, gates: Gates) -> None:
    """Let the runtime segment a case with the bundle as written: no file stands in another's place.

    Raises:
        ParityError: its mask is not that of the nets that were verified.
    """
    with Segmenter(open_bundle(place), backend="ort-cpu") as segmenter:
        found = segmenter.segment(case.volume).model_labels
        labels = segmenter.bundle.manifest.labels
    for value, label in enumerate(labels):
        (row,) = disagreements([case], [expected], [found], value)
        if row.share > gates.max_disagree:
            raise ParityError(
                f"bundle as written: masks of {label}: found {row.voxels} of {row.union} voxels in "
                f"{case.name} other than those of the verified nets, expected the same masks. No "
                "bundle is left; export again."
            )
