"""Doubling planes after what can be done before.

A decoder's block doubles planes, joins them with finer ones, normalises, activates and convolves. Of the doubled
channels all four copies of a texel are the same, so here they are normalised and activated while they are small, and a
3x3 convolution of what nearest neighbours would make of them is four convolutions of 2x2, one for each place in a
doubled texel, whose weights are sums (the sub-pixel form of Shi et al. 2016, exact): four ninths of the products.
All precisions are written so but float16, which CPUs run for its parity alone (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from .rewriting import Replacement, View, attributes, rewritten

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Block:
    """What begins at a Resize: the nodes of a residual block's first half, and the value that it is joined with."""

    resize: NodeProto
    concat: NodeProto | None
    norm: NodeProto
    gelu: NodeProto
    conv: NodeProto
    shortcut: NodeProto

    @property
    def nodes(self) -> list[NodeProto]:
        return [n for n in (self.resize, self.concat, self.norm, self.gelu, self.conv, self.shortcut) if n is not None]


def with_late_upsampling(proto: onnx.ModelProto, joined: bool) -> onnx.ModelProto:
    """The graph with every block that doubles its planes (see `model.layers.upsample`) in that form.

    Args:
        proto: float32. A block is a Resize by 2 to nearest neighbours, a Concat with finer planes or none, then both a
            1x1 Conv and a GroupNormalization, Gelu and 3x3 Conv. A Resize that anything else follows is left alone.
        joined: interleaves what the four convolutions give by joining along the last axis, which ONNX Runtime does on
            all threads, instead of by DepthToSpace, which it does on one, and OpenVINO in one pass.
    """
    view = View(proto)
    replaced: dict[str, list[NodeProto]] = {}
    added: dict[str, NDArray[Any]] = {}
    for node in proto.graph.node:
        block = _block(node, view)
        if block is not None:
            early, late = _small_first(block, view, joined)
            replaced |= {part.name: [] for part in block.nodes}
            # Each where its own begins: all that they need is there by then.
            replaced[block.norm.name], replaced[block.shortcut.name] = early.nodes, late.nodes
            added |= early.constants | late.constants
    return rewritten(proto, replaced, added)


def _block(resize: NodeProto, view: View) -> _Block | None:
    if resize.op_type != "Resize" or not _doubles(resize, view):
        return None
    wide, concat = resize, view.only_user(resize, "Concat")
    if concat is not None:
        if len(concat.input) != 2 or concat.input[0] != resize.output[0] or attributes(concat)["axis"] != 1:
            return None
        wide = concat
    following = {node.op_type: node for node in view.users_of(wide)}
    if len(view.users_of(wide)) != 2 or set(following) != {"GroupNormalization", "Conv"}:
        return None
    norm, shortcut = following["GroupNormalization"], following["Conv"]
    gelu = view.only_user(norm, "Gelu")
    conv = None if gelu is None else view.only_user(gelu, "Conv")
    if gelu is None or conv is None or not _plain(shortcut, 1, view) or not _plain(conv, 3, view):
        return None
    if not all(name in view.constants for name in norm.input[1:]):
        return None
    return _Block(resize, concat, norm, gelu, conv, shortcut)


def _doubles(resize: NodeProto, view: View) -> bool:
    given = attributes(resize)
    kind = (given.get("mode"), given.get("nearest_mode"), given.get("coordinate_transformation_mode"))
    scales = view.constants.get(resize.input[2]) if len(resize.input) == 3 else None
    usual = kind == (b"nearest", b"floor", b"asymmetric")
    return usual and scales is not None and scales.tolist() == [1, 1, 2, 2]


