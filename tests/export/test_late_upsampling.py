"""Doubling planes late: the numbers of the plain form, in ONNX Runtime and in PyTorch, and nothing else touched."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.graphs import graph_definitions, to_onnx
from export.late_upsampling import with_late_upsampling

GROUPS = 2
RESIZE = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def run(proto, **feeds):
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def convolutions_of_two(proto):
    """How many have a window of 2x2, which only late upsampling makes."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    return sum(node.op_type == "Conv" and shapes[node.input[1]][2:] == (2, 2) for node in proto.graph.node)


def block(low, fine, out, height, width, seed=0, scales=(1, 1, 2, 2), resize=RESIZE, pads=(1, 1, 1, 1), extra=False):
    """The first half of a block that doubles (N, low, height, width), joined with (N, fine, ...) where fine > 0."""
    rng = np.random.default_rng(seed)
    channels = low + fine
    values = {
        "scales": np.array(scales, np.float32),
        "scale": rng.normal(size=channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32),
        "weights": rng.normal(size=(out, channels, 3, 3)).astype(np.float32),
        "bias": rng.normal(size=out).astype(np.float32),
        "weights1": rng.normal(size=(out, channels, 1, 1)).astype(np.float32),
        "bias1": rng.normal(size=out).astype(np.float32),
    }
    wide, outputs = "joined" if fine else "doubled", ("y", "s", "r") if extra else ("y", "s")
    nodes = [
        helper.make_node("Identity", ["x"], ["small"], "identity"),
        helper.make_node("Resize", ["small", "", "scales"], ["doubled"], "resize", **resize),
        *([helper.make_node("Concat", ["doubled", "z"], ["joined"], "join", axis=1)] if fine else []),
        helper.make_node("GroupNormalization", [wide, "scale", "shift"], ["normal"], "norm", num_groups=GROUPS),
        helper.make_node("Gelu", ["normal"], ["active"], "gelu"),
        helper.make_node("Conv", ["active", "weights", "bias"], ["y"], "conv", kernel_shape=[3, 3], pads=list(pads)),
        helper.make_node("Conv", [wide, "weights1", "bias1"], ["s"], "shortcut", kernel_shape=[1, 1]),
        *([helper.make_node("Relu", [wide], ["r"], "other")] if extra else []),
    ]
    shapes = {"x": (low, height, width)} | ({"z": (fine, 2 * height, 2 * width)} if fine else {})
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, None, None]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return proto, shapes, {name: torch.from_numpy(value) for name, value in values.items()}


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(2, 0), (4, 2), (3, 1), (6, 4), (1, 5)]),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 7),
    st.integers(0, 1000),
    st.booleans(),
)
def test_a_block_of_any_size_is_that_of_pytorch(channels, out, batch, height, width, seed, joined):
    proto, shapes, values = block(*channels, out, height, width, seed)
    late = with_late_upsampling(proto, joined)
    assert convolutions_of_two(late) == 4
    rng = np.random.default_rng(seed)
    feeds = {name: (3 * rng.normal(size=(batch, *shape)) + 1).astype(np.float32) for name, shape in shapes.items()}
    wide = F.interpolate(torch.from_numpy(feeds["x"]), scale_factor=2, mode="nearest")
    if "z" in feeds:
        wide = torch.cat([wide, torch.from_numpy(feeds["z"])], dim=1)
    active = F.gelu(F.group_norm(wide, GROUPS, values["scale"], values["shift"]))
    expected = [F.conv2d(active, values["weights"], values["bias"], padding=1)]
    expected.append(F.conv2d(wide, values["weights1"], values["bias1"]))
    for found, wanted in zip(run(late, **feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=2e-4)


@pytest.mark.parametrize("graph", [0, 1], ids=["coarse", "diffusion_step"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("joined", [False, True])
def test_a_stage_is_the_same(tiny_model, graph, batch, joined):
    definition = graph_definitions(tiny_model)[graph]
    proto = to_onnx(definition)
    late = with_late_upsampling(proto, joined)
    assert operators(late).count("DepthToSpace") == (0 if joined else 2)
    assert convolutions_of_two(late) == 4 * operators(proto).count("Resize") == 8
    example = definition.example({"batch": batch}, seed=batch)
    with torch.no_grad():
        expected = definition.module(*example)
    feeds = {spec.name: value.numpy() for spec, value in zip(definition.inputs, example, strict=True)}
    for found, wanted in zip(run(late, **feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"scales": (1, 1, 3, 3)},
        {"resize": RESIZE | {"mode": "linear"}},
        {"resize": RESIZE | {"nearest_mode": "ceil"}},
        {"pads": (0, 0, 0, 0)},
        {"extra": True},
    ],
    ids=["threefold", "linear", "shifted", "unpadded", "used elsewhere"],
)
def test_what_is_doubled_in_another_way_is_left_alone(change):
    proto, _, _ = block(4, 0, 3, 4, 5, **change)
    assert operators(with_late_upsampling(proto, joined=True)) == operators(proto)
