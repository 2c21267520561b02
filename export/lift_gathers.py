"""Reading pictures at constant places by gathers and a product, where a CPU runs the graph.

The coarse stage lifts features through a camera that never moves: GridSample with a constant grid, then a 1x1
convolution over channels and depths. ONNX Runtime's GridSample goes channel by channel and takes 13 ns for each; here
the four neighbours of a place are one run of memory. They are weighted by constants and summed up, by themselves or by
the product of matrices that is the convolution (docs/decisions.md). float16 and int8, which TensorRT is fast in, keep
GridSample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from .rewriting import Replacement, View, attributes, rewritten

# From so many channels on, summing up four neighbours takes less than a product four times as long.
_SUMMED_CHANNELS = 16


def as_gathers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every lift (see `model.lift.Lift`) in gathers; any other GridSample is left alone.

    Args:
        proto: float32. A lift is a GridSample (linear, border padding, corners not aligned) on a constant grid, whose
            (N, C, planes * depths * rows, columns) become (N * planes, C * depths, rows, columns), then a 1x1 Conv.
    """
    view = View(proto)
    replaced: dict[str, list[NodeProto]] = {}
    added: dict[str, NDArray[Any]] = {}
    for node in proto.graph.node:
        chain = _lift(node, view)
        if chain is not None:
            replacement = _gathers(chain, view)
            replaced |= {part.name: [] for part in chain}
            replaced[chain[-1].name] = replacement.nodes
            added |= replacement.constants
    return rewritten(proto, replaced, added)


def _lift(node: NodeProto, view: View) -> list[NodeProto] | None:
    """GridSample, Reshape, Transpose, Reshape, Conv, if that is what begins at a node."""
    if node.op_type != "GridSample":
        return None
    given = attributes(node)
    usual = (given.get("mode", b"linear"), given.get("padding_mode"), given.get("align_corners", 0))
    expand = view.maker.get(node.input[1])
    if usual != (b"linear", b"border", 0) or expand is None or expand.input[0] not in view.constants:
        return None
    chain = [node]
    for kind in ("Reshape", "Transpose", "Reshape", "Conv"):
        following = view.only_user(chain[-1], kind)
        if following is None:
            return None
        chain.append(following)
    shape, weights = view.constants.get(chain[1].input[1]), view.constants.get(chain[4].input[1])
    order = attributes(chain[2])["perm"]
    fits = shape is not None and len(shape) == 6 and list(order) == [0, 2, 1, 3, 4, 5]
    return chain if fits and weights is not None and weights.shape[2:] == (1, 1) else None


def _gathers(chain: list[NodeProto], view: View) -> Replacement:
    """What takes the place of a lift."""
    sample, conv, constants = chain[0], chain[-1], view.constants
    height, width = view.shapes[sample.input[0]][2:]
    _, channels, planes, depths, rows, columns = (int(n) for n in constants[chain[1].input[1]])
    grid = constants[view.maker[sample.input[1]].input[0]].astype(np.float64)
    # Depth last, so that what is joined lies together.
    places = grid.reshape(planes, depths, rows, columns, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 2)
    across = np.clip((places[:, 0] + 1) * width / 2 - 0.5, 0, width - 1)
    down = np.clip((places[:, 1] + 1) * height / 2 - 0.5, 0, height - 1)
    left, top = np.floor(across), np.floor(down)
    u, v = across - left, down - top
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)
    join = constants[conv.input[1]].reshape(-1, channels, depths)

    made = Replacement(sample.name)
    add, constant = made.add, made.constant
    # One texel more to the right and below, whose weight at the border is 0.
    wide = add("Pad", [sample.input[0], constant("border", np.array([0, 0, 0, 0, 0, 0, 1, 1]))], mode="edge")
    last = add("Transpose", [wide], perm=[0, 2, 3, 1])
    axes = constant("axes", np.array([1, 2]))
    near = []
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        begin, end = (
            constant(f"from_{y}{x}", np.array([y, x])),
            constant(f"to_{y}{x}", np.array([y + height, x + width])),
        )
        near.append(add("Slice", [last, begin, end, axes]))
    texels = add("Concat", near, axis=3)
    table = add("Reshape", [texels, constant("table", np.array([0, height * width, 4 * channels]))])
    index = constant("index", (top * width + left).astype(np.int32))
    found = add("Gather", [table, index], axis=1)
    parts = add("Reshape", [found, constant("parts", np.array([0, len(places), 4, channels]))])
    weighted = add("Mul", [parts, constant("weights", weights[..., None].astype(np.float32))])
    matrix = join.transpose(2, 1, 0)
    if channels < _SUMMED_CHANNELS:
        # The same matrix for each of the four neighbours sums them up.
        matrix = np.repeat(matrix[:, None], 4, axis=1)
    else:
        weighted = add("ReduceSum", [weighted, constant("neighbour", np.array([2]))], keepdims=0)
    matrix = np.ascontiguousarray(matrix.reshape(-1, join.shape[0]))
    lines = add("Reshape", [weighted, constant("lines", np.array([0, planes * rows * columns, len(matrix)]))])
    joined = add("MatMul", [lines, constant("join", matrix)])
    if len(conv.input) > 2:
        joined = add("Add", [joined, conv.input[2]])
    as_planes = constant("planes", np.array([-1, rows, columns, join.shape[0]]))
    add("Transpose", [add("Reshape", [joined, as_planes])], conv.output[0], perm=[0, 3, 1, 2])
    return made
