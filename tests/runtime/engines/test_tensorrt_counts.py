"""Operations counted by hand, plans that shrink, and what an engine's inspector tells."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_ins import Layer, Tensor, stand_in

from kits_runtime.engines.tensorrt import BuildOptions, Library, engine_layers, half_share
from kits_runtime.engines.tensorrt.inspection import layers_from_report
from kits_runtime.engines.tensorrt.options import smaller_plans
from kits_runtime.errors import EngineError

MIB = 1 << 20


class Network:
    def __init__(self, *layers: Any) -> None:
        self._layers = layers
        self.num_layers = len(layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


@pytest.fixture
def library() -> Library:
    return Library(flavour="trt", module=stand_in("10.13.0"))


def layer(library: Library, kind: str, shapes: Any, *, half: bool = False, **more: Any) -> Layer:
    dtype = library.members("DataType")["HALF" if half else "FLOAT"]
    tensors = [Tensor(f"t{index}", dtype, shape) for index, shape in enumerate(shapes)]
    return Layer(library.members("LayerType")[kind], kind.lower(), tensors, **more)


def test_a_convolution_has_two_operations_a_weight_and_output(library: Library) -> None:
    # 8 outputs of 4 channels, each from 2 of the 4 input channels (2 groups) over 9 taps.
    made = layer(
        library,
        "CONVOLUTION",
        [(-1, 4, 2, 4), (-1, 4, 2, 4)],
        kernel_size_nd=(3, 3),
        num_groups=2,
        num_output_maps=4,
    )
    assert half_share(library, Network(made)).total_flops == 2 * (4 * 8) * 2 * 9


def test_a_transposed_convolution_is_counted_over_its_input(library: Library) -> None:
    made = layer(
        library,
        "DECONVOLUTION",
        [(-1, 4, 2, 4), (-1, 3, 4, 8)],
        kernel_size_nd=(2, 2),
        num_groups=1,
        num_output_maps=3,
    )
    assert half_share(library, Network(made)).total_flops == 2 * (4 * 8) * 3 * 4


@pytest.mark.parametrize(("op", "left"), [("NONE", (5, 7)), ("TRANSPOSE", (7, 5))])
def test_a_matrix_product_is_counted_over_its_inner_length(
    library: Library, op: str, left: tuple[int, int]
) -> None:
    op0 = library.members("MatrixOperation")[op]
    made = layer(library, "MATRIX_MULTIPLY", [left, (5, 3)], op0=op0)
    assert half_share(library, Network(made)).total_flops == 2 * 5 * 3 * 7


def test_the_share_weighs_layers_by_their_operations(library: Library) -> None:
    none = library.members("MatrixOperation")["NONE"]
    wide = layer(library, "MATRIX_MULTIPLY", [(1, 1), (1, 1)], op0=none)
    half = layer(library, "MATRIX_MULTIPLY", [(1, 3), (1, 1)], half=True, op0=none)
    more = layer(library, "MATRIX_MULTIPLY", [(1, 2), (1, 1)], op0=none)
    cast = layer(library, "CAST", [(1, 9), (1, 9)])
    share = half_share(library, Network(wide, half, more, cast))
    assert (share.half_flops, share.total_flops, share.share) == (6, 12, 0.5)
    assert share.wide_layers == (("matrix_multiply", 4), ("matrix_multiply", 2))


def test_a_net_without_arithmetic_has_no_share(library: Library) -> None:
    assert half_share(library, Network()).share == 0.0


def test_plans_shrink_in_order() -> None:
    plans = list(smaller_plans(BuildOptions(workspace_bytes=512 * MIB, batch=3)))
    assert [(each.workspace_bytes, each.batch, each.optimization_level) for each in plans] == [
        (512 * MIB, 3, None),
        (128 * MIB, 3, None),
        (64 * MIB, 3, None),
        (64 * MIB, 1, None),
        (64 * MIB, 1, 1),
        (64 * MIB, 1, 0),
    ]


@given(
    workspace=st.none() | st.integers(1, 1 << 40),
    batch=st.integers(1, 64),
    level=st.none() | st.integers(0, 5),
)
def test_no_plan_repeats_and_none_asks_for_more(
    workspace: int | None, batch: int, level: int | None
) -> None:
    first = BuildOptions(workspace_bytes=workspace, batch=batch, optimization_level=level)
    plans = list(smaller_plans(first))
    assert plans[0] == first
    assert len(set(plans)) == len(plans) <= 12
    for earlier, later in itertools.pairwise(plans):
        assert later.batch <= earlier.batch
        assert (later.workspace_bytes or 0) <= (earlier.workspace_bytes or 1 << 50)
        assert (later.optimization_level or 0) <= (earlier.optimization_level or 5)
    assert plans[-1].batch == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "bf16"}, "precision is 'bf16', expected fp32 or fp16"),
        ({"batch": 0}, "batch is 0, expected at least 1"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0, expected at least 1"),
        ({"optimization_level": 6}, "optimization_level is 6, expected 0 to 5"),
        ({"least_half_share": 0.0}, "least_half_share is 0.0"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        BuildOptions(**wrong)


REPORT_10 = {
    "Layers": [
        {"Name": "conv", "Outputs": [{"Name": "a", "Format/Datatype": "Half"}]},
        {"Name": "soft", "Outputs": [{"Name": "b", "Format/Datatype": "Float"}]},
        {"Name": "shape", "Outputs": [{"Name": "c", "Format/Datatype": "Int32"}]},
        "a layer of which only the name was kept",
    ],
    "Bindings": ["patches", "scores"],
}
REPORT_86 = {
    "Layers": [
        {
            "Name": "conv",
            "Outputs": [{"Name": "a", "Format/Datatype": "Channel major FP16 format"}],
        },
        {
            "Name": "soft",
            "Outputs": [{"Name": "b", "Format/Datatype": "Row major linear FP32"}],
        },
    ]
}
REPORT_11 = {
    "Layers": [
        {"Name": "conv", "Outputs": [{"DataType": "Half", "Format": "kHWC8"}]},
        {"Name": "soft", "Outputs": [{"DataType": "Float", "Format": "kLINEAR"}]},
    ]
}


@pytest.mark.parametrize("report", [REPORT_86, REPORT_10, REPORT_11])
def test_an_engines_layers_are_told_apart_by_what_they_write(
    library: Library, report: dict[str, Any]
) -> None:
    class Inspector:
        def get_engine_information(self, form: Any) -> str:
            assert form.name == "JSON"
            return json.dumps(report)

    class Engine:
        def create_engine_inspector(self) -> Inspector:
            return Inspector()

    layers = engine_layers(library, Engine())
    assert (layers.half, layers.wide, layers.share) == (1, ("soft",), 0.5)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("{", "not JSON"),
        ('{"layers": []}', "not JSON with layers"),
        ('{"Layers": ["only", "names"]}', "no layer with a format"),
    ],
)
def test_a_report_that_tells_nothing_is_an_error(report: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        layers_from_report(report)
