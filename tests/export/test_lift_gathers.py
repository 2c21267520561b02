"""Lifts in gathers: the same numbers as GridSample in ONNX Runtime and in PyTorch, and nothing else touched."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper

from export.graphs import graph_definitions, to_onnx
from export.lift_gathers import as_gathers


def run(proto, **feeds):
    return ort.InferenceSession(proto.SerializeToString()).run(None, feeds)


@pytest.fixture(scope="module")
def coarse(tiny_model):
    definition = graph_definitions(tiny_model)[0]
    return definition, to_onnx(definition)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_coarse_stage_is_the_same(coarse, batch):
    definition, proto = coarse
    gathered = as_gathers(proto)
    assert sum(node.op_type == "GridSample" for node in proto.graph.node) == 2
    assert not any(node.op_type in ("GridSample", "Expand") for node in gathered.graph.node)
    (image,) = definition.example({"batch": batch}, seed=batch)
    with torch.no_grad():
        expected = definition.module(image)
    for found, sampled, wanted in zip(
        run(gathered, image=image.numpy()), run(proto, image=image.numpy()), expected, strict=True
    ):
        np.testing.assert_allclose(found, sampled, atol=2e-5)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def lift(grid, **attributes):
    """A lift of (N, 2, 5, 7) as the exporter writes it, to 3 planes of 4x6 with 2 depths and 3 channels."""
    rng = np.random.default_rng(0)
    values = {
        "grid": grid,
        "size": np.array([1, 24, 6, 2]),
        "lines": np.array([-1, 2, 3, 2, 4, 6]),
        "planes": np.array([-1, 4, 4, 6]),
        "weights": rng.normal(size=(3, 4, 1, 1)).astype(np.float32),
        "bias": rng.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Expand", ["grid", "size"], ["wide"], "expand"),
        helper.make_node("GridSample", ["x", "wide"], ["seen"], "sample", **attributes),
        helper.make_node("Reshape", ["seen", "lines"], ["split"], "split"),
        helper.make_node("Transpose", ["split"], ["turned"], "turn", perm=[0, 2, 1, 3, 4, 5]),
        helper.make_node("Reshape", ["turned", "planes"], ["flat"], "flatten"),
        helper.make_node("Conv", ["flat", "weights", "bias"], ["y"], "join"),
    ]
    graph = helper.make_graph(
        nodes,
        "lift",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2, 5, 7])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 3, 4, 6])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
        value_info=[helper.make_tensor_value_info("seen", onnx.TensorProto.FLOAT, [1, 2, 24, 6])],
    )
    # Shape inference needs the source's shape as that of a value inside the graph.
    graph.node.insert(0, helper.make_node("Identity", ["x"], ["source"], "identity"))
    graph.node[2].input[0] = "source"
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_places_beyond_the_border_and_on_it_are_read_as_gridsample_does():
    rng = np.random.default_rng(1)
    grid = rng.uniform(-1.4, 1.4, (1, 24, 6, 2)).astype(np.float32)
    grid[0, 0, :, 0] = (-1, 1, -1.2, 1.2, 0, 1 - 1 / 7)
    proto = lift(grid, mode="linear", padding_mode="border", align_corners=0)
    gathered = as_gathers(proto)
    assert not any(node.op_type == "GridSample" for node in gathered.graph.node)
    x = rng.normal(size=(1, 2, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(run(gathered, x=x)[0], run(proto, x=x)[0], atol=1e-5)


@pytest.mark.parametrize("change", [{"padding_mode": "zeros"}, {"mode": "nearest"}, {"align_corners": 1}])
def test_what_is_sampled_in_another_way_is_left_alone(change):
    grid = np.random.default_rng(1).uniform(-1, 1, (1, 24, 6, 2)).astype(np.float32)
    proto = lift(grid, **{"mode": "linear", "padding_mode": "border", "align_corners": 0} | change)
    assert any(node.op_type == "GridSample" for node in as_gathers(proto).graph.node)
