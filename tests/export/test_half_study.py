"""The study behind the table of half operators takes operators apart without changing scores."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from exported_nets import exported, graph_of, noise

from kits_runtime.engines.ort_cpu import import_onnxruntime

SCRIPT = Path(__file__).parents[2] / "scripts" / "half_parts.py"


@pytest.fixture(scope="module")
def parts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("half_parts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores_of(model: onnx.ModelProto, patches: np.ndarray) -> np.ndarray:
    session = import_onnxruntime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["scores"], {"patches": patches})[0]


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("BatchNormalization", "res-net"),
        ("GlobalAveragePool", "msvnet"),
        ("Sigmoid", "msvnet"),
        ("Softmax", "res-net"),
    ],
)
def test_a_net_taken_apart_gives_the_same_scores(
    parts: ModuleType, operator: str, name: str
) -> None:
    apart = parts.taken_apart(exported(name), operator)
    assert operator not in {node.op_type for node in apart.graph.node}
    expected = scores_of(exported(name), noise(name))
    np.testing.assert_allclose(scores_of(apart, noise(name)), expected, atol=1e-5)


def test_a_sigmoid_is_one_over_one_plus_the_exponential(parts: ModuleType) -> None:
    apart = parts.taken_apart(graph_of([("Sigmoid", ["patches"], "scores")], {}), "Sigmoid")
    assert [node.op_type for node in apart.graph.node] == ["Neg", "Exp", "Add", "Reciprocal"]
    patches = np.array([[[[0, np.log(3)], [-np.log(3), 88]]]], np.float32)
    found = scores_of(apart, patches)
    np.testing.assert_allclose(found, [[[[0.5, 0.75], [0.25, 1]]]], rtol=1e-6)
