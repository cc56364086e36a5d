"""What a bundle says of itself to people, from what its training said."""

from collections.abc import Mapping, Sequence
from importlib import metadata

from kits_export.onnx_from_torch import OPSET
from kits_export.trained import TrainedSystem
from kits_runtime.manifest.schema import Card, Provenance
from kits_trt.train.provenance import KITS_LICENCE, has_real_anatomy

INTENDED_USE = (
    "Research on kidney and kidney-tumour segmentation in abdominal CT. "
    "Not a medical device; not for diagnosis or treatment."
)
FROZEN_TEST_IS_NONE = (
    "The frozen test is no test of this bundle: its anatomies are those of KiTS patients, whom the "
    "training may have seen."
)
_UNSAID = "Not said by the checkpoint."
_TOOLS = ("kits-trt", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")


def card_of(trained: TrainedSystem, remarks: Sequence[str] = ()) -> Card:
    """The card: training data, licence, metrics and remarks from the checkpoint's header."""
    facts = trained.facts
    metrics = facts.get("metrics")
    own = facts.get("remarks")
    return Card(
        intended_use=_text(facts.get("intended_use"), INTENDED_USE),
        training_data=_training_data(facts),
        licence=_text(facts.get("licence"), _UNSAID),
        metrics=_numbers(metrics) if isinstance(metrics, Mapping) else {},
        remarks=(
            *(str(each) for each in (own if isinstance(own, list) else ())),
            *((FROZEN_TEST_IS_NONE,) if has_real_anatomy(facts) else ()),
            *remarks,
        ),
    )


def provenance_of(trained: TrainedSystem) -> Provenance:
    """Where the weights come from and which tools made the graphs."""
    commit = trained.facts.get("commit")
    return Provenance(
        checkpoint_sha256=trained.sha256,
        commit=commit if isinstance(commit, str) else None,
        opset=OPSET,
        tools={name: metadata.version(name).partition("+")[0] for name in _TOOLS},
    )


def _training_data(facts: Mapping[str, object]) -> str:
    """What the training says of its data; KiTS is named where its licence holds."""
    said = _text(facts.get("data"), _UNSAID)
    if facts.get("licence") != KITS_LICENCE or "KiTS" in said:
        return said
    return f"{said} Segmentations of KiTS patients had a part in it."


def _text(found: object, otherwise: str) -> str:
    """A text as it is, a mapping as ``key: value`` pairs, anything else as if it was not there."""
    if isinstance(found, str) and found.strip():
        return found.strip()
    if isinstance(found, Mapping) and found:
        said = found.get("description")
        pairs = (f"{key}: {value}" for key, value in found.items())
        return said if isinstance(said, str) else "; ".join(pairs)
    return otherwise


def _numbers(metrics: Mapping[str, object], name: str = "") -> dict[str, float]:
    """Numbers by name; those of nested mappings get the names on the way to them."""
    flat: dict[str, float] = {}
    for key, value in metrics.items():
        full = f"{name}: {key}" if name else str(key)
        if isinstance(value, Mapping):
            flat.update(_numbers(value, full))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[full] = round(float(value), 6)
    return flat
