"""Modules that stand in before export: the function of those that they replace, alone and in ONNX Runtime."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.fast_modules import FastNorm, GatherLift, LateUpBlock, by_group_norm, by_layer_norm, with_fast_modules
from export.graphs import graph_definitions
from model.layers import UpBlock
from model.lift import Lift

NORMS = [by_group_norm, by_layer_norm]


def randomised(module):
    """The module with weights of every kind away from what they start from."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(8, 0), (16, 8), (8, 16), (24, 8)]),
    st.sampled_from([(1, None), (2, None), (3, 12)]),
    st.integers(1, 6),
    st.integers(1, 7),
    st.sampled_from(NORMS),
    st.integers(0, 1000),
)
def test_a_late_block_of_any_size_is_the_block(channels, batch_and_time, height, width, normalise, seed):
    torch.manual_seed(seed)
    (low, fine), (batch, time_dim) = channels, batch_and_time
    block = randomised(UpBlock(low, fine, 40, time_dim))
    x = 3 * torch.randn(batch, low, height, width) + 1
    finer = torch.randn(batch, fine, 2 * height, 2 * width) if fine else None
    time = None if time_dim is None else torch.randn(1, time_dim)
    with torch.no_grad():
        found, wanted = LateUpBlock(block, normalise)(x, time, finer), block(x, time, finer)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-4 * float(wanted.abs().max()))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(2, 9), st.sampled_from(NORMS), st.integers(0, 1000))
def test_a_norm_of_any_size_is_the_norm(batch, height, width, normalise, seed):
    torch.manual_seed(seed)
    norm = randomised(nn.GroupNorm(8, 16))
    x = torch.randn(batch, 16, height, width)
    with torch.no_grad():
        torch.testing.assert_close(FastNorm(norm, normalise)(x), norm(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reduced", [4, 16], ids=["few channels", "many channels"])
@pytest.mark.parametrize("batch", [1, 3])
def test_gathers_read_what_gridsample_reads_beyond_the_border_too(reduced, batch):
    torch.manual_seed(reduced)
    lift = randomised(Lift(6, 10, 16, depths=4, channels_per_depth=reduced))
    with torch.no_grad():
        lift.grid.uniform_(-1.4, 1.4)
        lift.grid[0, 0, :6, 0] = torch.tensor([-1, 1, -1.2, 1.2, 0, 1 - 1 / 16])
        features = torch.randn(batch, 6, 16, 16)
        torch.testing.assert_close(GatherLift(lift)(features), lift(features), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("graph", ["coarse", "diffusion_step"])
@pytest.mark.parametrize("form", ["onnxruntime", "compilers"])
def test_a_stage_with_fast_modules_is_the_stage(tiny_model, tiny_protos, graph, form):
    definition, proto = graph_definitions(tiny_model)[graph], tiny_protos[form][graph]
    normalise, gathers = {"onnxruntime": (by_layer_norm, True), "compilers": (by_group_norm, False)}[form]
    operators = [node.op_type for node in proto.graph.node]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    windows = [shapes[node.input[1]][2:] for node in proto.graph.node if node.op_type == "Conv"]
    assert windows.count((2, 2)) == 2 * 4, "two blocks double planes"
    assert "Pad" not in operators or gathers, "convolutions pad by themselves"
    assert ("GroupNormalization" in operators) == (normalise is by_group_norm)
    assert ("GridSample" in operators) == (graph == "coarse" and not gathers)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        example = definition.example({"batch": batch}, seed=batch)
        with torch.no_grad():
            expected = definition.module(*example)
        feeds = {spec.name: value.numpy() for spec, value in zip(definition.inputs, example, strict=True)}
        for found, wanted in zip(session.run(None, feeds), expected, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_a_form_that_does_not_apply_is_an_error():
    with pytest.raises(LookupError, match="no UpBlock, ResBlock, Lift"):
        with_fast_modules(nn.Sequential(nn.GroupNorm(8, 8)), by_layer_norm, gathers=True)
