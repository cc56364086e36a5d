"""What a bundle says of itself to people, from what its training said."""

from collections.abc import Mapping, Sequence
from importlib import metadata

from kits_export.onnx_from_torch import OPSET
from kits_export.trained import TrainedSystem
from kits_runtime.manifest.schema import Card, Provenance

INTENDED_USE = (
    "Research on kidney and kidney-tumour segmentation in abdominal CT. "
    "Not a medical device; not for diagnosis or treatment."
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
        training_data=_text(facts.get("data"), _UNSAID),
        licence=_text(facts.get("licence"), _UNSAID),
        metrics=_numbers(metrics) if isinstance(metrics, Mapping) else {},
        remarks=(*(str(each) for each in own or ()), *remarks)
        if isinstance(own, list)
        else (*remarks,),
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