def _plain(conv: NodeProto, side: int, view: View) -> bool:
    """A convolution with a bias of side x side, of all channels, that keeps the size."""
    given, weights = attributes(conv), view.constants.get(conv.input[1])
    simple = given.get("group", 1) == 1 and set(given.get("strides", [1])) | set(given.get("dilations", [1])) == {1}
    padded = set(given.get("pads", [0])) == {side // 2}
    return simple and padded and weights is not None and weights.shape[2:] == (side, side) and len(conv.input) == 3


def _small_first(block: _Block, view: View, joined: bool) -> tuple[Replacement, Replacement]:
    """What takes the place of a block: the way through the convolution, and the shortcut."""
    small = block.resize.input[0]
    sources = [small] if block.concat is None else [small, block.concat.input[1]]
    weights, bias = view.constants[block.conv.input[1]], block.conv.input[2]
    count = weights.shape[1] if block.concat is None else view.shapes[small][1]
    made = Replacement(block.norm.name)
    gains, offsets = _affine(made, block.norm, sources, [count, weights.shape[1] - count], view)
    parts = [
        made.add("Gelu", [made.add("Add", [made.add("Mul", [source, gain]), offset])])
        for source, gain, offset in zip(sources, gains, offsets, strict=True)
    ]
    places = []
    for down in (0, 1):
        for right in (0, 1):
            kernel = made.constant(f"kernel_{down}{right}", _summed(_summed(weights[:, :count], down, 2), right, 3))
            inputs = [parts[0], kernel, *([bias] if block.concat is None else [])]
            # Of the place above and to the left, the neighbours there count; (top, left, bottom, right).
            places.append(made.add("Conv", inputs, pads=[1 - down, 1 - right, down, right]))
    output = "" if block.concat else block.conv.output[0]
    if joined:
        doubled = _interleaved(made, places, output, view.shapes[small][2:])
    else:
        doubled = made.add("DepthToSpace", [made.add("Concat", places, axis=1)], output, blocksize=2, mode="DCR")
    if block.concat is not None:
        kernel = made.constant("kernel", np.ascontiguousarray(weights[:, count:]))
        finer = made.add("Conv", [parts[1], kernel, bias], pads=[1, 1, 1, 1])
        made.add("Add", [finer, doubled], block.conv.output[0])
    return made, _shortcut(block, sources, count, view)


def _interleaved(made: Replacement, places: list[str], output: str, size: list[int]) -> str:
    """Planes (N, C, H, W), one for each place in a doubled texel, as (N, C, 2H, 2W)."""
    height, width = size
    last = made.constant("last", np.array([-1]))
    rows = made.constant("doubled_rows", np.array([0, 0, height, 1, 2 * width]))
    above, below = (
        made.add("Reshape", [made.add("Concat", [made.add("Unsqueeze", [p, last]) for p in row], axis=4), rows])
        for row in (places[:2], places[2:])
    )
    whole = made.constant("doubled", np.array([0, 0, 2 * height, 2 * width]))
    return made.add("Reshape", [made.add("Concat", [above, below], axis=3), whole], output)


def _shortcut(block: _Block, sources: list[str], count: int, view: View) -> Replacement:
    """The 1x1 convolution, of the small planes before they are doubled."""
    made, weights = Replacement(block.shortcut.name), view.constants[block.shortcut.input[1]]
    kernel = made.constant("small", np.ascontiguousarray(weights[:, :count]))
    small = made.add("Conv", [sources[0], kernel, block.shortcut.input[2]])
    resized = [small, *block.resize.input[1:]]
    if block.concat is None:
        made.add("Resize", resized, block.shortcut.output[0], **attributes(block.resize))
    else:
        doubled = made.add("Resize", resized, **attributes(block.resize))
        kernel = made.constant("fine", np.ascontiguousarray(weights[:, count:]))
        made.add("Add", [made.add("Conv", [sources[1], kernel]), doubled], block.shortcut.output[0])
    return made


def _affine(
    made: Replacement, norm: NodeProto, sources: list[str], counts: list[int], view: View
) -> tuple[list[str], list[str]]:
    """GroupNormalization of joined planes as a gain and an offset (N, C, 1, 1) for the channels of each of them.

    The mean of a channel and its variance are those of its doubled copy, so no plane has to be doubled for them.
    """
    given = attributes(norm)
    groups, epsilon = given["num_groups"], given.get("epsilon", 1e-5)
    scale, shift = (view.constants[name].reshape(groups, -1) for name in norm.input[1:])
    axes, channel_axis = made.constant("axes", np.array([2, 3])), made.constant("channel_axis", np.array([1]))
    by_group, each = (
        made.constant("groups", np.array([-1, groups, scale.shape[1]])),
        made.constant("each", np.array([2])),
    )

    def by_groups(values: list[str]) -> str:
        joined = values[0] if len(values) == 1 else made.add("Concat", values, axis=1)
        return made.add("Reshape", [joined, by_group])

    def of_groups(values: list[str]) -> str:
        return made.add("ReduceMean", [by_groups(values), each], keepdims=1)

    def squared(value: str) -> str:
        return made.add("Mul", [value, value])

    means = [made.add("ReduceMean", [source, axes], keepdims=1) for source in sources]
    apart = [
        made.add("ReduceMean", [squared(made.add("Sub", [source, of_channel])), axes], keepdims=1)
        for source, of_channel in zip(sources, means, strict=True)
    ]
    # Variance within channels and between them: a mean of squares less a squared mean would lose the digits of planes
    # far from 0, and OpenVINO has few of them.
    mean = of_groups(means)
    between = squared(made.add("Sub", [by_groups(means), mean]))
    variance = made.add("Add", [of_groups(apart), made.add("ReduceMean", [between, each], keepdims=1)])
    deviation = made.add("Sqrt", [made.add("Add", [variance, made.constant("epsilon", np.array(epsilon, np.float32))])])
    gain = made.add("Div", [made.constant("scale", scale), deviation])
    offset = made.add("Sub", [made.constant("shift", shift), made.add("Mul", [mean, gain])])
    by_channel = made.constant("channels", np.array([-1, scale.size, 1, 1]))
    found = []
    for value in (gain, offset):
        whole = made.add("Reshape", [value, by_channel])
        bounds = [made.constant(f"channel_{n}", np.array([n])) for n in (0, counts[0], sum(counts))]
        found.append([made.add("Slice", [whole, *ends, channel_axis]) for ends in pairwise(bounds)][: len(sources)])
    return found[0], found[1]


def _summed(weights: Array, place: int, axis: int) -> Array:
    """Three weights along an axis to the two that remain when nearest neighbours have doubled what they are for."""
    first, middle, last = np.split(weights, 3, axis)
    return np.concatenate([first, middle + last] if place == 0 else [first + middle, last], axis)
