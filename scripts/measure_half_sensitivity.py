"""Measures what half precision costs the scores, and which operators must stay float32.

Usage: python scripts/measure_half_sensitivity.py [--preset small|paper] [--nets A,B] [--out DIR]

Adds lines to DIR/sensitivity.jsonl, one for each net, weights, window and variant:

- 'all stored as half': every tensor is rounded to half, every node calculates in float32;
- 'head in float32': the same, but the last convolution and what follows it stay float32;
- 'OPERATOR in half arithmetic': the same as the first, but nodes of this operator are taken apart
  into sums, products and exponentials of which each is rounded to half, as a kernel does that has
  no wider registers; sums are rounded once, so that this is the best such kernel;
- 'default': what ``half_from_float`` does.

``largest_value`` is the largest magnitude of any tensor, ``largest_sum`` that of a sum which a
global pooling adds up. Runs without a GPU; the paper's nets take minutes each.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from half_nets import StudiedNet, append_records, chosen_nets, windows_of
from half_parts import PARTS, taken_apart

from kits_export.emulated_half import emulated_half, open_emulated
from kits_export.half_graph import HalfGraph, half_from_float
from kits_export.offending_node import node_outputs
from kits_runtime.engines.ort_cpu import import_onnxruntime, session_options

HEADS = ("Conv", "Softmax", "Sigmoid")


def main() -> int:
    """Measures the nets that the command line names."""
    nets, out = chosen_nets(__doc__ or "")
    for net in nets:
        records = list(records_of(net))
        append_records(out / "sensitivity.jsonl", records)
        print(net.name, net.preset, net.weights, len(records), "records", flush=True)
    return 0


def records_of(net: StudiedNet) -> Iterator[dict[str, Any]]:
    """One record for each kind of window and each class of nodes that is kept float32."""
    variants = dict(half_variants(net.model))
    for window, patches in windows_of(net):
        exact = scores_of(net.model, patches)
        ranges = ranges_of(net.model, patches)
        for variant, half in variants.items():
            found = open_emulated(emulated_half(half), threads=2).run(None, {"patches": patches})[0]
            apart = np.abs(found - exact)
            yield net.facts() | {
                "window": window,
                "variant": variant,
                "float_nodes": len(half.float_nodes),
                "largest_error": rounded(apart.max()),
                "mean_error": rounded(apart.mean()),
                "other_class": rounded(np.mean(classes(found) != classes(exact))),
                **ranges,
            }


def half_variants(model: onnx.ModelProto) -> Iterator[tuple[str, HalfGraph]]:
    """The FP16-typed graphs to compare, under the names of the records."""
    everything = {node.op_type for node in model.graph.node}
    yield "all stored as half", half_from_float(model, half_operators=everything)
    head = [node.name for node in model.graph.node if node.op_type in HEADS][-2:]
    yield "head in float32", half_from_float(model, keep_float=head, half_operators=everything)
    for operator in sorted(everything & set(PARTS)):
        apart = taken_apart(model, operator)
        parts = {node.op_type for node in apart.graph.node}
        yield f"{operator} in half arithmetic", half_from_float(apart, half_operators=parts)
    yield "default", half_from_float(model)


def scores_of(model: onnx.ModelProto, patches: np.ndarray) -> np.ndarray:
    """Scores in float32."""
    library = import_onnxruntime()
    session = library.InferenceSession(
        model.SerializeToString(), session_options(library, 2), providers=["CPUExecutionProvider"]
    )
    scores: np.ndarray = session.run(None, {"patches": patches})[0]
    return scores


def ranges_of(model: onnx.ModelProto, patches: np.ndarray) -> dict[str, float | None]:
    """The largest magnitude in the net and the largest sum of a global pooling."""
    largest, sums, sizes = 0.0, [], {"patches": patches.size}
    for node, name, values in node_outputs(model, patches):
        largest = max(largest, float(np.abs(values).max()))
        sizes[name] = values.size
        if node.op_type == "GlobalAveragePool":
            summed = sizes[node.input[0]] // values.size
            sums.append(float(np.abs(values).max()) * summed)
    return {
        "largest_value": rounded(largest),
        "largest_sum": rounded(max(sums)) if sums else None,
    }


def rounded(value: float) -> float | str:
    """Three digits; what JSON has no number for as text."""
    return float(f"{value:.3g}") if np.isfinite(value) else str(value)


def classes(scores: np.ndarray) -> np.ndarray:
    """The class of each place: the highest, or whether a lone one reaches one half."""
    chosen: np.ndarray = scores[:, 0] >= 0.5 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return chosen


if __name__ == "__main__":
    sys.exit(main())
