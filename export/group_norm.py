"""GroupNormalization as LayerNormalization over each group, for ONNX Runtime on a CPU.

ONNX Runtime has no kernel of GroupNormalization for CPUs and takes it apart into a dozen operations, each of which goes
through memory; of LayerNormalization it has one. TensorRT has both. So float32 and int8-cpu, which CPUs run, are
written in this form, float16 and int8 in the other (docs/decisions.md). `late_upsampling` has taken those of doubled
planes before.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from .rewriting import View, attributes, rewritten


def as_layer_norms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with every GroupNormalization as Reshape, LayerNormalization, Reshape, and a scale and shift if it has.

    Args:
        proto: float32; what is normalised is (N, C, H, W) with C, H and W known.
    """
    view = View(proto)
    values, shapes = view.constants, view.shapes
    for node in proto.graph.node:
        if node.op_type == "ConstantOfShape":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    added: dict[str, np.ndarray] = {}

    def constant(name: str, value: np.ndarray) -> str:
        added[name] = value
        return name

    def layer_norm(node: NodeProto) -> list[NodeProto]:
        given = attributes(node)
        groups = given["num_groups"]
        (source, scale, shift), name = node.input, node.output[0]
        channels, height, width = shapes[source][1:]
        count = channels // groups * height * width
        # LayerNormalization wants a scale of each value; equal sizes share theirs.
        ones = constant(f"ones_{count}", np.ones(count, np.float32))
        rows = constant(f"rows_of_{groups}", np.array([0, groups, -1]))
        back = constant(f"planes_{channels}_{height}_{width}", np.array([-1, channels, height, width]))
        flat, normal, whole, scaled = (f"{name}_{part}" for part in ("rows", "normal", "planes", "scaled"))
        plain = (values[scale] == 1).all() and (values[shift] == 0).all()
        made = [
            helper.make_node("Reshape", [source, rows], [flat]),
            helper.make_node("LayerNormalization", [flat, ones], [normal], axis=-1, epsilon=given.get("epsilon", 1e-5)),
            helper.make_node("Reshape", [normal, back], [name if plain else whole]),
        ]
        if not plain:
            by_channel = [
                constant(f"{name}_{part}", values[of].reshape(-1, 1, 1))
                for part, of in (("scale", scale), ("shift", shift))
            ]
            made.append(helper.make_node("Mul", [whole, by_channel[0]], [scaled]))
            made.append(helper.make_node("Add", [scaled, by_channel[1]], [name]))
        for part in made:
            part.name = f"{node.name}_{part.op_type}_{part.output[0]}"
        return made

    norms = [node for node in proto.graph.node if node.op_type == "GroupNormalization"]
    return rewritten(proto, {node.name: layer_norm(node) for node in norms}, added)
