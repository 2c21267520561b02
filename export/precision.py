"""float16 with islands of float32: which nodes keep their precision, and the conversion of the rest.

TensorRT takes precision from the graph, so the graph says it. The islands, by what a node does rather than by its name:

timestep     all that depends on the sampler's row alone: the embedding's frequencies span four decades
state        all that no matrix product comes after: the sampler's update, the density's exponential
coordinates  GridSample and what its grid is made of: half of float16's steps is a tenth of a texel

The statistics of GroupNormalization and LayerNormalization need no island: their `stash_type`, 1, is float32 already.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import NodeProto, TensorProto

_PRODUCTS = {"Conv", "Gemm", "MatMul"}


def float32_islands(proto: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float32."""
    graph = proto.graph
    producer = {output: node for node in graph.node for output in node.output}
    constants = {initializer.name for initializer in graph.initializer}
    by_row = _depending_on(graph.node, {"row"}, constants)
    before_product: set[str] = set()
    coordinates: set[str] = set()
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            before_product |= {node.name, *_ancestors(node.input, producer)}
        if node.op_type == "GridSample":
            coordinates |= {node.name, *_ancestors(node.input[1:], producer)}
    return [n.name for n in graph.node if n.name in by_row | coordinates or n.name not in before_product]


def to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float16 but for its islands; inputs and outputs keep float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    half = convert_float_to_float16(copy, keep_io_types=True, op_block_list=[], node_block_list=float32_islands(proto))
    _drop_round_trips(half.graph)
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Float32 cast to float16 and back is the float32 itself: the converter rounds what passes between islands."""
    producer = {output: node for node in graph.node for output in node.output}

    def casts(node: NodeProto | None, to: int) -> bool:
        return node is not None and node.op_type == "Cast" and node.attribute[0].i == to

    source = {}
    for node in graph.node:
        before = producer.get(node.input[0]) if node.input else None
        if casts(node, TensorProto.FLOAT) and before is not None and casts(before, TensorProto.FLOAT16):
            source[node.output[0]] = before.input[0]
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
    # What a graph gives out keeps its name: there the float32 takes the output's name.
    for name in outputs & source.keys():
        original = producer[source[name]]
        old = source[name]
        original.output[:] = [name if o == old else o for o in original.output]
        for node in graph.node:
            node.input[:] = [name if i == old else i for i in node.input]
        producer[name].output[:] = [f"{name}_rounded"]
    used: set[str] = set()
    kept = []
    for node in reversed(_sorted(graph)):
        if used.intersection(node.output) or outputs.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _sorted(graph: onnx.GraphProto) -> list[NodeProto]:
    """Nodes in an order in which every input is made before it is used."""
    made = {""} | {i.name for i in graph.initializer} | {i.name for i in graph.input}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.input)]
        ordered += ready
        made.update(output for node in ready for output in node.output)
        waiting = [node for node in waiting if not made.issuperset(node.output)]
    return ordered


def _depending_on(nodes: Iterable[NodeProto], sources: set[str], constants: set[str]) -> set[str]:
    """Names of nodes whose inputs are all constants or come from `sources` alone, at least one of them from there."""
    values, names = set(sources), set()
    for node in nodes:
        inputs = [name for name in node.input if name and name not in constants]
        if inputs and values.issuperset(inputs):
            values.update(node.output)
            names.add(node.name)
    return names


def _ancestors(inputs: Iterable[str], producer: dict[str, NodeProto]) -> set[str]:
    """Names of the nodes that some values are made from."""
    names: set[str] = set()
    waiting = list(inputs)
    while waiting:
        node = producer.get(waiting.pop())
        if node is not None and node.name not in names:
            names.add(node.name)
            waiting += node.input
    return names
