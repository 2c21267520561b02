"""Reading pictures at constant places by gathers and a product, where a CPU runs the graph.

The coarse stage lifts features through a camera that never moves: GridSample with a constant grid, then a 1x1
convolution over channels and depths. ONNX Runtime's GridSample goes channel by channel and takes 13 ns for each; here
the four neighbours of a place are one run of memory, and their weights, which are constants, are followed by the
convolution as one product of matrices (docs/decisions.md). TensorRT has a GridSample of its own and keeps it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from .rewriting import known_shapes, with_nodes


def as_gathers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every lift (see `model.lift.Lift`) in gathers; any other GridSample is left alone.

    Args:
        proto: float32. A lift is a GridSample (linear, border padding, corners not aligned) on a constant grid, whose
            (N, C, planes * depths * rows, columns) become (N * planes, C * depths, rows, columns), then a 1x1 Conv.
    """
    graph = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    shapes = known_shapes(proto)
    replaced: dict[str, list[NodeProto]] = {}
    added: dict[str, NDArray[Any]] = {}
    for node in graph.node:
        chain = _lift(node, maker, users, constants)
        if chain is not None:
            replaced |= {part.name: [] for part in chain}
            replaced[chain[-1].name] = _gathers(chain, shapes[node.input[0]], maker, constants, added)
    return with_nodes(proto, [new for node in graph.node for new in replaced.get(node.name, [node])], added)


def _lift(
    node: NodeProto,
    maker: dict[str, NodeProto],
    users: dict[str, list[NodeProto]],
    constants: dict[str, NDArray[Any]],
) -> list[NodeProto] | None:
    """GridSample, Reshape, Transpose, Reshape, Conv, if that is what begins at a node."""
    if node.op_type != "GridSample":
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    usual = (attributes.get("mode", b"linear"), attributes.get("padding_mode"), attributes.get("align_corners", 0))
    expand = maker.get(node.input[1])
    if usual != (b"linear", b"border", 0) or expand is None or expand.input[0] not in constants:
        return None
    chain = [node]
    for kind in ("Reshape", "Transpose", "Reshape", "Conv"):
        following = users.get(chain[-1].output[0], [])
        if len(following) != 1 or following[0].op_type != kind:
            return None
        chain.append(following[0])
    shape, weights = constants.get(chain[1].input[1]), constants.get(chain[4].input[1])
    order = helper.get_attribute_value(chain[2].attribute[0])
    fits = shape is not None and len(shape) == 6 and list(order) == [0, 2, 1, 3, 4, 5]
    return chain if fits and weights is not None and weights.shape[2:] == (1, 1) else None


def _gathers(
    chain: list[NodeProto],
    source: list[int],
    maker: dict[str, NodeProto],
    constants: dict[str, NDArray[Any]],
    added: dict[str, NDArray[Any]],
) -> list[NodeProto]:
    """The nodes that take the place of a lift; their constants go to `added`."""
    sample, conv = chain[0], chain[-1]
    name, height, width = sample.name, source[2], source[3]
    _, channels, planes, depths, rows, columns = (int(n) for n in constants[chain[1].input[1]])
    grid = constants[maker[sample.input[1]].input[0]].astype(np.float64)
    # Depth last, so that what is joined lies together.
    places = grid.reshape(planes, depths, rows, columns, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 2)
    across = np.clip((places[:, 0] + 1) * width / 2 - 0.5, 0, width - 1)
    down = np.clip((places[:, 1] + 1) * height / 2 - 0.5, 0, height - 1)
    left, top = np.floor(across), np.floor(down)
    u, v = across - left, down - top
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)
    join = constants[conv.input[1]].reshape(-1, channels, depths)

    def constant(part: str, value: NDArray[Any]) -> str:
        added[f"{name}_{part}"] = value
        return f"{name}_{part}"

    made: list[NodeProto] = []

    def add(kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{name}_{len(made)}"
        made.append(helper.make_node(kind, inputs, [output], f"{name}_{kind}_{len(made)}", **attributes))
        return output

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
    lines = add("Reshape", [weighted, constant("lines", np.array([0, planes * rows * columns, depths * 4 * channels]))])
    # The same matrix for each of the four neighbours sums them up.
    matrix = np.repeat(join.transpose(2, 1, 0)[:, None], 4, axis=1).reshape(-1, join.shape[0])
    joined = add("MatMul", [lines, constant("join", matrix)])
    if len(conv.input) > 2:
        joined = add("Add", [joined, conv.input[2]])
    as_planes = constant("planes", np.array([-1, rows, columns, join.shape[0]]))
    add("Transpose", [add("Reshape", [joined, as_planes])], conv.output[0], perm=[0, 3, 1, 2])
    return made
