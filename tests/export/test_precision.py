"""float16 and int8 variants: where float32 stays, what is quantised, how closely they follow, and what lint says."""

import collections

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import runtime
from export.graphs import graph_definitions
from export.lint import LintError, check, lint
from export.precision import float32_islands, to_float16
from export.quantize import calibration_feeds, calibration_images, to_int8
from export.to_onnx import ExportError, export_bundle
from runtime.bundle import TensorSpec

PRECISIONS = ("float32", "float16", "int8", "int8-cpu")


@pytest.fixture(scope="module")
def definitions(tiny_model):
    return graph_definitions(tiny_model)


@pytest.fixture(scope="module")
def protos(tiny_protos):
    return tiny_protos["plain"]


@pytest.fixture(scope="module")
def feeds(protos, tiny_model):
    return calibration_feeds(protos, calibration_images(tiny_model.config.image_size)[:3], 100)


def islands_by_operator(proto):
    operators = {node.name: node.op_type for node in proto.graph.node}
    return collections.Counter(operators[name] for name in float32_islands(proto))


def test_the_islands_are_timestep_state_and_coordinates(protos):
    step, renderer = (islands_by_operator(protos[name]) for name in ("diffusion_step", "renderer"))
    assert step["Sin"] == step["Cos"] == 1
    assert step["Conv"] == 0
    assert renderer["GridSample"] == 3
    assert renderer["Softplus"] == 1
    assert renderer["MatMul"] == 0


def test_all_convolutions_and_products_of_data_are_in_half(protos):
    for name in ("coarse", "diffusion_step", "renderer"):
        half = to_float16(protos[name])
        weights = {i.name: i.data_type for i in half.graph.initializer}
        for node in half.graph.node:
            if node.op_type in ("Conv", "MatMul") and node.input[1] in weights:
                assert weights[node.input[1]] == TensorProto.FLOAT16, node.name
        assert all(
            value.type.tensor_type.elem_type == TensorProto.FLOAT for value in (*half.graph.input, *half.graph.output)
        )


def test_the_samplers_state_is_never_rounded(protos, definitions):
    """With a network that says nothing the update is exact in float32, whatever the precision."""
    half = to_float16(protos["diffusion_step"])
    example = definitions["diffusion_step"].example({"batch": 2}, seed=3)
    feed = {s.name: t.numpy() for s, t in zip(definitions["diffusion_step"].inputs, example, strict=True)}
    feed["row"] = np.array([10, 0, 0, 0.75, 0, 0.5, 0.25], np.float32)
    following, _ = ort.InferenceSession(half.SerializeToString()).run(None, feed)
    expected = 0.75 * feed["noisy"] + 0.5 * feed["previous"] + 0.25 * feed["noise"]
    np.testing.assert_allclose(following, expected, atol=1e-6)


def test_only_convolutions_are_quantised_symmetrically_for_tensorrt(protos, feeds):
    quantised = to_int8(protos["diffusion_step"], feeds["diffusion_step"], cpu_only=False)
    values = {i.name: onnx.numpy_helper.to_array(i) for i in quantised.graph.initializer}
    makers = {output: node for node in quantised.graph.node for output in node.output}
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        assert all(makers[name].op_type == "DequantizeLinear" for name in node.input[:2]), node.name
        assert node.input[2] in values, "the bias stays float32"
    for node in quantised.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = values[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()


def test_every_precision_is_a_variant_with_its_own_parity(tiny_variants):
    with runtime.load(tiny_variants) as rt:
        assert rt.precision == "float32"
        parity = {p: rt.bundle.manifest["precisions"][p]["parity"] for p in PRECISIONS}
    assert [parity[p]["tolerance_db"] for p in PRECISIONS] == [60, 45, 35, 35]
    worst = {p: min(c["psnr_db"] for c in parity[p]["checks"] if c["what"].startswith("picture")) for p in PRECISIONS}
    assert worst["float32"] >= 60
    assert worst["float16"] >= 45
    assert worst["int8"] >= 35
    assert worst["int8-cpu"] >= 35


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_the_runtime_picks_a_precision_and_rows_agree(tiny_variants, pictures, precision):
    with runtime.load(tiny_variants, precision=precision) as rt, runtime.load(tiny_variants) as exact:
        together = rt.render(pictures[:3], image_size=24, num_samples=12)
        for row, picture in zip(together, pictures, strict=False):
            np.testing.assert_array_equal(row, rt.render(picture, image_size=24, num_samples=12))
            reference = exact.render(picture, image_size=24, num_samples=12)
            assert np.abs(row.astype(int) - reference).max() < 40
            assert np.abs(row.astype(int) - reference).mean() < 2


def test_an_unknown_precision_is_refused_before_anything_is_written(tiny_model, tmp_path):
    with pytest.raises(ExportError, match="Unknown precision int4; there are float32, float16, int8, int8-cpu"):
        export_bundle(tiny_model, tmp_path / "x", "x", trained=False, precisions=["int4"])
    assert list(tmp_path.iterdir()) == []


def test_our_graphs_pass_lint_in_every_precision(protos, definitions, feeds):
    for name, definition in definitions.items():
        for proto in (protos[name], to_float16(protos[name])):
            assert check(proto, definition.inputs, definition.outputs) == []
    step = definitions["diffusion_step"]
    assert check(to_int8(protos["diffusion_step"], feeds["diffusion_step"], False), step.inputs, step.outputs) == []


def small(nodes, shape=("batch", 4), kind=TensorProto.FLOAT, output=("batch", 4), initializers=()):
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, output)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def spec(name, shape=("batch", 4)):
    return [TensorSpec(name, "float32", shape)]


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (small([helper.make_node("Det", ["x"], ["y"], name="the_det")]), r"the_det \(Det\)"),
        (small([helper.make_node("Mine", ["x"], ["y"], name="own", domain="my.company")]), r"own \(Mine\): the domain"),
        (small([helper.make_node("Relu", ["x"], ["y"], name="r")], kind=TensorProto.DOUBLE), r"r \(Relu\).*float64"),
        (small([helper.make_node("Relu", ["x"], ["y"], name="r")], shape=(1, 4)), r"x \(input\): axis 0 is fixed at 1"),
        (
            small(
                [helper.make_node("Reshape", ["x", "s"], ["y"], name="r")],
                initializers=[helper.make_tensor("s", TensorProto.INT64, [2], [2, 4])],
            ),
            "it does not run with batch = 5",
        ),
        (
            small(
                [
                    helper.make_node("Unsqueeze", ["x", "a"], ["p"], name="u"),
                    helper.make_node("GridSample", ["p", "g"], ["y"], name="grid", mode="cubic"),
                ],
                output=("batch", 1, 2, 2),
                initializers=[
                    helper.make_tensor("a", TensorProto.INT64, [2], [1, 2]),
                    helper.make_tensor("g", TensorProto.FLOAT, [1, 2, 2, 2], [0.0] * 8),
                ],
            ),
            r"grid \(GridSample\): mode 'cubic'",
        ),
    ],
    ids=["operator", "domain", "float64", "fixed input", "fixed reshape", "grid mode"],
)
def test_lint_names_what_would_break_a_build(proto, reason):
    with pytest.raises(LintError, match=reason):
        check(proto, spec("x"), spec("y"))


