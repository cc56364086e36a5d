"""The node to blame: none where sides agree, the changed one where they do not."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from trained_nets import SIZE, Bright, trained

from kits_export.blame import blamed_node
from kits_export.links import LINKS, Link
from kits_export.sides import NetForms, net_forms, why_not
from kits_trt.nets import SYSTEM_NETS
from kits_trt.systems.system import NetShape

WINDOWS = np.random.default_rng(1).random((2, 1, *SIZE), dtype=np.float32)


@pytest.fixture(scope="module")
def forms() -> NetForms:
    system = trained(Bright())
    shape = system.system.nets["bright"]
    return net_forms(system.nets["bright"], "bright", shape, half=True, weights="float32")


def link(right: str) -> Link:
    return next(each for each in LINKS if each.right == right)


def with_weight(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (item,) = (each for each in changed.graph.initializer if each.name == name)
    item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * factor, name))
    return changed


@pytest.mark.parametrize("each", LINKS, ids=lambda each: each.name)
def test_nobody_is_to_blame_where_both_sides_agree(each: Link, forms: NetForms) -> None:
    if each.right == "openvino-bf16" and (why := why_not("openvino-bf16", {})):
        pytest.skip(why)
    assert blamed_node(each, forms, WINDOWS) is None


@pytest.mark.parametrize(("weight", "node"), [("enlarge.weight", 0), ("classes.weight", 2)])
def test_the_first_node_that_differs_from_torch_is_named(
    weight: str, node: int, forms: NetForms
) -> None:
    changed = replace(forms, exact=with_weight(forms.exact, weight, 1.01))
    expected = changed.exact.graph.node[node]
    found = blamed_node(link("onnx"), changed, WINDOWS)
    assert found is not None
    assert found.startswith(f"node {expected.name} ({expected.op_type}), output")
    assert "relative error of 0.00" in found or "relative error of 0.01" in found


def test_a_node_that_drowns_in_half_is_named(forms: NetForms) -> None:
    assert forms.emulated is not None
    changed = replace(forms, emulated=with_weight(forms.emulated, "classes.weight", 1.2))
    found = blamed_node(link("fp16-emulated"), changed, WINDOWS)
    assert found is not None
    assert f"node {forms.exact.graph.node[2].name} (Conv)" in found


def test_every_node_of_a_real_graph_is_compared_with_torch() -> None:
    net = SYSTEM_NETS["unet2d-pair"]["tumour-unet"]["small"].build().eval()
    shape = NetShape(in_channels=1, out_channels=1, size_vox=(64, 128))
    real = net_forms(net, "tumour-unet", shape, half=False, weights="float32")
    windows = np.random.default_rng(2).random((1, 1, 64, 128), dtype=np.float32)
    assert blamed_node(link("onnx"), real, windows) is None
    weights = [each.input[1] for each in real.exact.graph.node if each.op_type == "Conv"]
    changed = replace(real, exact=with_weight(real.exact, weights[5], 1.1))
    node = next(each for each in real.exact.graph.node if weights[5] in each.input)
    found = blamed_node(link("onnx"), changed, windows)
    assert found is not None
    assert found.startswith(f"node {node.name} (Conv)")
