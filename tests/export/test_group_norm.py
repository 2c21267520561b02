"""GroupNormalization as LayerNormalization: the same values, in ONNX Runtime and beside PyTorch."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.graphs import graph_definitions, to_onnx
from export.group_norm import as_layer_norms


def run(proto, feeds):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


def operators(proto):
    return [node.op_type for node in proto.graph.node]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(1, 3), (2, 6), (4, 8), (8, 8), (3, 12)]),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(2, 9),
    st.booleans(),
    st.integers(0, 1000),
)
def test_a_norm_of_any_size_is_that_of_pytorch(sizes, batch, height, width, affine, seed):
    (groups, channels), rng = sizes, np.random.default_rng(seed)
    scale, shift = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    if not affine:
        scale, shift = np.ones_like(scale), np.zeros_like(shift)
    norm = helper.make_node(
        "GroupNormalization", ["x", "scale", "shift"], ["y"], name="norm", num_groups=groups, epsilon=1e-3
    )
    # Shapes are known of what is computed, so the norm has something before it, as in every network.
    graph = helper.make_graph(
        [helper.make_node("Neg", ["given"], ["x"], name="before"), norm],
        "one",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, ["batch", channels, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", channels, height, width])],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(shift, "shift")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    made = as_layer_norms(proto)
    assert operators(made).count("Mul") == int(affine)
    x = rng.standard_normal((batch, channels, height, width)).astype(np.float32)
    tensors = (torch.from_numpy(values) for values in (-x, scale, shift))
    source, gain, offset = tensors
    expected = torch.nn.functional.group_norm(source, groups, gain, offset, 1e-3).numpy()
    np.testing.assert_allclose(run(made, {"given": x})[0], expected, atol=2e-5)
    assert "GroupNormalization" in operators(proto), "the graph that was given is left as it is"


@pytest.mark.parametrize("index", [0, 1], ids=["coarse", "diffusion_step"])
@pytest.mark.parametrize("batch", [1, 3])
def test_whole_graphs_compute_the_same_and_keep_their_names(tiny_model, index, batch):
    definition = graph_definitions(tiny_model)[index]
    proto = to_onnx(definition)
    made = as_layer_norms(proto)
    assert "GroupNormalization" not in operators(made)
    assert "ConstantOfShape" not in operators(made)
    assert [v.name for v in made.graph.input] == [v.name for v in proto.graph.input]
    assert [v.name for v in made.graph.output] == [v.name for v in proto.graph.output]
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)
    onnx.checker.check_model(made, full_check=True)
    inputs = zip(definition.inputs, definition.example({"batch": batch}), strict=True)
    feeds = {spec.name: tensor.numpy() for spec, tensor in inputs}
    for actual, expected in zip(run(made, feeds), run(proto, feeds), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-4)