def test_a_reduction_while_scattering_is_an_error():
    index = helper.make_tensor("i", TensorProto.INT64, [1, 1], [0])
    node = helper.make_node("ScatterND", ["x", "i", "x"], ["y"], name="scatter", reduction="add")
    assert any(
        f.breaks and f.node == "scatter" for f in lint(small([node], initializers=[index]), spec("x"), spec("y"))
    )


def test_int64_in_the_data_path_is_a_warning_and_in_a_shape_is_not():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["k"], name="largest", axis=1),
        helper.make_node("Add", ["k", "k"], ["twice"], name="twice"),
        helper.make_node("Cast", ["twice"], ["f"], to=1),
        helper.make_node("Shape", ["x"], ["s"], name="shape"),
        helper.make_node("Add", ["s", "none"], ["t"], name="same"),
        helper.make_node("Expand", ["f", "t"], ["y"], name="expand"),
    ]
    none = helper.make_tensor("none", TensorProto.INT64, [2], [0, 0])
    findings = lint(small(nodes, initializers=[none]), spec("x"), spec("y"))
    assert [(f.node, f.breaks) for f in findings] == [("largest", False), ("twice", False)]


def test_a_float64_constant_is_an_error():
    nodes = [helper.make_node("Cast", ["c"], ["f"], name="cast", to=1), helper.make_node("Add", ["x", "f"], ["y"])]
    constant = helper.make_tensor("c", TensorProto.DOUBLE, [1], [1.0])
    with pytest.raises(LintError, match=r"cast \(Cast\): its input 'c' is float64"):
        check(small(nodes, initializers=[constant]), spec("x"), spec("y"))


@pytest.mark.parametrize(
    ("kind", "zero", "said"),
    [
        (TensorProto.INT8, 3, "its zero point is not 0"),
        (TensorProto.UINT8, 0, "its zero point is uint8: only int8 parses"),
    ],
)
def test_zero_points_that_tensorrt_does_not_parse_are_errors(kind, zero, said):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="dequantise"),
    ]
    constants = [helper.make_tensor("scale", 1, [], [0.1]), helper.make_tensor("zero", kind, [], [zero])]
    with pytest.raises(LintError, match=said):
        check(small(nodes, initializers=constants), spec("x"), spec("y"))


def test_a_quantised_bias_is_an_error():
    nodes = [
        helper.make_node("DequantizeLinear", ["bias", "scale"], ["b"], name="dequantise"),
        helper.make_node("Add", ["x", "b"], ["y"]),
    ]
    constants = [helper.make_tensor("scale", 1, [], [0.1]), helper.make_tensor("bias", TensorProto.INT32, [4], [1] * 4)]
    with pytest.raises(LintError, match=r"dequantise \(DequantizeLinear\): it dequantises int32 'bias'"):
        check(small(nodes, initializers=constants), spec("x"), spec("y"))
