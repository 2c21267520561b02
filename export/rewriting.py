"""What rewriting an ONNX graph begins and ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from onnx.shape_inference import infer_shapes


def known_shapes(proto: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes of the values inside a graph, 0 where a size is not known."""
    values = infer_shapes(proto).graph.value_info
    return {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in values}


def with_nodes(
    proto: onnx.ModelProto, nodes: Sequence[NodeProto], added: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """The graph with other nodes and further constants, without what nothing asks for any more; checked.

    Args:
        proto: left as it is.
        nodes: in an order in which they can run.
        added: constants by name.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [node for node in nodes if used.intersection(node.output)]
    used = {name for node in kept for name in node.input}
    constants = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    onnx.checker.check_model(result, full_check=True)
    return result
