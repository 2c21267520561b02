"""What rewriting an ONNX graph takes: a view of what is there, new nodes, and a graph that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnx.shape_inference import infer_shapes


class View:
    """What is in a graph, by name of the value.

    Attributes:
        constants: the initialisers.
        maker: the node that a value comes from; users: those that it goes to.
        shapes: of the values inside the graph, 0 where a size is not known.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        self.maker = {name: node for node in proto.graph.node for name in node.output}
        self.users: dict[str, list[NodeProto]] = {}
        for node in proto.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        inside = infer_shapes(proto).graph.value_info
        self.shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in inside}

    def users_of(self, node: NodeProto) -> list[NodeProto]:
        """The nodes that take what another gives."""
        return self.users.get(node.output[0], [])

    def only_user(self, node: NodeProto, kind: str) -> NodeProto | None:
        """The node that alone takes what another gives, if it is of that kind."""
        following = self.users_of(node)
        return following[0] if len(following) == 1 and following[0].op_type == kind else None


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


class Replacement:
    """Nodes, and their constants, to take the place of others.

    Args:
        name: begins the names of all of them.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, part: str, value: NDArray[Any]) -> str:
        """Keeps a constant; returns its name."""
        self.constants[f"{self._name}_{part}"] = value
        return f"{self._name}_{part}"

    def add(self, kind: str, inputs: list[str], output: str = "", **options: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        output = output or f"{self._name}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], f"{self._name}_{kind}_{len(self.nodes)}", **options))
        return output


def rewritten(
    proto: onnx.ModelProto, replaced: Mapping[str, Sequence[NodeProto]], added: Mapping[str, NDArray[Any]]
) -> onnx.ModelProto:
    """The graph with other nodes and further constants, without what nothing asks for any more; checked.

    Args:
        proto: left as it is.
        replaced: by name of a node, what stands in its place; nothing, where what stands elsewhere does its work.
        added: constants by name.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    graph = result.graph
    nodes = [new for node in proto.graph.node for new in replaced.get(node.name, [node])]
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
